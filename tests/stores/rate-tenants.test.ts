// Every bucket of a call: the provider's, the model's, and, of its tenant, plan and tier. A call needs all of them, and takes from none that
// another one is in the way of.

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { RateLimit } from '../../src/stores/rate-rules.ts';
import type { Redis } from '../../src/stores/redis.ts';
import { admitted, letPass, NO_BOOKINGS, stageRates, waitOf } from '../support/rates.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

const MANY = 12_000;

type Limits = { readonly [bucket in 'provider' | 'model' | 'tier' | 'plan']?: RateLimit };

function limited(limits: Limits, classes = NO_BOOKINGS, redis: Redis = test.redis) {
  const { provider = {}, model = {}, tier = {}, plan = {} } = limits;
  return stageRates(
    redis,
    {
      ...{ provider: () => provider, model: () => model, tier: () => tier, plan: () => plan },
      tierOf: () => 'small' as const,
    },
    { classes },
  );
}

describe('the tightest bucket', () => {
  it.each(['provider', 'model', 'tier', 'plan'] as const)('binds when it is the %s', async (bucket) => {
    const all = { provider: { rpm: MANY }, model: { rpm: MANY }, tier: { rpm: MANY }, plan: { rpm: MANY } };
    const { admitAll, admit } = limited({ ...all, [bucket]: { rpm: 60 } });
    expect(admitted(await admitAll(8))).toBe(5);
    expect(waitOf(await admit())).toMatchObject({ bucket, dimension: 'rpm', isBooked: false });
  });

  it('takes nothing from the others when it says wait', async () => {
    const stage = limited({
      provider: { rpm: 60 },
      model: { rpm: 60 },
      tier: { rpm: MANY },
      plan: { rpm: MANY },
    });
    await stage.admitAll(5);
    const before = [
      await stage.debtMs('rpm', 'outer', stage.tierKeys),
      await stage.debtMs('rpm', 'inner', stage.tierKeys),
    ];
    for (let n = 0; n < 10; n += 1) expect((await stage.admit()).kind).toBe('wait');
    expect(await stage.debtMs('rpm', 'outer', stage.tierKeys)).toBeLessThanOrEqual(before[0] ?? 0);
    expect(await stage.debtMs('rpm', 'inner', stage.tierKeys)).toBeLessThanOrEqual(before[1] ?? 0);
  });

  it('of the tenant is found before the provider is asked', async () => {
    const run = vi.fn<Redis['run']>((...args) => test.redis.run(...args));
    const { admit, keys } = limited({ provider: { rpm: MANY }, tier: { rpm: 1 } }, NO_BOOKINGS, {
      ...test.redis,
      run,
    });
    await admit();
    run.mockClear();
    expect((await admit()).kind).toBe('wait');
    expect(run.mock.calls.flatMap(([, asked]) => asked)).not.toContain(keys.outer);
  });

  it("of a tenant is no other tenant's", async () => {
    const { admit } = limited({ tier: { rpm: 1 }, plan: { rpm: 1 } });
    expect((await admit()).kind).toBe('admitted');
    expect((await admit()).kind).toBe('wait');
    expect((await admit({ tenantId: 'somebody-else' })).kind).toBe('admitted');
  });

  it('of a model leaves the other models of its provider alone', async () => {
    const { admit, provider, rates, model } = limited({ provider: { rpm: MANY }, model: { rpm: 1 } });
    expect((await admit()).kind).toBe('admitted');
    expect((await admit()).kind).toBe('wait');
    expect((await admit({ model: `${provider}/two` })).kind).toBe('admitted');
    await rates.cool(provider, 5_000, model);
    expect(waitOf(await admit()).dimension).toBe('rpm');
    expect((await admit({ model: `${provider}/three` })).kind).toBe('admitted');
  });

  it('of a tenant books nothing, whatever the horizon', async () => {
    const { admitAll } = stageRates(test.redis, { tier: () => ({ rpm: 60 }), tierOf: () => 'small' });
    const outcomes = await admitAll(20);
    expect(admitted(outcomes)).toBe(5);
    expect(outcomes.some((outcome) => outcome.kind === 'wait' && outcome.isBooked)).toBe(false);
  });
});

