// Rate control of one process by itself, on a clock of its own.

import { describe, expect, it } from 'vitest';
import { createLocalRates } from '../../src/stores/local-rates.ts';
import type { ProviderRate } from '../../src/stores/rates.ts';
import { cuttable } from '../support/holds.ts';
import { openTestStores, storesOn } from '../support/stores.ts';

function stage(limit: ProviderRate, callers: number | undefined) {
  const clock = { ms: 1_000 };
  const rates = createLocalRates(
    { leaseMs: 10_000, limitOf: () => limit, callers: () => callers },
    () => clock.ms,
  );
  let key = 0;
  const admit = (tokens = 0) => {
    key += 1;
    return rates.admit('openai', `call#${key}`, tokens);
  };
  return { clock, rates, admit };
}

describe('local rates', () => {
  it('take the share of one caller', () => {
    const { clock, admit } = stage({ rpm: 60 }, 4);
    expect(admit()).toEqual({ kind: 'admitted' });
    expect(admit()).toEqual({ kind: 'wait', dimension: 'rpm', ms: 4_000 });
    clock.ms += 4_000;
    expect(admit()).toEqual({ kind: 'admitted' });
  });

  it('let a minute of tokens through at once, and one that is larger alone', () => {
    const { clock, admit } = stage({ tpm: 6_000 }, 2);
    for (const tokens of [1_000, 2_000]) expect(admit(tokens)).toEqual({ kind: 'admitted' });
    expect(admit(500)).toEqual({ kind: 'wait', dimension: 'tpm', ms: 10_000 });
    clock.ms += 60_000;
    expect(admit(9_000)).toEqual({ kind: 'admitted' });
    expect(admit(1)).toMatchObject({ kind: 'wait', dimension: 'tpm' });
  });

  it('keep a distance where nobody knows how many callers there are, at most a minute', () => {
    const { clock, admit } = stage({ rpm: 30, tpm: 60_000 }, undefined);
    expect(admit(10_000)).toEqual({ kind: 'admitted' });
    expect(admit(10)).toEqual({ kind: 'wait', dimension: 'tpm', ms: 10_000 });
    clock.ms += 10_000;
    expect(admit(10_000_000)).toEqual({ kind: 'admitted' });
    expect(admit(10)).toEqual({ kind: 'wait', dimension: 'tpm', ms: 60_000 });
  });

  it('bound parallel requests, until they end or their lease does', () => {
    const { clock, rates, admit } = stage({ maxParallel: 5 }, 2);
    for (const _ of [1, 2]) expect(admit()).toEqual({ kind: 'admitted' });
    expect(admit()).toMatchObject({ kind: 'wait', dimension: 'maxParallel' });
    expect(rates.admit('openai', 'call#1', 0)).toEqual({ kind: 'admitted' });
    rates.giveBack('openai', 'call#1');
    expect(admit()).toEqual({ kind: 'admitted' });
    clock.ms += 9_000;
    rates.renew('openai', 'call#2');
    clock.ms += 2_000;
    expect(admit()).toEqual({ kind: 'admitted' });
    expect(admit()).toMatchObject({ kind: 'wait', dimension: 'maxParallel' });
  });

  it('ask nobody before a hint is over, nor shorten it', () => {
    const { clock, rates, admit } = stage({}, 1);
    rates.cool('openai', 5_000);
    rates.cool('openai', 100);
    expect(admit()).toEqual({ kind: 'wait', dimension: 'cooldown', ms: 5_000 });
    clock.ms += 5_000;
    expect(admit()).toEqual({ kind: 'admitted' });
  });

  it('step in while Redis is away, and step back', async () => {
    await using test = await openTestStores();
    const redis = cuttable(test.redis);
    const { rates } = storesOn({ postgres: test.postgres, redis }, { rateOf: () => ({ rpm: 1 }) });
    redis.isCut = true;
    expect(await rates.admit('openai', 'a#1', 0)).toEqual({ kind: 'admitted' });
    expect(await rates.admit('openai', 'a#2', 0)).toMatchObject({ kind: 'wait', dimension: 'rpm' });
    await rates.renew('openai', 'a#1');
    await rates.giveBack('openai', 'a#1', { tokens: 0, sent: true });
    await rates.cool('openai', 10);
    redis.isCut = false;
    expect(await rates.admit('openai', 'a#3', 0)).toEqual({ kind: 'admitted' });
    expect(await test.stores.rates.admit('openai', 'a#3', 0)).toEqual({ kind: 'admitted' });
  });
});
