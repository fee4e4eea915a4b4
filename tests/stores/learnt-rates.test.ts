// What is learnt from answers, as all processes see it. One provider per test, so that all of them share a server and no clock.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rateKeys } from '../../src/stores/keys.ts';
import { createLearntRates, type PerMinute } from '../../src/stores/learnt-rates.ts';
import { effectiveLimit, readLearnt } from '../../src/stores/learnt-rule.ts';
import { createRates } from '../../src/stores/rates.ts';
import type { RateDimension, RateReading } from '../../src/task/rate-reading.ts';
import { eventually } from '../support/eventually.ts';
import { connectAgain, openTestStores, type TestStores } from '../support/stores.ts';

const HOUR_MS = 3_600_000;

let test: TestStores;
let providers = 0;

/** What is learnt of a provider that nobody else uses. */
function learning(configured: { readonly provider?: PerMinute; readonly model?: PerMinute }) {
  providers += 1;
  const provider = `p${providers}`;
  const model = `${provider}/model`;
  const unheard: number[] = [];
  let nowMs = 0;
  const make = (redis = test.redis, postgres = test.postgres) =>
    createLearntRates(redis, postgres, {
      configuredOf: () => ({ provider: configured.provider ?? {}, model: configured.model ?? {} }),
      clock: () => nowMs,
      onUnheard: async (_, ms) => void unheard.push(ms),
    });
  const keys = rateKeys(test.prefix, provider, model);
  const field = (bucket: 'model' | 'provider', name: string) =>
    test.redis.command((client) => client.hget(bucket === 'model' ? keys.inner : keys.outer, name));
  return {
    provider,
    model,
    unheard,
    pass: (ms: number) => {
      nowMs += ms;
    },
    make,
    learnt: make(),
    field,
    keys,
    async effective(bucket: 'model' | 'provider', dimension: RateDimension) {
      const [limit, at] = [
        await field(bucket, `limit:${dimension}`),
        await field(bucket, `limitAt:${dimension}`),
      ];
      const base = configured[bucket]?.[dimension] ?? 0;
      // At the moment of the last change: how far it has recovered since is the rule's business.
      return effectiveLimit(readLearnt(limit, at), base, Number(at ?? 0));
    },
    async blockedMs(bucket: 'model' | 'provider') {
      return Math.max(0, Number((await field(bucket, 'blocked')) ?? 0) - (await test.redis.nowMs()));
    },
    async saved() {
      const { rows } = await test.postgres.query<{ model: string; dimension: string; value: number }>(
        'select model, dimension, value from learnt_rates where provider = $1 order by model, dimension',
        [provider],
      );
      return rows;
    },
  };
}

const ofModel = (dimension: RateDimension, reading: Partial<RateReading>): RateReading => ({
  scope: 'model',
  dimension,
  ...reading,
});
const refusal = (given: { hintMs?: number; ageMs?: number; readings?: readonly RateReading[] } = {}) => ({
  readings: [],
  hintMs: undefined,
  ageMs: 0,
  ...given,
});

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

