// Rebuilding the counters of a scope from Postgres. That holds are right afterwards: gate.test.ts.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createHydrate, type Hydrate } from '../../src/stores/hydrate.ts';
import { budgetKeys } from '../../src/stores/keys.ts';
import type { Attempt } from '../../src/stores/ledger.ts';
import type { Sql } from '../../src/stores/postgres.ts';
import { readScopeSums } from '../../src/stores/scope-sums.ts';
import type { Payer, Scope } from '../../src/task/budget.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { ALWAYS, toIntervalKey } from '../../src/task/window.ts';
import { attemptOf, estimateOf, type HoldOptions, holdOnce, limitOn, NANO } from '../support/holds.ts';
import { changeCounters, readCounters } from '../support/scope-counters.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const LEASE_MS = 10_000;
const DIME = NANO / 10n;

let test: TestStores;
let tenants = 0;

/** A payer of a tenant of its own, the hash of its user in Redis, and what a hold on that user's limit is made of. */
function stage() {
  tenants += 1;
  const payer: Payer = { tenantId: `tenant-${tenants}`, userId: 'ada', taskId: 'task' };
  const scope: Scope = { kind: 'user', id: 'ada' };
  const key = budgetKeys(test.prefix, payer.tenantId).scope('user', 'ada');
  return {
    payer,
    scope,
    key,
    request: { tenantId: payer.tenantId, scope, intervals: [ALWAYS], generation: 1n },
    /** Its fields, without the name of the one interval that is counted there. */
    read: async () => {
      const fields = await readCounters(test.redis, key);
      return Object.fromEntries(
        Object.entries(fields).map(([name, value]) => [name.replace(/^all:/, ''), value]),
      );
    },
    hold: (n: number, nanoUsd = DIME): HoldOptions => ({
      attemptKey: `task:run:answer:${n}#0.1.1.0`,
      payer,
      estimate: estimateOf(nanoUsd),
      limits: [limitOn(payer, 'user', NANO)],
    }),
  };
}

function hydrateFrom(sql: Sql): Hydrate {
  return createHydrate(test.redis, {
    leaseMs: LEASE_MS,
    readSums: ({ tenantId, scope, intervals }) => readScopeSums(sql, tenantId, scope, intervals),
  });
}

/** The charge of an attempt, as the ledger has it before Redis is told. */
async function endAt(attempt: Attempt, nanoUsd: bigint): Promise<void> {
  const charge = { usage: NO_USAGE, nanoUsd, source: 'measured' } as const;
  await test.stores.ledger.settle(attempt, { outcome: 'ok', charge }, undefined);
}

/** Postgres with a count of its reads, each of which waits for `until`. */
function watched(until: Promise<void> = Promise.resolve()): Sql & { reads: number } {
  const sql: Sql & { reads: number } = {
    reads: 0,
    async query(text, values) {
      sql.reads += 1;
      const answer = await test.postgres.query(text, values);
      await until;
      return answer as never; // the row type is the caller's
    },
  };
  return sql;
}

async function charge(payer: Payer, n: number, nanoUsd: bigint): Promise<void> {
  const attempt = attemptOf(
    { attemptKey: `task:run:answer:${n}#0.1.1.0`, payer, estimate: estimateOf(nanoUsd), limits: [] },
    Date.now(),
  );
  await test.stores.ledger.gate(payer.tenantId);
  await test.stores.ledger.intent(attempt, undefined);
  await test.stores.ledger.settle(
    attempt,
    { outcome: 'ok', charge: { usage: { ...NO_USAGE, inputTokens: 3 }, nanoUsd, source: 'measured' } },
    undefined,
  );
}

beforeAll(async () => {
  test = await openTestStores({ leaseMs: LEASE_MS });
});

afterAll(() => test[Symbol.asyncDispose]());

