// Words of rate control: limits, who asks, what is answered. Where limits come from is up to who composes the process; nothing here keeps
// one, so that they may change under way.

import type { Priority, Tier } from '../task/input.ts';
import type { RateDimension } from '../task/rate-reading.ts';

/** Per minute, and at a time; what is absent does not bind. */
export type RateLimit = {
  readonly rpm?: number;
  readonly tpm?: number;
  readonly inputTpm?: number;
  readonly outputTpm?: number;
  readonly maxParallel?: number;
};

/** What a call waits for. */
export type RateBound = RateDimension | 'maxParallel' | 'cooldown';
export type RateBucket = 'provider' | 'model' | 'tier' | 'plan';

/** What binds whom, asked anew for each request. */
export type RateRules = {
  readonly provider: (provider: string) => RateLimit;
  /** By `provider/model`. */
  readonly model: (model: string) => RateLimit;
  readonly tier: (tier: Tier) => RateLimit;
  readonly plan: (tenantId: string) => RateLimit;
  /** The size class of a model; undefined: a model that is not configured. */
  readonly tierOf: (model: string) => Tier | undefined;
  /** False: providers and models are not limited at all. Tiers and plans are. */
  readonly limitsProviders: () => boolean;
};

/** How priorities share a bucket, and how large it is. Milliseconds. */
export type RateClasses = {
  /** The longest wait that is booked. */
  readonly horizonMs: Readonly<Record<Priority, number>>;
  /** Share of the burst that is kept for critical and high. */
  readonly reservedShare: number;
  /** Share of the line that is open to those who have waited for longer than their horizon. */
  readonly agedShare: number;
  readonly rpmBurstMs: number;
  readonly tpmBurstMs: number;
  /** A wait that a probe does not book, since it is spent where it comes up. */
  readonly leastBookedMs: number;
};

export const DEFAULT_RATE_CLASSES: RateClasses = {
  horizonMs: { critical: 120_000, high: 60_000, normal: 30_000, low: 10_000 },
  reservedShare: 0.2,
  agedShare: 0.1,
  rpmBurstMs: 5_000,
  tpmBurstMs: 60_000,
  leastBookedMs: 250,
};

/** Whose permit it is: enough to find it again, from any process. */
export type PermitRef = {
  readonly provider: string;
  /** `provider/model` */
  readonly model: string;
  readonly tenantId: string;
  readonly attemptKey: string;
};

/** Whose booking it is: a call's at one of its candidates. */
export type BookingRef = Pick<PermitRef, 'provider' | 'model'> & {
  readonly callKey: string;
  readonly candidate: number;
};

export type RateRequest = PermitRef &
  BookingRef & {
    readonly priority: Priority;
    /** Since when the call waits, by a server's clock; in milliseconds since 1970. Left out: it never grows old. */
    readonly queuedAtMs?: number | undefined;
    /** Input as counted, and the most that may be written: what a model usually writes is booked. */
    readonly tokens: { readonly input: number; readonly output: number };
    /** The call was told that its place is booked. Where that turns out wrong it is admitted like any other. */
    readonly isBooked?: boolean | undefined;
  };

export type RateWait = {
  readonly kind: 'wait';
  readonly ms: number;
  readonly dimension: RateBound;
  readonly bucket: RateBucket;
  /** Whether a place is kept for the call when the wait is over. */
  readonly isBooked: boolean;
};

export type RateOutcome = { readonly kind: 'admitted' } | RateWait;

/** What an attempt really used. `isSent: false` gives the whole request back. */
export type RateUse = { readonly input: number; readonly output: number; readonly isSent: boolean };

export const NOT_SENT: RateUse = { input: 0, output: 0, isSent: false };