describe('what is heard', () => {
  it('binds the model at once, and in Postgres soon', async () => {
    const { learnt, model, effective, saved } = learning({ provider: { rpm: 600 } });
    await learnt.heard(model, [ofModel('rpm', { limit: 60, remaining: 59 })]);
    expect(await effective('model', 'rpm')).toBe(60);
    expect(await effective('provider', 'rpm')).toBe(600);
    await eventually(async () => expect(await saved()).toEqual([{ model, dimension: 'rpm', value: 60 }]));
  });

  it('binds the provider where it is said of the provider', async () => {
    const { learnt, model, effective } = learning({ provider: { rpm: 600 } });
    await learnt.heard(model, [{ scope: 'provider', dimension: 'rpm', limit: 60 }]);
    expect(await effective('provider', 'rpm')).toBe(60);
    expect(await effective('model', 'rpm')).toBe(0);
  });

  it('lets no more through than is configured, whatever remains', async () => {
    const { learnt, model, effective } = learning({ model: { rpm: 100, tpm: 1_000 } });
    await learnt.heard(model, [
      ofModel('rpm', { limit: 9_000, remaining: 8_999 }),
      ofModel('tpm', { remaining: 900_000 }),
    ]);
    expect(await effective('model', 'rpm')).toBe(100);
    expect(await effective('model', 'tpm')).toBe(1_000);
  });

  it('is told to Redis once a second where it says nothing new', async () => {
    const { learnt, model, field, pass } = learning({ model: { rpm: 600 } });
    await learnt.heard(model, [ofModel('rpm', { limit: 60, remaining: 59 })]);
    pass(999);
    await learnt.heard(model, [ofModel('rpm', { limit: 60, remaining: 58 })]);
    expect(await field('model', 'heard:rpm')).toMatch(/^59 /);
    pass(1);
    await learnt.heard(model, [ofModel('rpm', { limit: 60, remaining: 58 })]);
    expect(await field('model', 'heard:rpm')).toMatch(/^58 /);
    await learnt.heard(model, [ofModel('rpm', { limit: 61, remaining: 57 })]);
    expect(await field('model', 'heard:rpm')).toMatch(/^57 /);
  });

  it('keeps everybody out for as long as there is nothing', async () => {
    const { learnt, model, blockedMs } = learning({ model: { rpm: 600 } });
    await learnt.heard(model, [ofModel('rpm', { limit: 600, remaining: 0, emptyMs: 20_000 })]);
    expect(await blockedMs('model')).toBeGreaterThan(15_000);
    expect(await blockedMs('model')).toBeLessThanOrEqual(20_000);
    expect(await blockedMs('provider')).toBe(0);
  });

  it('is nothing when nothing is said', async () => {
    const { learnt, model, keys } = learning({ model: { rpm: 600 } });
    await learnt.heard(model, []);
    expect(await test.redis.command((client) => client.exists(keys.inner, keys.outer))).toBe(0);
  });
});

