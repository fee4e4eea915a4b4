// Breakers of several processes on one real Redis: each process has its own connection, its own copy of the state, and one key prefix.

import { describe, expect, it } from 'vitest';
import { createFleetBreakers } from '../../src/stores/fleet-breakers.ts';
import { eventually } from '../support/eventually.ts';
import { openTestRedis } from '../support/redis.ts';
import {
  at,
  expire,
  FAULT,
  keyOf,
  NAME,
  openFleet,
  openIt,
  openProcess,
  SETTINGS,
  THROTTLED,
} from './breaker-fleet.ts';

describe('a fleet', () => {
  it('opens for all within twenty calls over four processes when every other one fails', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 4);
    const { processes } = fleet;
    let calls = 0;
    while (processes.every(({ breaker }) => breaker.state === 'closed') && calls < 100) {
      await at(processes, calls).call(calls % 2 === 0 ? FAULT : undefined);
      calls += 1;
    }
    expect(calls).toBeLessThanOrEqual(20);
    await eventually(() => {
      for (const { breaker } of processes) expect(breaker.state).toBe('open');
    });
    for (const { call, changes, breaker } of processes) {
      expect(await call()).toBe('refused');
      expect(breaker.retryAfterMs()).toBeGreaterThan(0);
      expect(changes).toEqual(['open']);
    }
  });

  it('opens when all call at once, and once', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 4);
    const { processes } = fleet;
    await Promise.all(
      Array.from({ length: 40 }, (_, n) => at(processes, n).call(n % 2 === 0 ? FAULT : undefined)),
    );
    await eventually(() => {
      for (const { changes } of processes) expect(changes).toEqual(['open']);
    });
  });

  it('stays closed through a storm of 429s, and when fewer than three tenths fail', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 4);
    const { processes } = fleet;
    for (let n = 0; n < 100; n += 1) await at(processes, n).call(THROTTLED);
    for (let n = 0; n < 40; n += 1) await at(processes, n).call(FAULT);
    for (const { changes, breaker } of processes) {
      expect(changes).toEqual([]);
      expect(breaker.state).toBe('closed');
    }
  });

  it('counts an interval, in few fields, and forgets it', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 2, {
      settings: { intervalMs: 200, failureThreshold: 100_000 },
    });
    const { processes } = fleet;
    const store = createFleetBreakers(test.redis);
    const read = async () =>
      (await store.read([{ name: NAME, settings: { ...SETTINGS, intervalMs: 200 } }])).get(NAME);
    let most = 0;
    const until = performance.now() + 1_000;
    for (let n = 0; performance.now() < until; n += 1) {
      await at(processes, n).call(FAULT);
      most = Math.max(most, await test.redis.command((client) => client.hlen(`${keyOf(test)}:counts`)));
    }
    expect(most).toBeLessThanOrEqual(44);
    await eventually(async () => expect(await read()).toMatchObject({ calls: 0, failures: 0 }));
    expect(at(processes, 0).breaker.state).toBe('closed');
  });

  it('sends Redis nothing before a call while it is closed, and no more than one command a call after it', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 1);
    const process = at(fleet.processes, 0);
    const passes = [];
    for (let n = 0; n < 200; n += 1) passes.push(await process.breaker.enter());
    expect(process.run).not.toHaveBeenCalled();
    for (const [n, entry] of passes.entries())
      if (entry.kind === 'let_in') entry.pass.end(n % 5 === 0 ? 'failed' : 'succeeded');
    await process.models.settled();
    expect(process.run.mock.calls.length).toBeLessThanOrEqual(41);
    const store = createFleetBreakers(test.redis);
    const views = await store.read([{ name: NAME, settings: SETTINGS }]);
    expect(views.get(NAME)).toMatchObject({ state: 'closed', calls: 200, failures: 40 });
  });
});

describe('a fleet whose breaker is switched off', () => {
  it('calls whatever fails, tells Redis nothing, and hears nothing of others', async () => {
    await using test = await openTestRedis();
    await using on = await openFleet(test, 1);
    const off = openProcess(await test.connect(), { settings: { enabled: false } });
    await using _models = off.models;
    await openIt(on.processes);
    for (let n = 0; n < 10; n += 1) expect(await off.call(FAULT)).toBe('failed');
    expect(off.breaker.state).toBe('closed');
    expect(off.changes).toEqual([]);
    expect(off.run).not.toHaveBeenCalled();
  });
});

