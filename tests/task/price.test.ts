import { describe, expect, it } from 'vitest';
import { costNanoUsd, type PricedUsage, type PriceEntry, priceAt } from '../../src/task/price.ts';

/** 0.25 in, 0.025 cached, 0.30 and 0.50 cache writes, 2.00 out; 0.50, 0.05 and 3.00 above 200,000, 1 and 4 above 500,000. */
const ENTRY: PriceEntry = {
  validFromMs: 0,
  input: 250_000_000n,
  cachedInput: 25_000_000n,
  cacheWrite5m: 300_000_000n,
  cacheWrite1h: 500_000_000n,
  output: 2_000_000_000n,
  above: [
    { inputTokens: 500_000, input: 1_000_000_000n, output: 4_000_000_000n },
    { inputTokens: 200_000, input: 500_000_000n, cachedInput: 50_000_000n, output: 3_000_000_000n },
  ],
};

const NOTHING: PricedUsage = {
  inputTokens: 0,
  cacheReadTokens: 0,
  cacheWrite5mTokens: 0,
  cacheWrite1hTokens: 0,
  outputTokens: 0,
};

describe('costNanoUsd', () => {
  it.each<[string, Partial<PricedUsage>, bigint]>([
    ['nothing', {}, 0n],
    ['one input token', { inputTokens: 1 }, 250n],
    ['one cached token', { cacheReadTokens: 1 }, 25n],
    ['one token written to the five-minute cache', { cacheWrite5mTokens: 1 }, 300n],
    ['one token written to the one-hour cache', { cacheWrite1hTokens: 1 }, 500n],
    ['one output token', { outputTokens: 1 }, 2_000n],
    [
      'every bucket once',
      { inputTokens: 1, cacheReadTokens: 1, cacheWrite5mTokens: 1, cacheWrite1hTokens: 1, outputTokens: 1 },
      3_075n,
    ],
    ['200,000 input tokens', { inputTokens: 200_000, outputTokens: 1_000 }, 52_000_000n],
    [
      '200,001 input tokens, all at the price above',
      { inputTokens: 200_001, outputTokens: 1_000 },
      103_000_500n,
    ],
    ['200,001 input tokens in two buckets', { inputTokens: 1, cacheReadTokens: 200_000 }, 10_000_500n],
    [
      '200,001 input tokens in four buckets, writes at the input price of the row',
      { inputTokens: 199_998, cacheReadTokens: 1, cacheWrite5mTokens: 1, cacheWrite1hTokens: 1 },
      100_000_050n,
    ],
    ['output does not count towards the rows above', { inputTokens: 1, outputTokens: 300_000 }, 600_000_250n],
    ['500,000 input tokens', { inputTokens: 500_000 }, 250_000_000n],
    ['500,001 input tokens, the last row passed', { inputTokens: 500_001, outputTokens: 1 }, 500_005_000n],
    [
      'cached tokens at the input price of a row that names no other',
      { cacheReadTokens: 500_001 },
      500_001_000n,
    ],
    [
      'more than a double can count',
      { inputTokens: 9_000_000_000_000, outputTokens: 9_000_000_000_001 },
      9_000_000_000_000n * 1_000n + 9_000_000_000_001n * 4_000n,
    ],
  ])('prices %s', (_title, usage, cost) => {
    expect(costNanoUsd(ENTRY, { ...NOTHING, ...usage })).toBe(cost);
  });

  it('prices a cached prefix once, at its own price, and what follows it as fresh', () => {
    const cost = (usage: Partial<PricedUsage>) => costNanoUsd(ENTRY, { ...NOTHING, ...usage });
    const [prefix, rest] = [{ cacheReadTokens: 150_000 }, { inputTokens: 1_000 }];
    expect(cost({ ...prefix, ...rest })).toBe(cost(prefix) + cost(rest));
    expect(cost({ ...prefix, ...rest })).toBe(150_000n * 25n + 1_000n * 250n);
  });

  it('keeps a usage of zero at zero, however dear the model', () => {
    const dear = { ...ENTRY, input: 10n ** 15n, output: 10n ** 15n };
    expect(costNanoUsd(dear, NOTHING)).toBe(0n);
  });

  it('rounds up once per call, not once per bucket', () => {
    const entry: PriceEntry = {
      ...ENTRY,
      input: 400_000n,
      cachedInput: 300_000n,
      output: 300_000n,
      above: [],
    };
    expect(costNanoUsd(entry, { ...NOTHING, inputTokens: 1 })).toBe(1n);
    expect(costNanoUsd(entry, { ...NOTHING, inputTokens: 1, cacheReadTokens: 1, outputTokens: 1 })).toBe(1n);
    expect(costNanoUsd(entry, { ...NOTHING, inputTokens: 1, cacheReadTokens: 1, outputTokens: 2 })).toBe(2n);
  });

  it('takes a price of zero as a price', () => {
    const free: PriceEntry = { ...ENTRY, input: 0n, cachedInput: 0n, output: 0n, above: [] };
    expect(costNanoUsd(free, { ...NOTHING, inputTokens: 5_000, outputTokens: 5_000 })).toBe(0n);
  });

  it.each([-1, 0.5, Number.NaN, 2 ** 53])('refuses %s tokens', (tokens) => {
    expect(() => costNanoUsd(ENTRY, { ...NOTHING, outputTokens: tokens })).toThrow(RangeError);
  });
});

describe('priceAt', () => {
  const january: PriceEntry = { ...ENTRY, validFromMs: Date.UTC(2026, 0, 1) };
  const june: PriceEntry = { ...ENTRY, validFromMs: Date.UTC(2026, 5, 1) };

  it.each<[string, number, PriceEntry | undefined]>([
    ['before the first entry', january.validFromMs - 1, undefined],
    ['from the millisecond on in which an entry begins', january.validFromMs, january],
    ['until the next begins', june.validFromMs - 1, january],
    ['afterwards', june.validFromMs, june],
  ])('finds the entry that holds %s', (_title, atMs, entry) => {
    expect(priceAt([january, june], atMs)).toBe(entry);
    expect(priceAt([june, january], atMs)).toBe(entry);
  });

  it('knows no price without entries', () => {
    expect(priceAt([], Date.now())).toBeUndefined();
  });
});
