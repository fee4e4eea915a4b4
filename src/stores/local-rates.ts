// Rate control of one process by itself, for while Redis is away: a provider's limits divided by the living callers. Coarse on purpose:
// it keeps a fleet near its limits without anybody to ask.

import type { ProviderRate, RateOutcome } from './rates.ts';

/** Nobody knows how many callers there are: requests of this process keep a distance instead, at most this long. */
const LONGEST_SPACING_MS = 60_000;
/** Nobody knows when a running call ends. */
const PARALLEL_WAIT_MS = 500;

type Bucket = {
  /** When the bucket is empty again, in milliseconds of the process's own clock. */
  rpmAt: number;
  tpmAt: number;
  blockedUntil: number;
  readonly permits: Map<string, number>;
};

export type LocalRates = ReturnType<typeof createLocalRates>;

/** `callers` is undefined while their number is not known; `now` is a clock in milliseconds. */
export function createLocalRates(
  options: {
    readonly leaseMs: number;
    readonly limitOf: (provider: string) => ProviderRate;
    readonly callers: () => number | undefined;
  },
  now: () => number = () => performance.now(),
) {
  const buckets = new Map<string, Bucket>();
  const bucketOf = (provider: string): Bucket => {
    const bucket = buckets.get(provider) ?? { rpmAt: 0, tpmAt: 0, blockedUntil: 0, permits: new Map() };
    buckets.set(provider, bucket);
    return bucket;
  };
  return {
    /** Takes a permit for one request of `tokens`, or tells the wait. Idempotent in the attempt key. */
    admit(provider: string, attemptKey: string, tokens: number): RateOutcome {
      const bucket = bucketOf(provider);
      const at = now();
      for (const [key, until] of bucket.permits) if (until <= at) bucket.permits.delete(key);
      if (bucket.permits.has(attemptKey)) return { kind: 'admitted' };
      const callers = options.callers();
      const { rpm = 0, tpm = 0, maxParallel = 0 } = options.limitOf(provider);
      const costMs = { rpm: spacing(rpm, 1, callers), tpm: spacing(tpm, tokens, callers) };
      // A minute of tokens, as in Redis; a distance knows no burst.
      const burstMs = callers === undefined ? costMs.tpm : Math.max(60_000, costMs.tpm);
      const waits = [
        { dimension: 'cooldown', ms: bucket.blockedUntil - at },
        { dimension: 'rpm', ms: costMs.rpm === 0 ? 0 : bucket.rpmAt - at },
        {
          dimension: 'tpm',
          ms: costMs.tpm === 0 ? 0 : Math.max(bucket.tpmAt, at) + costMs.tpm - burstMs - at,
        },
      ] as const;
      const longest = waits.reduce((left, right) => (right.ms > left.ms ? right : left));
      if (longest.ms > 0) return { kind: 'wait', dimension: longest.dimension, ms: Math.ceil(longest.ms) };
      if (maxParallel > 0 && bucket.permits.size >= Math.max(1, Math.floor(maxParallel / (callers ?? 1))))
        return { kind: 'wait', dimension: 'maxParallel', ms: PARALLEL_WAIT_MS };
      bucket.rpmAt = Math.max(bucket.rpmAt, at) + costMs.rpm;
      bucket.tpmAt = Math.max(bucket.tpmAt, at) + costMs.tpm;
      bucket.permits.set(attemptKey, at + options.leaseMs);
      return { kind: 'admitted' };
    },

    giveBack(provider: string, attemptKey: string): void {
      buckets.get(provider)?.permits.delete(attemptKey);
    },

    renew(provider: string, attemptKey: string): void {
      const permits = buckets.get(provider)?.permits;
      if (permits?.has(attemptKey)) permits.set(attemptKey, now() + options.leaseMs);
    },

    cool(provider: string, ms: number): void {
      const bucket = bucketOf(provider);
      bucket.blockedUntil = Math.max(bucket.blockedUntil, now() + ms);
    },
  };
}

/** How long one request keeps a limit busy, in milliseconds; 0 where nothing binds. */
function spacing(perMinute: number, cost: number, callers: number | undefined): number {
  if (perMinute === 0) return 0;
  if (callers === undefined) return Math.min(LONGEST_SPACING_MS, (60_000 * cost) / perMinute);
  return (60_000 * cost * callers) / perMinute;
}
