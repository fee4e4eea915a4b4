// The scripts of shared breakers, and what listeners hear, on a real Redis.

import { describe, expect, it } from 'vitest';
import { createFleetBreakers, type FleetState } from '../../src/stores/fleet-breakers.ts';
import type { Redis } from '../../src/stores/redis.ts';
import { eventually } from '../support/eventually.ts';
import { openTestRedis } from '../support/redis.ts';

const SETTINGS = {
  enabled: true,
  intervalMs: 60_000,
  timeoutMs: 30_000,
  failureThreshold: 3,
  successThreshold: 1,
  maxRequests: 1,
};
const BREAKER = { name: 'llm:openai/gpt-5', settings: SETTINGS };

/** Hears what is published, once it has been subscribed. */
async function listen(redis: Redis) {
  const heard: (FleetState & { name: string })[] = [];
  let missed = 0;
  let cut = () => undefined as unknown;
  const duplicate = () => {
    const client = redis.duplicate();
    cut = () => client.disconnect(true);
    return client;
  };
  const following = createFleetBreakers({ ...redis, duplicate }).follow({
    changed: (name, { state, leftMs, era }) => void heard.push({ name, state, leftMs, era }),
    missed: () => {
      missed += 1;
    },
  });
  await eventually(() => expect(missed).toBe(1));
  return {
    heard,
    missed: () => missed,
    break: () => cut(),
    [Symbol.asyncDispose]: () => following[Symbol.asyncDispose](),
  };
}

const keyOf = (prefix: string) => `${prefix}:{p:openai}:breaker:${BREAKER.name}`;

describe('shared breakers', () => {
  it('open at the threshold by the sum of what everybody notes, and tell all', async () => {
    await using test = await openTestRedis();
    await using listener = await listen(test.redis);
    const [one, two] = [createFleetBreakers(test.redis), createFleetBreakers(await test.connect())];
    expect(await one.note(BREAKER, { calls: 2, failures: 1 })).toMatchObject({ state: 'closed' });
    expect(await two.note(BREAKER, { calls: 3, failures: 1 })).toMatchObject({ state: 'closed' });
    const opened = await one.note(BREAKER, { calls: 5, failures: 1 });
    expect(opened).toMatchObject({ state: 'open', leftMs: SETTINGS.timeoutMs });
    await eventually(() =>
      expect(listener.heard.at(-1)).toEqual({
        name: BREAKER.name,
        state: 'open',
        leftMs: SETTINGS.timeoutMs,
        era: opened.era,
      }),
    );
    // What comes late changes nothing.
    expect(await two.note(BREAKER, { calls: 9, failures: 9 })).toMatchObject({
      state: 'open',
      era: opened.era,
    });
  });

  it('stay closed one call below three tenths, and open at three tenths', async () => {
    await using test = await openTestRedis();
    const store = createFleetBreakers(test.redis);
    await store.note(BREAKER, { calls: 8, failures: 0 });
    expect((await store.note(BREAKER, { calls: 3, failures: 3 })).state).toBe('closed');
    expect((await store.note(BREAKER, { calls: 2, failures: 1 })).state).toBe('open');
  });

  it('grant no try before the time is over, and say how long that is', async () => {
    await using test = await openTestRedis();
    const store = createFleetBreakers(test.redis);
    const ask = () => store.askProbe(BREAKER, { token: 'a', leaseMs: 10_000 });
    expect((await ask()).verdict).toBe('closed');
    await store.note(BREAKER, { calls: 3, failures: 3 });
    const early = await ask();
    expect(early).toMatchObject({ verdict: 'wait', state: 'open' });
    expect(early.leftMs).toBeGreaterThan(0);
    expect(early.leftMs).toBeLessThanOrEqual(SETTINGS.timeoutMs);
  });

  it('end a try once, and only by who has it', async () => {
    await using test = await openTestRedis();
    const store = createFleetBreakers(test.redis);
    const breaker = { ...BREAKER, settings: { ...SETTINGS, timeoutMs: 10, successThreshold: 2 } };
    await store.note(breaker, { calls: 3, failures: 3 });
    await eventually(async () =>
      expect((await store.askProbe(breaker, { token: 'a', leaseMs: 10_000 })).verdict).toBe('probe'),
    );
    const end = (token: string) => store.endProbe(breaker, { token, outcome: 'succeeded' });
    expect((await end('somebody else')).state).toBe('half_open');
    expect((await end('a')).state).toBe('half_open');
    expect((await end('a')).state).toBe('half_open');
    expect(await store.keepProbe(breaker, { token: 'a', leaseMs: 10_000 })).toBe(false);
    await store.askProbe(breaker, { token: 'b', leaseMs: 10_000 });
    expect((await end('b')).state).toBe('closed');
  });

  it('begin anew, above all eras before, when Redis has lost them', async () => {
    await using test = await openTestRedis();
    const store = createFleetBreakers(test.redis);
    const { era } = await store.note(BREAKER, { calls: 3, failures: 3 });
    await test.redis.command((client) => client.del(keyOf(test.prefix)));
    const anew = await store.note(BREAKER, { calls: 1, failures: 0 });
    expect(anew.state).toBe('closed');
    expect(anew.era).toBeGreaterThan(era);
    expect((await store.read([BREAKER])).get(BREAKER.name)).toMatchObject({ calls: 1, failures: 0 });
  });

  it('leave nothing behind for ever', async () => {
    await using test = await openTestRedis();
    const store = createFleetBreakers(test.redis);
    await store.note(BREAKER, { calls: 1, failures: 1 });
    const key = keyOf(test.prefix);
    const ttls = await test.redis.command((client) =>
      Promise.all([key, `${key}:counts`].map((k) => client.pttl(k))),
    );
    for (const ttl of ttls) expect(ttl).toBeGreaterThan(SETTINGS.intervalMs + SETTINGS.timeoutMs);
  });

  it('send a listener to look for itself after a message that it cannot read, and after a break', async () => {
    await using test = await openTestRedis();
    await using listener = await listen(test.redis);
    for (const text of ['{', '{"name":"x","state":"ajar"}'])
      await test.redis.command((client) => client.publish(`${test.prefix}:breakers`, text));
    await eventually(() => expect(listener.missed()).toBe(3));
    expect(listener.heard).toEqual([]);
    const before = listener.missed();
    listener.break();
    await eventually(() => expect(listener.missed()).toBeGreaterThan(before));
  });
});
