// Rate control of one process by itself, for while Redis is away: every limit divided by the living callers. Coarse on purpose: it keeps
// a fleet near its limits without anybody to ask, and it books nothing.

import { RATE_DIMENSIONS, type RateDimension } from '../task/rate-reading.ts';
import type {
  PermitRef,
  RateBound,
  RateBucket,
  RateLimit,
  RateOutcome,
  RateRequest,
  RateRules,
} from './rate-rules.ts';

/** Nobody knows how many callers there are: requests of this process keep a distance instead, at most this long. */
const LONGEST_SPACING_MS = 60_000;
const MINUTE_MS = 60_000;
/** Nobody knows when a running call ends. */
const PARALLEL_WAIT_MS = 500;
/** With more of them those that are idle are forgotten: tenants come and go. */
const MAX_BUCKETS = 1_000;

type Bucket = {
  /** When each line is empty again, in milliseconds of the process's own clock. */
  readonly emptyAt: Record<RateDimension, number>;
  blockedUntil: number;
  readonly permits: Map<string, number>;
};

type Bound = { readonly kind: RateBucket; readonly bucket: Bucket; readonly limit: RateLimit };
type Wait = { readonly ms: number; readonly dimension: RateBound; readonly bucket: RateBucket };
type Line = { readonly bound: Bound; readonly name: RateDimension; readonly costMs: number };

export type LocalRates = ReturnType<typeof createLocalRates>;

/** `callers` is undefined while their number is not known; `now` is a clock in milliseconds. */
export function createLocalRates(
  options: {
    readonly leaseMs: number;
    readonly rules: RateRules;
    readonly callers: () => number | undefined;
  },
  now: () => number = () => performance.now(),
) {
  const { rules, leaseMs } = options;
  const buckets = new Map<string, Bucket>();
  const bucketOf = (name: string): Bucket => {
    const bucket = buckets.get(name) ?? newBucket();
    if (buckets.size > MAX_BUCKETS) forgetIdle(buckets, now());
    buckets.set(name, bucket);
    return bucket;
  };
  /** Those that this process had to keep itself: mostly none. */
  const permitsOf = (permit: PermitRef): readonly Map<string, number>[] =>
    buckets.size === 0 ? [] : namesOf(rules, permit).flatMap(({ name }) => buckets.get(name)?.permits ?? []);
  return {
    /** Takes a permit for one request, or tells the wait. Idempotent in the attempt key. */
    admit(request: RateRequest): RateOutcome {
      const at = now();
      const callers = options.callers();
      const all = namesOf(rules, request).map(
        ({ kind, name, limit }): Bound => ({ kind, bucket: bucketOf(name), limit }),
      );
      for (const { bucket } of all)
        for (const [key, until] of bucket.permits) if (until <= at) bucket.permits.delete(key);
      if (all.some(({ bucket }) => bucket.permits.has(request.attemptKey))) return { kind: 'admitted' };
      const lines = all.flatMap((bound) => linesOf(bound, request.tokens, callers));
      const wait = longestWait(all, lines, { at, callers });
      if (wait !== undefined) return { kind: 'wait', ...wait, isBooked: false };
      for (const { bound, name, costMs } of lines)
        bound.bucket.emptyAt[name] = Math.max(bound.bucket.emptyAt[name], at) + costMs;
      for (const { bucket } of all) bucket.permits.set(request.attemptKey, at + leaseMs);
      return { kind: 'admitted' };
    },

    giveBack(permit: PermitRef): void {
      for (const permits of permitsOf(permit)) permits.delete(permit.attemptKey);
    },

    renew(permit: PermitRef): void {
      for (const permits of permitsOf(permit))
        if (permits.has(permit.attemptKey)) permits.set(permit.attemptKey, now() + leaseMs);
    },

    cool(provider: string, ms: number, model?: string): void {
      const bucket = bucketOf(model === undefined ? providerName(provider) : modelName(model));
      bucket.blockedUntil = Math.max(bucket.blockedUntil, now() + ms);
    },
  };
}

function newBucket(): Bucket {
  return { emptyAt: { rpm: 0, tpm: 0, inputTpm: 0, outputTpm: 0 }, blockedUntil: 0, permits: new Map() };
}

function forgetIdle(buckets: Map<string, Bucket>, at: number): void {
  for (const [name, { emptyAt, blockedUntil, permits }] of buckets)
    if (permits.size === 0 && Math.max(blockedUntil, ...Object.values(emptyAt)) <= at) buckets.delete(name);
}

const providerName = (provider: string) => `provider ${provider}`;
const modelName = (model: string) => `model ${model}`;

/** Buckets that bind a call by their names in this process; those that limit nothing are left out, but for the provider's own. */
function namesOf(rules: RateRules, { provider, model, tenantId }: PermitRef) {
  const tier = rules.tierOf(model);
  const providers = rules.limitsProviders()
    ? [
        { kind: 'provider', name: providerName(provider), limit: rules.provider(provider) } as const,
        { kind: 'model', name: modelName(model), limit: rules.model(model) } as const,
      ]
    : [];
  const tiers =
    tier === undefined
      ? []
      : [{ kind: 'tier', name: `tier ${tier} ${tenantId}`, limit: rules.tier(tier) } as const];
  const plans = [{ kind: 'plan', name: `plan ${tenantId}`, limit: rules.plan(tenantId) } as const];
  const ofTenant = [...plans, ...tiers].filter(({ limit }) => Object.keys(limit).length > 0);
  return [...providers, ...ofTenant];
}

function linesOf(
  bound: Bound,
  { input, output }: RateRequest['tokens'],
  callers: number | undefined,
): readonly Line[] {
  const costs = { rpm: 1, tpm: input + output, inputTpm: input, outputTpm: output } as const;
  return RATE_DIMENSIONS.flatMap((name) => {
    const perMinute = bound.limit[name];
    return perMinute === undefined ? [] : [{ bound, name, costMs: spacing(perMinute, costs[name], callers) }];
  });
}

function longestWait(
  all: readonly Bound[],
  lines: readonly Line[],
  { at, callers }: { readonly at: number; readonly callers: number | undefined },
): Wait | undefined {
  const waits: Wait[] = [
    ...all.map(({ kind, bucket }) => ({
      bucket: kind,
      dimension: 'cooldown' as const,
      ms: bucket.blockedUntil - at,
    })),
    ...lines.map(({ bound, name, costMs }) => ({
      bucket: bound.kind,
      dimension: name,
      // A minute of tokens, as in Redis; requests, and a distance, know no burst.
      ms:
        name === 'rpm'
          ? bound.bucket.emptyAt.rpm - at
          : Math.max(bound.bucket.emptyAt[name], at) +
            costMs -
            at -
            (callers === undefined ? costMs : Math.max(MINUTE_MS, costMs)),
    })),
  ];
  const [longest] = waits.sort((left, right) => right.ms - left.ms);
  if (longest !== undefined && longest.ms > 0) return { ...longest, ms: Math.ceil(longest.ms) };
  const full = all.find(({ bucket, limit: { maxParallel } }) => {
    if (maxParallel === undefined) return false;
    return bucket.permits.size >= Math.max(1, Math.floor(maxParallel / (callers ?? 1)));
  });
  return full && { bucket: full.kind, dimension: 'maxParallel', ms: PARALLEL_WAIT_MS };
}

/** How long one request keeps a limit busy, in milliseconds. */
function spacing(perMinute: number, cost: number, callers: number | undefined): number {
  if (callers === undefined) return Math.min(LONGEST_SPACING_MS, (MINUTE_MS * cost) / perMinute);
  return (MINUTE_MS * cost * callers) / perMinute;
}