describe('a fleet whose breaker is half open', () => {
  it('lets one of all processes try, and closes for all when that succeeds', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 4);
    const { processes } = fleet;
    await openIt(processes);
    await expire(test, processes);
    const entries = await Promise.all(processes.map(({ breaker }) => breaker.enter()));
    const [granted, ...more] = entries.filter((entry) => entry.kind === 'let_in');
    expect(more).toEqual([]);
    for (const entry of entries) if (entry.kind === 'refused') expect(entry.retryAfterMs).toBeGreaterThan(0);
    granted?.pass.end('succeeded');
    await eventually(() => {
      for (const { breaker } of processes) expect(breaker.state).toBe('closed');
    });
    for (const { call } of processes) expect(await call()).toBe('answered');
  });

  it('opens for all when the try fails', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 4);
    const { processes } = fleet;
    await openIt(processes);
    await expire(test, processes);
    expect(await at(processes, 0).call(FAULT)).toBe('failed');
    await eventually(() => {
      for (const { breaker } of processes) expect(breaker.state).toBe('open');
    });
    expect(await at(processes, 3).call()).toBe('refused');
  });

  it('takes as many successes as it is told, from whoever brings them', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 3, { settings: { successThreshold: 3 } });
    const { processes } = fleet;
    await openIt(processes);
    await expire(test, processes);
    for (const index of [0, 1]) expect(await at(processes, index).call()).toBe('answered');
    expect(at(processes, 2).breaker.state).toBe('half_open');
    expect(await at(processes, 2).call()).toBe('answered');
    await eventually(() => {
      for (const { breaker } of processes) expect(breaker.state).toBe('closed');
    });
  });

  it('lets as many try at a time as it is told', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 4, { settings: { maxRequests: 2 } });
    const { processes } = fleet;
    await openIt(processes);
    await expire(test, processes);
    const entries = await Promise.all(processes.map(({ breaker }) => breaker.enter()));
    expect(entries.filter((entry) => entry.kind === 'let_in')).toHaveLength(2);
  });

  it('gives the try of a process that died to another one, and does not hear the dead', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 2, { probeLeaseMs: 300 });
    const { processes } = fleet;
    const [first, second] = [at(processes, 0), at(processes, 1)];
    await openIt(processes);
    await expire(test, processes);
    const dead = await first.breaker.enter();
    expect(dead.kind).toBe('let_in');
    expect((await second.breaker.enter()).kind).toBe('refused');
    // It cannot keep its lease any more.
    first.cut.isCut = true;
    const taken = await eventually(async () => {
      const entry = await second.breaker.enter();
      expect(entry.kind).toBe('let_in');
      return entry;
    });
    first.cut.isCut = false;
    if (dead.kind === 'let_in') dead.pass.end('succeeded');
    await first.models.settled();
    expect(second.breaker.state).toBe('half_open');
    if (taken.kind === 'let_in') taken.pass.end('succeeded');
    await eventually(() => expect(second.breaker.state).toBe('closed'));
  });

  it('keeps a try that takes longer than its lease', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 2, { probeLeaseMs: 150 });
    const { processes } = fleet;
    await openIt(processes);
    await expire(test, processes);
    const entry = await at(processes, 0).breaker.enter();
    const renewals = () =>
      at(processes, 0).run.mock.calls.filter(([, , args]) => args.includes('keep')).length;
    await eventually(() => expect(renewals()).toBeGreaterThan(6));
    expect((await at(processes, 1).breaker.enter()).kind).toBe('refused');
    if (entry.kind === 'let_in') entry.pass.end('succeeded');
    await eventually(() => expect(at(processes, 1).breaker.state).toBe('closed'));
  });

  it('opens for all again when the try hangs', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 2, { hangMs: 100 });
    const { processes } = fleet;
    await openIt(processes);
    await expire(test, processes);
    expect((await at(processes, 0).breaker.enter()).kind).toBe('let_in');
    await eventually(() => {
      for (const { breaker } of processes) expect(breaker.state).toBe('open');
    });
  });

  it('gives back a try that taught nothing', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 2);
    const { processes } = fleet;
    await openIt(processes);
    await expire(test, processes);
    const entry = await at(processes, 0).breaker.enter();
    if (entry.kind === 'let_in') entry.pass.end('unknown');
    await at(processes, 0).models.settled();
    expect(at(processes, 1).breaker.state).toBe('half_open');
    expect(await at(processes, 1).call()).toBe('answered');
  });
});

describe('a process that joins late', () => {
  it('hears of an open breaker before its first call', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 1);
    await openIt(fleet.processes);
    const late = openProcess(test.redis, {});
    await using _models = late.models;
    await eventually(() => expect(late.breaker.state).toBe('open'));
    expect(late.breaker.retryAfterMs()).toBeGreaterThan(0);
  });
});

describe('without Redis', () => {
  it('each process counts, opens, tries and closes alone', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 2, { settings: { timeoutMs: 200 } });
    const { processes } = fleet;
    const [alone, other] = [at(processes, 0), at(processes, 1)];
    alone.cut.isCut = true;
    for (let n = 0; n < 4; n += 1) await alone.call(FAULT);
    expect(alone.breaker.state).toBe('closed');
    await alone.call(FAULT);
    expect(alone.changes).toEqual(['open']);
    await eventually(() => expect(alone.breaker.state).toBe('half_open'));
    expect(await alone.call()).toBe('answered');
    expect(alone.breaker.state).toBe('closed');
    expect(other.changes).toEqual([]);
  });

  it('what one has opened alone is closed by a fleet that has not', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 2, { settings: { timeoutMs: 200 } });
    const { processes } = fleet;
    const alone = at(processes, 0);
    alone.cut.isCut = true;
    for (let n = 0; n < 5; n += 1) await alone.call(FAULT);
    alone.cut.isCut = false;
    await eventually(() => expect(alone.breaker.state).toBe('half_open'));
    expect(await alone.call()).toBe('answered');
    expect(alone.breaker.state).toBe('closed');
  });

  it('what the fleet has open, and one has closed alone, is open for it again', async () => {
    await using test = await openTestRedis();
    await using fleet = await openFleet(test, 2, { settings: { timeoutMs: 200 } });
    const { processes } = fleet;
    const alone = at(processes, 0);
    await openIt(processes);
    alone.cut.isCut = true;
    await eventually(() => expect(alone.breaker.state).toBe('half_open'));
    expect(await alone.call()).toBe('answered');
    expect(alone.breaker.state).toBe('closed');
    alone.cut.isCut = false;
    await alone.call();
    await eventually(() => expect(alone.breaker.state).toBe('half_open'));
    expect(await alone.call()).toBe('answered');
    const store = createFleetBreakers(test.redis);
    await eventually(async () =>
      expect((await store.read([{ name: NAME, settings: SETTINGS }])).get(NAME)?.state).toBe('closed'),
    );
  });
});
