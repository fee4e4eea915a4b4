import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { notEnforced, planOfTenant } from '../../src/config.ts';
import { faultsOf, load } from './overlay.ts';

const withLimits = (value: unknown, env = {}) =>
  load({ env, files: { 'limits.yaml': stringify(value) } }).limits;

const USD = { unit: 'usd', window: 'total', hard: true, warnAt: 0.8 };

describe('the shipped limits.yaml', () => {
  it('holds the limits of the design', () => {
    const { rates, budgets } = load().limits;
    expect(rates.providers).toMatchObject({
      openai: { rpm: 30, tpm: 60_000, maxParallel: 100 },
      anthropic: { rpm: 20, tpm: 40_000 },
      google: { rpm: 40, tpm: 80_000 },
      meta: { rpm: 60, tpm: 120_000 },
      simulated: { rpm: 6_000, tpm: 20_000_000, maxParallel: 200 },
      default: { rpm: 45, tpm: 90_000 },
    });
    expect({ ...rates.tiers }).toEqual({
      small: { rpm: 120, tpm: 200_000 },
      medium: { rpm: 60, tpm: 100_000 },
      large: { rpm: 30, tpm: 50_000 },
    });
    expect({ ...rates.plans }).toEqual({ default: { fairnessWeight: 1 } });
    expect(budgets).toEqual({
      tenant: [],
      user: [{ ...USD, window: 'day', amount: 20_000_000_000n }],
      session: [],
      task: [{ ...USD, amount: 2_000_000_000n }],
      perRequest: [{ ...USD, amount: 2_000_000_000n }],
    });
  });
});

describe('an overlay of limits.yaml', () => {
  it('changes what it names and keeps the rest', () => {
    const { rates, budgets } = withLimits({
      rates: {
        providers: { openai: { rpm: 500, maxParallel: 'unlimited' }, own: { rpm: 1 }, meta: null },
        models: { 'openai/gpt-5': { tpm: 7 } },
        plans: { gold: { maxParallel: 3, fairnessWeight: 2.5 } },
        tenants: { acme: 'gold' },
      },
      budgets: {
        session: [{ unit: 'tokens', window: 'hour', amount: 1_000, hard: false, warnAt: 0 }],
        task: [],
      },
    });
    expect(rates.providers['openai']).toEqual({ rpm: 500, tpm: 60_000 });
    expect(rates.providers['own']).toEqual({ rpm: 1, tpm: 90_000 });
    expect(rates.providers['meta']).toBeUndefined();
    expect(rates.providers['google']).toEqual(load().limits.rates.providers['google']);
    expect({ ...rates.models }).toEqual({ 'openai/gpt-5': { tpm: 7 } });
    expect({ ...rates.plans }).toEqual({
      default: { fairnessWeight: 1 },
      gold: { maxParallel: 3, fairnessWeight: 2.5 },
    });
    expect({ ...rates.tenants }).toEqual({ acme: 'gold' });
    expect(budgets.session).toEqual([
      { unit: 'tokens', window: 'hour', amount: 1_000n, hard: false, warnAt: 0 },
    ]);
    expect(budgets.task).toEqual([]);
    expect(budgets.user).toEqual(load().limits.budgets.user);
  });

  it('gives rows what they leave out from the default row', () => {
    const { rates } = withLimits({
      rates: { providers: { default: { rpm: 'unlimited', maxParallel: 9 }, own: { tpm: 5 } } },
    });
    expect(rates.providers.default).toEqual({ tpm: 90_000, maxParallel: 9 });
    expect(rates.providers['own']).toEqual({ tpm: 5, maxParallel: 9 });
  });

  it.each([
    ['"5.00"', 5_000_000_000n],
    ['0.1', 100_000_000n],
    ['0', 0n],
    ['"0.000000001"', 1n],
    ['9000000', 9_000_000_000_000_000n],
  ])('reads an amount of %s USD', (amount, nano) => {
    const files = { 'limits.yaml': `budgets: {user: [{unit: usd, amount: ${amount}}]}` };
    expect(load({ files }).limits.budgets.user).toEqual([{ ...USD, amount: nano }]);
  });

  it('takes limits of one unit and window that differ in zone or hardness', () => {
    const limits = [
      { unit: 'usd', window: 'day', amount: 1, zone: 'Asia/Tokyo' },
      { unit: 'usd', window: 'day', amount: 1, zone: 'America/New_York' },
      { unit: 'usd', window: 'day', amount: 1 },
      { unit: 'usd', window: 'day', amount: 1, hard: false },
    ];
    const read = withLimits({ budgets: { tenant: limits } }).budgets.tenant;
    expect(read.map(({ zone, hard }) => [zone, hard])).toEqual([
      ['Asia/Tokyo', true],
      ['America/New_York', true],
      [undefined, true],
      [undefined, false],
    ]);
  });

  it('reads an amount of tokens as number or digits', () => {
    const limits = ['total', 'day'].map((window, index) => ({
      unit: 'tokens',
      window,
      amount: [7, '9000000000000000'][index],
    }));
    expect(withLimits({ budgets: { tenant: limits } }).budgets.tenant.map((limit) => limit.amount)).toEqual([
      7n,
      9_000_000_000_000_000n,
    ]);
  });
});