describe('a refusal', () => {
  it('blocks the provider until the hint and cuts its limits, where the model has none', async () => {
    const { learnt, model, effective, blockedMs } = learning({ provider: { rpm: 600, tpm: 1_000 } });
    await learnt.throttled(model, refusal({ hintMs: 30_000 }));
    expect(await effective('provider', 'rpm')).toBeCloseTo(420);
    expect(await effective('provider', 'tpm')).toBeCloseTo(700);
    expect(await blockedMs('provider')).toBeGreaterThan(25_000);
    expect(await blockedMs('model')).toBe(0);
  });

  it('leaves the other models alone, where the model has limits of its own', async () => {
    const { learnt, model, effective, blockedMs } = learning({ provider: { rpm: 600 }, model: { rpm: 100 } });
    await learnt.throttled(model, refusal({ hintMs: 30_000 }));
    expect(await effective('model', 'rpm')).toBeCloseTo(70);
    expect(await effective('provider', 'rpm')).toBe(600);
    expect(await blockedMs('model')).toBeGreaterThan(25_000);
    expect(await blockedMs('provider')).toBe(0);
  });

  it('does so for a model whose limit was only heard of', async () => {
    const { learnt, model, effective, blockedMs } = learning({ provider: { rpm: 600 } });
    await learnt.heard(model, [ofModel('rpm', { limit: 200 })]);
    await learnt.throttled(model, refusal({ hintMs: 30_000 }));
    expect(await effective('model', 'rpm')).toBeCloseTo(140);
    expect(await blockedMs('provider')).toBe(0);
  });

  it('cuts only what the provider says is used up', async () => {
    const { learnt, model, effective } = learning({ model: { rpm: 600, tpm: 1_000 } });
    const readings = [ofModel('rpm', { remaining: 9 }), ofModel('tpm', { remaining: 0, emptyMs: 1 })];
    await learnt.throttled(model, refusal({ hintMs: 100, readings }));
    expect(await effective('model', 'rpm')).toBe(600);
    expect(await effective('model', 'tpm')).toBeCloseTo(700);
  });

  it('cuts everything where what is used up binds nobody here', async () => {
    const { learnt, model, effective } = learning({ model: { rpm: 600, tpm: 1_000 } });
    const readings = [ofModel('rpm', { remaining: 9 }), ofModel('outputTpm', { limit: 100, remaining: 0 })];
    await learnt.throttled(model, refusal({ hintMs: 100, readings }));
    expect(await effective('model', 'rpm')).toBeCloseTo(420);
    expect(await effective('model', 'tpm')).toBeCloseTo(700);
  });

  it('is one with all the others of its burst, whichever process hears of them', async () => {
    const { make, model, effective, blockedMs } = learning({ model: { rpm: 600 } });
    await using other = await connectAgain(test);
    const [here, there] = [make(), make(other.redis, other.postgres)];
    await Promise.all(
      Array.from({ length: 40 }, (_, n) =>
        (n % 2 === 0 ? here : there).throttled(model, refusal({ hintMs: 1_000 * (n + 1) })),
      ),
    );
    expect(await effective('model', 'rpm')).toBeCloseTo(420);
    // The longest of their hints.
    expect(await blockedMs('model')).toBeGreaterThan(35_000);
  });

  it('cuts again when it answers a request that was sent after the cut', async () => {
    const { learnt, model, effective, keys } = learning({ model: { rpm: 600 } });
    await learnt.throttled(model, refusal({ hintMs: 1 }));
    await test.redis.command(async (client) =>
      client.hset(keys.inner, 'cutAt', Number(await client.hget(keys.inner, 'cutAt')) - 5_000),
    );
    // Sent before it: of the same burst, however late its answer is.
    await learnt.throttled(model, refusal({ hintMs: 1, ageMs: 60_000 }));
    expect(await effective('model', 'rpm')).toBeCloseTo(420);
    await learnt.throttled(model, refusal({ hintMs: 1, ageMs: 100 }));
    expect(await effective('model', 'rpm')).toBeLessThan(310);
  });

  it('without a hint blocks for a second, and twice as long each time it comes again', async () => {
    const { learnt, model, blockedMs, keys } = learning({ model: { rpm: 600 } });
    const waits: number[] = [];
    for (let n = 0; n < 7; n += 1) {
      await learnt.throttled(model, refusal());
      waits.push(Math.round((await blockedMs('model')) / 1_000));
      await test.redis.command(async (client) => {
        const cutAt = Number(await client.hget(keys.inner, 'cutAt'));
        await client.hset(keys.inner, 'cutAt', cutAt - 5_000);
      });
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 30, 30]);
  });

  it('blocks for an hour at most', async () => {
    const { learnt, model, blockedMs } = learning({ model: { rpm: 600 } });
    await learnt.throttled(model, refusal({ hintMs: 1e12 }));
    expect(await blockedMs('model')).toBeLessThanOrEqual(HOUR_MS);
    expect(await blockedMs('model')).toBeGreaterThan(HOUR_MS - 60_000);
  });

  it('is a matter of this process alone while Redis is away', async () => {
    const { make, model, unheard } = learning({ model: { rpm: 600 } });
    const gone = await connectAgain(test);
    await gone[Symbol.asyncDispose]();
    const learnt = make(gone.redis);
    await learnt.throttled(model, refusal({ hintMs: 700 }));
    await learnt.heard(model, [ofModel('rpm', { limit: 60 })]);
    expect(unheard).toEqual([700]);
  });
});

describe('places that were booked', () => {
  async function bookSome() {
    // One each half minute, so that no place is lost while the test looks.
    const all = learning({ provider: { rpm: 2 } });
    const rates = createRates(test.redis, { leaseMs: 600_000, rules: { provider: () => ({ rpm: 2 }) } });
    const admit = (n: number, isBooked = false) =>
      rates.admit({
        ...{ provider: all.provider, model: all.model, tenantId: 'tenant', attemptKey: `attempt-${n}` },
        ...{ callKey: `call-${n}`, candidate: 0, priority: 'critical', isBooked },
        tokens: { input: 1, output: 1 },
      });
    const outcomes = [];
    for (let n = 0; n < 9; n += 1) outcomes.push(await admit(n));
    const booked = outcomes.filter((outcome) => outcome.kind === 'wait' && outcome.isBooked).length;
    expect(booked).toBe(4);
    const places = () => test.redis.command((client) => client.zcard(all.keys.bookings));
    expect(await places()).toBe(booked);
    return { ...all, admit, booked, places };
  }

  it('are given up when the pace falls, and whoever had one lines up for the new pace', async () => {
    const { learnt, model, keys, field, places, admit } = await bookSome();
    await learnt.heard(model, [{ scope: 'provider', dimension: 'rpm', limit: 1 }]);
    expect(await places()).toBe(0);
    const fields = await test.redis.command((client) => client.hkeys(keys.outer));
    expect(fields.filter((name) => name.startsWith('b:'))).toEqual([]);
    // The bucket is empty, and nobody is in debt for places that are gone.
    const aheadMs =
      Number(await field('provider', 'rpm')) / 1_000 - Number(await field('provider', 'limitAt:rpm'));
    expect(aheadMs).toBe(60_000);
    expect(await admit(4, true)).toMatchObject({ kind: 'wait', isBooked: true });
    expect(await places()).toBe(1);
  });

  it('stay when it falls by little, and when it rises', async () => {
    const { learnt, model, booked, places } = await bookSome();
    await learnt.heard(model, [{ scope: 'provider', dimension: 'rpm', limit: 1.9 }]);
    await learnt.heard(model, [{ scope: 'provider', dimension: 'rpm', limit: 600 }]);
    expect(await places()).toBe(booked);
  });
});