describe('hydrate', () => {
  it('writes what Postgres has settled and holds, under the present server and generation', async () => {
    const { payer, request, read } = stage();
    await charge(payer, 1, 7n);
    const open = attemptOf(
      { attemptKey: 'task:run:answer:2#0.1.1.0', payer, estimate: estimateOf(40n, 9), limits: [] },
      Date.now(),
    );
    await test.stores.ledger.intent(open, undefined);
    await test.stores.hydrate(request);
    expect(await read()).toMatchObject({
      hydrated: `1:${await test.redis.runId()}`,
      'usd:settled': '7',
      'tokens:settled': '3',
      'usd:held': '40',
      'tokens:held': '9',
    });
    // The rebuilt record may have been sent and has a lease, so that its owner can show itself.
    expect(await test.stores.redisGate.holder(payer.tenantId, open.attemptKey)).toEqual({
      owner: open.owner,
      payer: { ...payer, sessionId: undefined },
    });
    const lease = await test.stores.redisGate.lease(open);
    expect(lease?.leftMs).toBeGreaterThan(LEASE_MS / 2);
  });

  it('reads Postgres once for many of one process that miss a scope together', async () => {
    const { request } = stage();
    const gate = Promise.withResolvers<void>();
    const sql = watched(gate.promise);
    const hydrate = hydrateFrom(sql);
    const all = Array.from({ length: 20 }, () => hydrate(request));
    gate.resolve();
    await Promise.all(all);
    expect(sql.reads).toBe(1);
    await hydrate(request);
    expect(sql.reads).toBe(1);
  });

  it('lets one of several processes rebuild a scope and the others wait for it', async () => {
    const { payer, request, read } = stage();
    await charge(payer, 1, 7n);
    const sources = Array.from({ length: 5 }, () => watched());
    await Promise.all(sources.map((sql) => hydrateFrom(sql)(request)));
    expect(sources.reduce((sum, sql) => sum + sql.reads, 0)).toBe(1);
    expect(await read()).toMatchObject({ 'usd:settled': '7' });
  });

  it('tries again after Postgres failed, instead of keeping the failure', async () => {
    const { request, read } = stage();
    let isDown = true;
    const sql: Sql = {
      query: (text, values) =>
        isDown ? Promise.reject(new Error('postgres is away')) : test.postgres.query(text, values),
    };
    const hydrate = hydrateFrom(sql);
    await expect(hydrate(request)).rejects.toThrow('postgres is away');
    expect((await read())['hydrated']).toBe('');
    isDown = false;
    // The fence of the failed one must not hold up the next longer than it says.
    await hydrate(request);
    expect((await read())['hydrated']).toBeDefined();
  });

  it('starts again when an attempt was marked sent while Postgres was read', async () => {
    const { request, read, hold } = stage();
    const held = await holdOnce(test.stores, hold(1));
    if (held.kind !== 'ok') throw new Error(held.kind);
    const gate = Promise.withResolvers<void>();
    const sql = watched(gate.promise);
    // Another interval: what is counted already stays valid, so that the mark is given.
    const day = { startMs: held.heldAtMs - 1, endMs: held.heldAtMs + 86_400_000 };
    const hydrated = hydrateFrom(sql)({ ...request, intervals: [day] });
    await expect.poll(() => sql.reads).toBe(1);
    await test.stores.ledger.intent(attemptOf(hold(1), held.heldAtMs), undefined);
    expect(await test.stores.redisGate.markSent(hold(1), 1n)).toBe(true);
    gate.resolve();
    await hydrated;
    expect(sql.reads).toBe(2);
    expect(await read()).toMatchObject({ [`${toIntervalKey(day)}:usd:held`]: DIME.toString() });
  });

  it.each(['known', 'lost'] as const)(
    'counts what calls took that ended while Postgres was read, their records %s to Redis, and reads it once',
    async (record) => {
      const { payer, key, request, read, hold } = stage();
      const { ledger, redisGate } = test.stores;
      const attempts = [];
      for (const n of [1, 2, 3, 4]) {
        const held = await holdOnce(test.stores, hold(n));
        if (held.kind !== 'ok') throw new Error(held.kind);
        attempts.push(attemptOf(hold(n), held.heldAtMs));
      }
      const [settled, voided, open, before] = attempts;
      if (!settled || !voided || !open || !before) throw new Error('no attempts');
      for (const attempt of attempts) await ledger.intent(attempt, undefined);
      await endAt(before, 5n);
      await changeCounters(test.redis, key, { hydrated: '' });
      if (record === 'lost')
        await test.redis.command((client) => client.del(budgetKeys(test.prefix, payer.tenantId).holds));
      const gate = Promise.withResolvers<void>();
      const sql = watched(gate.promise);
      const hydrated = hydrateFrom(sql)(request);
      await expect.poll(() => sql.reads).toBe(1);
      await redisGate.release(before, 'settled', { nanoUsd: 5n, tokens: 0 });
      await endAt(settled, 7n);
      await redisGate.release(settled, 'settled', { nanoUsd: 7n, tokens: 0 });
      await redisGate.release(voided, 'void', { nanoUsd: 0n, tokens: 0 });
      gate.resolve();
      await hydrated;
      expect(sql.reads).toBe(1);
      const expected = { 'usd:settled': '12', 'usd:held': DIME.toString() };
      expect(await read()).toMatchObject(expected);
      expect(await read()).not.toHaveProperty('ended');
      await redisGate.release(settled, 'settled', { nanoUsd: 7n, tokens: 0 });
      expect(await read()).toMatchObject(expected);
      await redisGate.release(open, 'settled', { nanoUsd: 1n, tokens: 0 });
      expect(await read()).toMatchObject({ 'usd:settled': '13', 'usd:held': '0' });
    },
  );

  it('forgets what ended during a rebuild that failed', async () => {
    const { key, request, read, hold } = stage();
    const held = await holdOnce(test.stores, hold(1));
    if (held.kind !== 'ok') throw new Error(held.kind);
    const attempt = attemptOf(hold(1), held.heldAtMs);
    await test.stores.ledger.intent(attempt, undefined);
    await changeCounters(test.redis, key, { hydrated: '' });
    const gate = Promise.withResolvers<void>();
    const sql = watched(gate.promise);
    const failed = hydrateFrom(sql)(request);
    await expect.poll(() => sql.reads).toBe(1);
    await endAt(attempt, 7n);
    await test.stores.redisGate.release(attempt, 'settled', { nanoUsd: 7n, tokens: 0 });
    gate.reject(new Error('postgres is away'));
    await expect(failed).rejects.toThrow('postgres is away');
    await hydrateFrom(watched())(request);
    expect(await read()).toMatchObject({ 'usd:settled': '7', 'usd:held': '0' });
  });

  it('does not trust the counters of another server or generation', async () => {
    for (const wrong of ['1:another-server', `2:${await test.redis.runId()}`, '']) {
      const { payer, key, read, hold } = stage();
      await charge(payer, 9, NANO - DIME);
      expect(await holdOnce(test.stores, hold(1))).toMatchObject({ kind: 'ok' });
      await test.stores.redisGate.release(hold(1), 'void', { nanoUsd: 0n, tokens: 0 });
      // As an old snapshot would say: nothing was ever spent.
      const change = { hydrated: wrong, interval: 'all', settledUsd: '=0', settledTokens: '=0' };
      await changeCounters(test.redis, key, change);
      expect(await holdOnce(test.stores, hold(2, 2n * DIME))).toMatchObject({
        kind: 'refused',
        settled: NANO - DIME,
      });
      expect((await read())['hydrated']).toBe(`1:${await test.redis.runId()}`);
    }
  });

  it('voids an attempt that was held under counters which are not trusted any more', async () => {
    const { key, hold } = stage();
    await holdOnce(test.stores, hold(1));
    await changeCounters(test.redis, key, { hydrated: '1:another-server' });
    expect(await test.stores.redisGate.markSent(hold(1), 1n)).toBe(false);
  });

  it('does not count a hold twice that was made under another generation', async () => {
    const { payer, hold, read } = stage();
    const held = await holdOnce(test.stores, hold(1));
    if (held.kind !== 'ok') throw new Error(held.kind);
    await test.stores.ledger.intent(attemptOf(hold(1), held.heldAtMs), undefined);
    await test.postgres.query('update gates set generation = 2 where tenant_id = $1', [payer.tenantId]);
    expect(await holdOnce(test.stores, hold(2))).toMatchObject({ kind: 'ok' });
    expect(await read()).toMatchObject({ 'usd:held': (2n * DIME).toString() });
    await test.stores.redisGate.release(hold(1), 'settled', { nanoUsd: 1n, tokens: 1 });
    expect(await read()).toMatchObject({ 'usd:held': DIME.toString(), 'usd:settled': '1' });
  });

  it('never passes a limit while processes rebuild, hold, settle and lose Redis at once', async () => {
    const { payer, key, hold } = stage();
    const ledger = test.stores.ledger;
    const processes = [1, 2, 3].map(() => hydrateFrom(test.postgres));
    const run = async (one: HoldOptions, n: number): Promise<void> => {
      const hydrate = processes[n % 3] ?? test.stores.hydrate;
      const held = await holdOnce({ ...test.stores, hydrate }, one);
      if (n % 7 === 0) await test.redis.command((client) => client.del(key));
      if (held.kind !== 'ok') return;
      const attempt = attemptOf(one, held.heldAtMs);
      if (!(await ledger.intent(attempt, undefined)) || !(await test.stores.redisGate.markSent(one, 1n))) {
        await ledger.resolve(attempt, {
          to: 'voided',
          outcome: 'lost',
          charge: { usage: NO_USAGE, nanoUsd: 0n, source: 'none' },
        });
        return test.stores.redisGate.release(one, 'void', { nanoUsd: 0n, tokens: 0 });
      }
      await ledger.settle(
        attempt,
        { outcome: 'ok', charge: { usage: NO_USAGE, nanoUsd: DIME, source: 'measured' } },
        undefined,
      );
      await test.stores.redisGate.release(one, 'settled', { nanoUsd: DIME, tokens: 0 });
    };
    // Six lanes, each one call after the other, so that some calls end between two losses.
    await Promise.all(
      [0, 1, 2, 3, 4, 5].map(async (lane) => {
        for (let n = lane; n < 60; n += 6) await run(hold(n), n);
      }),
    );
    const spent = await test.stores.accounts.settled(payer.tenantId, { kind: 'user', id: 'ada' });
    expect(spent.nanoUsd).toBeLessThanOrEqual(NANO);
    expect(spent.nanoUsd).toBeGreaterThan(0n);
    const probe = await holdOnce(test.stores, hold(99, 2n * NANO));
    expect(probe).toMatchObject({ kind: 'refused', settled: spent.nanoUsd, held: 0n });
  });
});