describe('input and output', () => {
  it('are limited apart where a provider does so', async () => {
    const { admit } = limited({ model: { inputTpm: 6_000, outputTpm: 600 } });
    expect((await admit({ tokens: { input: 100, output: 500 } })).kind).toBe('admitted');
    expect(waitOf(await admit({ tokens: { input: 100, output: 200 } }))).toMatchObject({
      bucket: 'model',
      dimension: 'outputTpm',
    });
    expect(waitOf(await admit({ tokens: { input: 6_000, output: 50 } }))).toMatchObject({
      dimension: 'inputTpm',
    });
    expect((await admit({ tokens: { input: 5_000, output: 50 } })).kind).toBe('admitted');
  });

  it('are corrected apart', async () => {
    const { rates, request, debtMs } = limited({ provider: { inputTpm: 6_000, outputTpm: 6_000 } });
    const asked = request({ tokens: { input: 1_000, output: 1_000 } });
    await rates.admit(asked);
    await rates.giveBack(asked, { input: 2_000, output: 100, isSent: true });
    expect(await debtMs('inputTpm')).toBeGreaterThan(19_000);
    expect(await debtMs('outputTpm')).toBeLessThanOrEqual(1_000);
  });
});

describe('a permit of every bucket', () => {
  it('is corrected in all of them, once', async () => {
    const tpm = { tpm: 6_000 };
    const stage = limited({ provider: tpm, model: tpm, tier: tpm, plan: tpm });
    const asked = stage.request({ tokens: { input: 1_000, output: 0 } });
    await stage.rates.admit(asked);
    for (let n = 0; n < 3; n += 1) await stage.rates.giveBack(asked, { input: 100, output: 0, isSent: true });
    const debts = [
      await stage.debtMs('tpm'),
      await stage.debtMs('tpm', 'inner'),
      await stage.debtMs('tpm', 'outer', stage.tierKeys),
      await stage.debtMs('tpm', 'inner', stage.tierKeys),
    ];
    for (const debt of debts) {
      expect(debt).toBeGreaterThan(0);
      expect(debt).toBeLessThanOrEqual(1_000);
    }
  });

  it('is charged for more than it booked from now on, also in a bucket that has filled up since', async () => {
    const { rates, request, debtMs, keys } = limited({ provider: { tpm: 6_000 } });
    const asked = request({ tokens: { input: 1_000, output: 0 } });
    await rates.admit(asked);
    await letPass(test.redis, { ...keys, outerLeases: 'none' }, 3_600_000);
    await rates.giveBack(asked, { input: 3_000, output: 0, isSent: true });
    expect(await debtMs('tpm')).toBeGreaterThan(19_000);
  });

  it('comes back whole when it was never sent', async () => {
    const one = { rpm: 1 };
    const { rates, request, admit } = limited({ provider: one, model: one, tier: one, plan: one });
    const asked = request();
    await rates.admit(asked);
    expect((await admit()).kind).toBe('wait');
    await rates.giveBack(asked, { input: 0, output: 0, isSent: false });
    expect((await admit()).kind).toBe('admitted');
  });
});

describe('expected output', () => {
  it('is what a model usually writes, as soon as that is known', async () => {
    // A token is 10 ms of such a minute, so that what passes while the test looks is a few of them.
    const { rates, request, debtMs, keys } = limited({ provider: { tpm: 6_000 } });
    const ask = async (output: number) => {
      const asked = request({ tokens: { input: 0, output: 4_000 } });
      await rates.admit(asked);
      await rates.giveBack(asked, { input: 0, output, isSent: true });
    };
    const booked = async () => {
      await letPass(test.redis, keys, 600_000);
      await rates.admit(request({ tokens: { input: 0, output: 4_000 } }));
      return Math.ceil((await debtMs('tpm')) / 10);
    };
    expect(await booked()).toBeGreaterThan(900);
    expect(await booked()).toBeLessThanOrEqual(1_024);
    for (let n = 1; n <= 20; n += 1) await ask(n * 10);
    expect(await booked()).toBeLessThanOrEqual(200);
    expect(await booked()).toBeGreaterThan(150);
  });

  it('settles where one answer in twenty is longer', async () => {
    const { rates, request, keys, model } = limited({ provider: { tpm: 1e9 } });
    for (let n = 0; n < 300; n += 1) {
      const asked = request({ tokens: { input: 0, output: 4_000 } });
      await rates.admit(asked);
      await rates.giveBack(asked, { input: 0, output: 1 + ((n * 37) % 100), isSent: true });
    }
    const usual = await test.redis.command((client) => client.hget(keys.outer, `w:${model}`));
    const p95 = Number(usual?.split(' ')[1]);
    expect(p95).toBeGreaterThan(85);
    expect(p95).toBeLessThan(105);
  });
});

describe('provider limits that are turned off', () => {
  it('leave providers alone, and tenants bound', async () => {
    const { admitAll, admit } = stageRates(
      test.redis,
      {
        ...{ provider: () => ({ rpm: 1 }), tier: () => ({ rpm: 60 }), tierOf: () => 'small' as const },
        limitsProviders: () => false,
      },
      { classes: NO_BOOKINGS },
    );
    expect(admitted(await admitAll(8))).toBe(5);
    expect(waitOf(await admit())).toMatchObject({ bucket: 'tier' });
  });
});
