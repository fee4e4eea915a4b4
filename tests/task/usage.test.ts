import { describe, expect, it } from 'vitest';
import {
  addUsageTotals,
  NO_USAGE,
  NO_USAGE_TOTALS,
  totalInputTokens,
  totalTokens,
  toUsageTotals,
} from '../../src/task/usage.ts';

/** Every bucket a different power, so that a bucket that is missing or counted twice shows. */
const USAGE = {
  inputTokens: 1,
  cacheReadTokens: 10,
  cacheWrite5mTokens: 100,
  cacheWrite1hTokens: 1_000,
  outputTokens: 50_000,
  reasoningTokens: 20_000,
};

describe('usage', () => {
  it('counts every input bucket once, and reasoning as a part of the output', () => {
    expect(totalInputTokens(USAGE)).toBe(1_111);
    expect(totalTokens(USAGE)).toBe(51_111);
  });

  it('shows totals with their parts', () => {
    expect(toUsageTotals(USAGE)).toEqual({
      inputTokens: 1_111,
      cachedInputTokens: 10,
      cacheWriteTokens: 1_100,
      outputTokens: 50_000,
      reasoningTokens: 20_000,
    });
    expect(toUsageTotals(NO_USAGE)).toEqual(NO_USAGE_TOTALS);
  });

  it('adds field by field and leaves its arguments alone', () => {
    const totals = Object.freeze(toUsageTotals(USAGE));
    expect(addUsageTotals(totals, NO_USAGE_TOTALS)).toEqual(totals);
    expect(addUsageTotals(totals, totals)).toEqual({
      inputTokens: 2_222,
      cachedInputTokens: 20,
      cacheWriteTokens: 2_200,
      outputTokens: 100_000,
      reasoningTokens: 40_000,
    });
  });
});