describe('what was learnt', () => {
  async function learnTwo() {
    const all = learning({ provider: { rpm: 600 }, model: { tpm: 9_000 } });
    await all.learnt.heard(all.model, [
      ofModel('tpm', { limit: 1_000 }),
      { scope: 'provider', dimension: 'rpm', limit: 60 },
    ]);
    await all.learnt.throttled(all.model, refusal({ hintMs: 600_000 }));
    await eventually(async () => expect(await all.saved()).toHaveLength(3));
    await all.learnt.keep([all.provider]);
    return all;
  }

  it('is read back when Redis has lost it', async () => {
    const { keys, make, provider, effective, blockedMs } = await learnTwo();
    await test.redis.command((client) => client.del(keys.inner, keys.outer));
    // Another process, started since.
    await make().keep([provider]);
    expect(await effective('provider', 'rpm')).toBe(60);
    expect(await effective('model', 'tpm')).toBeCloseTo(700);
    expect(await blockedMs('model')).toBeGreaterThan(550_000);
  });

  it('is read back by a server that came up with an older state', async () => {
    const { keys, learnt, provider, effective } = await learnTwo();
    await test.redis.command((client) =>
      client.hset(keys.outer, { learnt: 'another run', 'limit:rpm': '500.000 500.000', 'limitAt:rpm': '1' }),
    );
    await learnt.keep([provider]);
    expect(await effective('provider', 'rpm')).toBe(60);
  });

  it('does not undo what was learnt since', async () => {
    const { keys, learnt, model, provider, effective } = await learnTwo();
    await test.redis.command((client) => client.del(keys.inner, keys.outer));
    await learnt.heard(model, [{ scope: 'provider', dimension: 'rpm', limit: 30 }]);
    await learnt.keep([provider]);
    expect(await effective('provider', 'rpm')).toBe(30);
  });

  it('is not written for what changes nothing', async () => {
    const { learnt, model, provider, saved } = learning({ model: { rpm: 600 } });
    const changedAt = async () => {
      const { rows } = await test.postgres.query<{ at: string }>(
        'select changed_at::text as at from learnt_rates where provider = $1',
        [provider],
      );
      return rows.map((row) => row.at);
    };
    await learnt.heard(model, [ofModel('rpm', { limit: 60, remaining: 59 })]);
    await eventually(async () => expect(await saved()).toHaveLength(1));
    const before = await changedAt();
    // A refreshed count: told to Redis, and nothing for Postgres.
    await learnt.heard(model, [ofModel('rpm', { limit: 60, remaining: 0, emptyMs: 1 })]);
    await learnt.keep([provider]);
    expect(await changedAt()).toEqual(before);
  });

  it('is saved later when Postgres is away', async () => {
    const { make, model, provider, effective, saved } = learning({ model: { rpm: 600 } });
    let isAway = true;
    const postgres: TestStores['postgres'] = {
      ...test.postgres,
      query: (text, values) =>
        isAway ? Promise.reject(new Error('away')) : test.postgres.query(text, values),
    };
    const learnt = make(test.redis, postgres);
    await learnt.heard(model, [ofModel('rpm', { limit: 60 })]);
    expect(await effective('model', 'rpm')).toBe(60);
    await expect(learnt.keep([provider])).rejects.toThrow('away');
    isAway = false;
    await learnt.keep([provider]);
    expect(await saved()).toEqual([{ model, dimension: 'rpm', value: 60 }]);
  });
});
