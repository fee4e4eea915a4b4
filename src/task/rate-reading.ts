// What a provider may limit in a minute, and what it says of such a limit beside an answer. Words only.

export const RATE_DIMENSIONS = ['rpm', 'tpm', 'inputTpm', 'outputTpm'] as const;

/** Requests; tokens in and out; or each of them apart, where a provider counts so. Per minute. */
export type RateDimension = (typeof RATE_DIMENSIONS)[number];

/** One limit of a provider, as it stood when it answered. */
export type RateReading = {
  /** Whose it is: a model's, or that of the whole provider. */
  readonly scope: 'model' | 'provider';
  readonly dimension: RateDimension;
  /** Per minute. Absent where the statement is about another period. */
  readonly limit?: number;
  readonly remaining?: number;
  /** There is nothing for so many milliseconds; only when nothing remains. */
  readonly emptyMs?: number;
};
