// Rate control of one process by itself, on a clock of its own.

import { describe, expect, it } from 'vitest';
import { createLocalRates } from '../../src/stores/local-rates.ts';
import type { RateLimit, RateRequest, RateRules } from '../../src/stores/rate-rules.ts';
import { cuttable } from '../support/holds.ts';
import { openTestStores, storesOn } from '../support/stores.ts';

const NOTHING = () => ({});

function stage(rules: Partial<RateRules>, callers: number | undefined) {
  const clock = { ms: 1_000 };
  const all = { provider: NOTHING, model: NOTHING, tier: NOTHING, plan: NOTHING };
  const rates = createLocalRates(
    {
      leaseMs: 10_000,
      rules: { ...all, tierOf: () => 'small', limitsProviders: () => true, ...rules },
      callers: () => callers,
    },
    () => clock.ms,
  );
  let key = 0;
  const requestOf = (attemptKey: string, change: Partial<RateRequest> = {}): RateRequest => ({
    ...{ provider: 'openai', model: 'openai/gpt-5', tenantId: 'acme', priority: 'normal' },
    ...{ callKey: 'call', candidate: 0, attemptKey, tokens: { input: 0, output: 0 } },
    ...change,
  });
  const ask = (change: Partial<RateRequest> = {}) => {
    key += 1;
    return rates.admit(requestOf(`call#${key}`, change));
  };
  const admit = (input = 0) => ask({ tokens: { input, output: 0 } });
  return { clock, rates, admit, ask, requestOf };
}

const ofProvider = (limit: RateLimit) => ({ provider: () => limit });
const wait = (dimension: string, ms: number, bucket = 'provider') => ({
  ...{ kind: 'wait', dimension, ms, bucket },
  isBooked: false,
});

describe('local rates', () => {
  it('take the share of one caller', () => {
    const { clock, admit } = stage(ofProvider({ rpm: 60 }), 4);
    expect(admit()).toEqual({ kind: 'admitted' });
    expect(admit()).toEqual(wait('rpm', 4_000));
    clock.ms += 4_000;
    expect(admit()).toEqual({ kind: 'admitted' });
  });

  it('let a minute of tokens through at once, and one that is larger alone', () => {
    const { clock, admit } = stage(ofProvider({ tpm: 6_000 }), 2);
    for (const tokens of [1_000, 2_000]) expect(admit(tokens)).toEqual({ kind: 'admitted' });
    expect(admit(500)).toEqual(wait('tpm', 10_000));
    clock.ms += 60_000;
    expect(admit(9_000)).toEqual({ kind: 'admitted' });
    expect(admit(1)).toMatchObject({ kind: 'wait', dimension: 'tpm' });
  });

  it('keep a distance where nobody knows how many callers there are, at most a minute', () => {
    const { clock, admit } = stage(ofProvider({ rpm: 30, tpm: 60_000 }), undefined);
    expect(admit(10_000)).toEqual({ kind: 'admitted' });
    expect(admit(10)).toEqual(wait('tpm', 10_000));
    clock.ms += 10_000;
    expect(admit(10_000_000)).toEqual({ kind: 'admitted' });
    expect(admit(10)).toEqual(wait('tpm', 60_000));
  });

  it('bound parallel requests, until they end or their lease does', () => {
    const { clock, rates, admit, requestOf } = stage(ofProvider({ maxParallel: 5 }), 2);
    for (const _ of [1, 2]) expect(admit()).toEqual({ kind: 'admitted' });
    expect(admit()).toMatchObject({ kind: 'wait', dimension: 'maxParallel' });
    expect(rates.admit(requestOf('call#1'))).toEqual({ kind: 'admitted' });
    rates.giveBack(requestOf('call#1'));
    expect(admit()).toEqual({ kind: 'admitted' });
    clock.ms += 9_000;
    rates.renew(requestOf('call#2'));
    clock.ms += 2_000;
    expect(admit()).toEqual({ kind: 'admitted' });
    expect(admit()).toMatchObject({ kind: 'wait', dimension: 'maxParallel' });
  });

  it('ask nobody before a hint is over, nor shorten it', () => {
    const { clock, rates, admit } = stage(ofProvider({}), 1);
    rates.cool('openai', 5_000);
    rates.cool('openai', 100);
    expect(admit()).toEqual(wait('cooldown', 5_000));
    clock.ms += 5_000;
    expect(admit()).toEqual({ kind: 'admitted' });
    rates.cool('openai', 1_000, 'openai/gpt-5');
    expect(admit()).toEqual(wait('cooldown', 1_000, 'model'));
  });

  it('hold to every bucket of a call, each with its share, and take nothing of one that another is in the way of', () => {
    const { clock, ask } = stage(
      { ...ofProvider({ rpm: 600 }), tier: () => ({ rpm: 60 }), plan: () => ({ rpm: 30 }) },
      2,
    );
    expect(ask()).toEqual({ kind: 'admitted' });
    expect(ask()).toEqual(wait('rpm', 4_000, 'plan'));
    expect(ask({ tenantId: 'other' })).toEqual(wait('rpm', 200));
    clock.ms += 200;
    expect(ask({ tenantId: 'other' })).toEqual({ kind: 'admitted' });
    clock.ms += 3_800;
    expect(ask()).toEqual({ kind: 'admitted' });
  });

  it('count input and output apart where a provider does', () => {
    const { ask } = stage({ model: () => ({ inputTpm: 6_000, outputTpm: 600 }) }, 1);
    expect(ask({ tokens: { input: 100, output: 600 } })).toEqual({ kind: 'admitted' });
    expect(ask({ tokens: { input: 100, output: 10 } })).toEqual(wait('outputTpm', 1_000, 'model'));
    expect(ask({ tokens: { input: 6_000, output: 0 } })).toEqual(wait('inputTpm', 1_000, 'model'));
  });

  it('leave providers alone where these are not limited, and tenants not', () => {
    const { ask } = stage(
      { ...ofProvider({ rpm: 1 }), limitsProviders: () => false, tier: () => ({ rpm: 60 }) },
      1,
    );
    expect(ask()).toEqual({ kind: 'admitted' });
    expect(ask()).toEqual(wait('rpm', 1_000, 'tier'));
  });

  it('step in while Redis is away, and step back', async () => {
    await using test = await openTestStores();
    const redis = cuttable(test.redis);
    const rules = { provider: () => ({ rpm: 1 }) };
    const { rates } = storesOn({ postgres: test.postgres, redis }, { rates: { rules } });
    const { requestOf } = stage({}, 1);
    redis.isCut = true;
    expect(await rates.admit(requestOf('a#1'))).toEqual({ kind: 'admitted' });
    expect(await rates.admit(requestOf('a#2'))).toMatchObject({ kind: 'wait', dimension: 'rpm' });
    await rates.renew(requestOf('a#1'));
    await rates.giveBack(requestOf('a#1'), { input: 0, output: 0, isSent: true });
    await rates.unbook(requestOf('a#1'));
    await rates.cool('openai', 10);
    redis.isCut = false;
    expect(await rates.admit(requestOf('a#3'))).toEqual({ kind: 'admitted' });
    expect(await test.stores.rates.admit(requestOf('a#3'))).toEqual({ kind: 'admitted' });
  });
});
