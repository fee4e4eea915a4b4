// What rate control knows of one bucket at a moment. Words only; the API, the command line and metrics tell it in their own forms.

import type { RateDimension } from './rate-reading.ts';

export const RATE_BUCKETS = ['provider', 'model', 'tier', 'plan'] as const;
export type RateBucketKind = (typeof RATE_BUCKETS)[number];

export type RateLimitReport = {
  /** Per minute, or at a time. */
  readonly dimension: RateDimension | 'maxParallel';
  readonly configured: number | undefined;
  /** As it stood when it was learnt; it recovers from there. `stated` is what the provider itself says. */
  readonly learnt:
    | { readonly value: number; readonly stated: number | undefined; readonly at: Date }
    | undefined;
  /** What holds now; undefined when nothing binds. */
  readonly effective: number | undefined;
  /** What could be taken at this moment. */
  readonly remaining: number | undefined;
  /** What the provider said remained with it. */
  readonly heard: { readonly remaining: number; readonly at: Date } | undefined;
};

export type RateBucketReport = {
  readonly bucket: RateBucketKind;
  /** A provider, `provider/model`, a tier; of a plan the tenant whose plan it is. */
  readonly name: string;
  /** Whose it is, of a tier or a plan. */
  readonly tenantId: string | undefined;
  /** Nobody asks before. */
  readonly blockedUntil: Date | undefined;
  readonly limits: readonly RateLimitReport[];
};