describe('RATE_ variables', () => {
  it('lie above the files, for providers and tiers', () => {
    const { rates } = withLimits(
      { rates: { providers: { openai: { rpm: 1 }, 'my-own.x': { rpm: 2 } } } },
      {
        RATE_OPENAI_RPM: '77',
        RATE_OPENAI_TPM: 'unlimited',
        RATE_MY_OWN_X_TPM: '5',
        RATE_SMALL_RPM: '3',
        RATE_DEFAULT_RPM: '44',
      },
    );
    expect(rates.providers['openai']).toEqual({ rpm: 77, maxParallel: 100 });
    expect(rates.providers['my-own.x']).toEqual({ rpm: 2, tpm: 5 });
    expect(rates.tiers.small).toEqual({ rpm: 3, tpm: 200_000 });
    expect(rates.providers.default).toEqual({ rpm: 44, tpm: 90_000 });
  });

  it('make a row for a provider of models.yaml that has none', () => {
    const files = { 'models.yaml': 'providers: {own: {protocol: openai-compatible, baseUrl: "http://h"}}' };
    const { rates } = load({ files, env: { RATE_OWN_RPM: '5' } }).limits;
    expect(rates.providers['own']).toEqual({ rpm: 5, tpm: 90_000 });
  });

  it.each(['RATE_NOBODY_RPM', 'RATE_OPENAI_RPS', 'RATE_OPENAI', 'RATE_openai_RPM', 'RATE_'])(
    'are refused by the name %s',
    (name) => {
      expect(faultsOf({ env: { [name]: '5' } })).toEqual([
        {
          key: 'rates',
          expected: 'RATE_<provider or tier>_RPM or _TPM',
          got: name,
          source: `environment ${name}`,
        },
      ]);
    },
  );

  it.each(['0', '-1', '12abc', '1.5', ' 5', 'none', '1e3', '1000000000001'])(
    'are refused with the value %j',
    (text) => {
      expect(faultsOf({ env: { RATE_LARGE_TPM: text } })).toEqual([
        {
          key: 'rates.tiers.large.tpm',
          expected: 'a whole number from 1 to 1000000000000, or unlimited',
          got: JSON.stringify(text),
          source: 'environment RATE_LARGE_TPM',
        },
      ]);
    },
  );

  it('are refused where they mean two rows', () => {
    const files = { 'limits.yaml': 'rates: {providers: {a-b: {rpm: 1}, a_b: {rpm: 1}, small: {rpm: 1}}}' };
    expect(
      faultsOf({ files, env: { RATE_A_B_RPM: '5', RATE_SMALL_TPM: '5' } }).map((fault) => fault.got),
    ).toEqual(['rates.providers.a-b and rates.providers.a_b', 'rates.providers.small and rates.tiers.small']);
  });
});

describe('the plan of a tenant', () => {
  it('is the one it was given, else the default one, whatever it is called', () => {
    const { rates } = withLimits({
      rates: {
        plans: { default: { fairnessWeight: 0.5 }, gold: { rpm: 7, fairnessWeight: 3 } },
        tenants: { acme: 'gold' },
      },
    });
    expect(planOfTenant(rates, 'acme')).toEqual({ rpm: 7, fairnessWeight: 3 });
    for (const tenant of ['other', 'constructor', '__proto__'])
      expect(planOfTenant(rates, tenant)).toEqual({ fairnessWeight: 0.5 });
  });
});

describe('notEnforced', () => {
  it('names what the shipped file holds too early', () => {
    expect(notEnforced(load())).toEqual(['budgets.perRequest[0]']);
  });

  it('names every row that is not enforced yet, and no row that is', () => {
    const rows = ['total', 'hour', 'day', 'week', 'month'].flatMap((window) =>
      [true, false].map((hard) => ({ unit: 'tokens', window, hard, amount: 1 })),
    );
    const limits = withLimits({
      rates: {
        models: { 'openai/gpt-5': { rpm: 1 } },
        tiers: { medium: { rpm: 5, outputTpm: 7 } },
        plans: { gold: { rpm: 5, fairnessWeight: 2 } },
      },
      budgets: {
        ...Object.fromEntries(['tenant', 'user', 'session', 'task'].map((scope) => [scope, rows])),
        perRequest: [
          { unit: 'usd', amount: 1 },
          { unit: 'tokens', amount: 1 },
        ],
      },
    });
    expect(notEnforced({ limits })).toEqual(['budgets.perRequest[0]', 'budgets.perRequest[1]']);
  });
});

describe('input and output tokens', () => {
  it('are limited apart where a row says so, and are taken over from the default row', () => {
    const { rates } = withLimits({
      rates: {
        providers: { default: { inputTpm: 1_000 }, anthropic: { outputTpm: 8_000 } },
        models: { 'openai/gpt-5': { inputTpm: 'unlimited', outputTpm: 9 } },
      },
    });
    expect(rates.providers['anthropic']).toMatchObject({ inputTpm: 1_000, outputTpm: 8_000 });
    expect(rates.models['openai/gpt-5']).toEqual({ outputTpm: 9 });
  });
});
