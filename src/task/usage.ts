// Token usage of one attempt as a vector of disjoint buckets, so that no token is priced twice. Pure vocabulary.

/**
 * What a provider measured for one attempt, in tokens. The buckets are disjoint, but for `reasoningTokens`, which is a part of
 * `outputTokens`. Zero means "measured as zero"; a usage that is not known is `undefined` as a whole, never zeros.
 */
export type Usage = {
  readonly inputTokens: number;
  readonly cacheReadTokens: number;
  readonly cacheWrite5mTokens: number;
  readonly cacheWrite1hTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
};

/** Usage as users see it: `inputTokens` and `outputTokens` are totals, the others are parts of them. */
export type UsageTotals = {
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly cacheWriteTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
};

export const NO_USAGE: Usage = {
  inputTokens: 0,
  cacheReadTokens: 0,
  cacheWrite5mTokens: 0,
  cacheWrite1hTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
};

export const NO_USAGE_TOTALS: UsageTotals = toUsageTotals(NO_USAGE);

/** All tokens that went in: fresh, read from a cache, and written to one. */
export function totalInputTokens(usage: Omit<Usage, 'outputTokens' | 'reasoningTokens'>): number {
  return usage.inputTokens + usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
}

/** What a limit in tokens counts: everything in and everything out. */
export function totalTokens(usage: Usage): number {
  return totalInputTokens(usage) + usage.outputTokens;
}

export function toUsageTotals(usage: Usage): UsageTotals {
  return {
    inputTokens: totalInputTokens(usage),
    cachedInputTokens: usage.cacheReadTokens,
    cacheWriteTokens: usage.cacheWrite5mTokens + usage.cacheWrite1hTokens,
    outputTokens: usage.outputTokens,
    reasoningTokens: usage.reasoningTokens,
  };
}

export function addUsageTotals(left: UsageTotals, right: UsageTotals): UsageTotals {
  return {
    inputTokens: left.inputTokens + right.inputTokens,
    cachedInputTokens: left.cachedInputTokens + right.cachedInputTokens,
    cacheWriteTokens: left.cacheWriteTokens + right.cacheWriteTokens,
    outputTokens: left.outputTokens + right.outputTokens,
    reasoningTokens: left.reasoningTokens + right.reasoningTokens,
  };
}
