// Rate control: a tenant's plan and tier, then the provider and the model, each with its own limits and shared by all processes. The
// tenant's slot of Redis is asked first and never books; what it gave is given back when the provider's slot says wait. While Redis is
// away each process keeps its own share of the limits (local-rates.ts).

import { rateKeys, tenantRateKeys } from './keys.ts';
import { createLocalRates } from './local-rates.ts';
import { createRateBuckets, type RateBuckets, type Slot, type SlotAnswer } from './rate-buckets.ts';
import {
  type BookingRef,
  DEFAULT_RATE_CLASSES,
  NOT_SENT,
  type PermitRef,
  type RateBucket,
  type RateClasses,
  type RateLimit,
  type RateOutcome,
  type RateRequest,
  type RateRules,
  type RateUse,
  type RateWait,
} from './rate-rules.ts';
import { isRedisOutage, type Redis } from './redis.ts';

/** Before a model's usual output is known. */
const FIRST_EXPECTED_OUTPUT = 1_024;

const NOTHING: RateLimit = {};

export type RateOptions = {
  readonly leaseMs: number;
  /** Left out, or a part of it: nothing binds there. */
  readonly rules?: Partial<RateRules>;
  readonly classes?: RateClasses;
  /** Processes that share the limits, as far as known. */
  readonly callers?: () => number | undefined;
  /** Places that were booked and that nobody used. */
  readonly onBookingsLost?: (provider: string, count: number) => void;
};

export type Rates = ReturnType<typeof createRates>;

export function createRates(redis: Redis, options: RateOptions) {
  const rules = toRules(options.rules);
  const { leaseMs, classes = DEFAULT_RATE_CLASSES } = options;
  const local = createLocalRates({ leaseMs, rules, callers: options.callers ?? (() => undefined) });
  const usualOutputs = new Map<string, number>();
  const own: Own = {
    buckets: createRateBuckets(redis, { leaseMs, classes }),
    rules,
    prefix: redis.prefix,
    onBookingsLost: options.onBookingsLost ?? (() => undefined),
  };
  /** What a model usually writes is booked, not all that it may write. */
  const expected = <Request extends RateRequest>(request: Request): Request => {
    const usual = usualOutputs.get(request.model) ?? FIRST_EXPECTED_OUTPUT;
    const { input, output } = request.tokens;
    return { ...request, tokens: { input, output: Math.min(output, usual) } };
  };
  return {
    /**
     * Takes a permit for one request, books a place for it, or tells the exact wait. Idempotent in the attempt key, and for a booking in
     * call and candidate.
     */
    async admit(request: RateRequest): Promise<RateOutcome> {
      const asked = expected(request);
      try {
        return await admit(own, asked);
      } catch (error) {
        if (!isRedisOutage(error)) throw error;
        return local.admit(asked);
      }
    },

    /** How long a call would have to wait, and books its place where that is long; takes no permit. Undefined: not worth a wait. */
    async delay(request: Omit<RateRequest, 'attemptKey'>): Promise<RateWait | undefined> {
      try {
        const wait = await probe(own, expected({ ...request, attemptKey: '' }));
        return wait !== undefined && wait.ms > classes.leastBookedMs ? wait : undefined;
      } catch (error) {
        if (!isRedisOutage(error)) throw error;
        return undefined;
      }
    },

    /** Ends a permit, once. */
    async giveBack(permit: PermitRef, used: RateUse): Promise<void> {
      local.giveBack(permit);
      const tenant = tenantSlot(own, permit);
      await bestEffort(async () => {
        const [usual] = await Promise.all([
          rules.limitsProviders()
            ? own.buckets.giveBack(providerSlot(own, permit), permit.attemptKey, {
                ...used,
                teaches: used.isSent && used.output > 0 ? permit.model : '',
              })
            : undefined,
          tenant && own.buckets.giveBack(tenant, permit.attemptKey, { ...used, teaches: '' }),
        ]);
        if (usual !== undefined) usualOutputs.set(permit.model, usual);
      });
    },

    /** Gives up a place that a call will not come for: refused, cancelled, out of time. */
    async unbook(booking: BookingRef): Promise<void> {
      const { provider, model } = booking;
      await bestEffort(async () => {
        const isLost = await own.buckets.unbook(rateKeys(own.prefix, provider, model), toBooking(booking));
        if (isLost) own.onBookingsLost(provider, 1);
      });
    },

    /** Keeps the permit of a running request. */
    async renew(permit: PermitRef): Promise<void> {
      local.renew(permit);
      const tenant = tenantSlot(own, permit);
      await bestEffort(() =>
        Promise.all([
          own.buckets.renew(rateKeys(own.prefix, permit.provider, permit.model), permit.attemptKey),
          tenant && own.buckets.renew(tenant.keys, permit.attemptKey),
        ]),
      );
    },

    /** A provider said "not before": nobody asks it until then, or, with a model, nobody asks it for that. */
    async cool(provider: string, ms: number, model?: string): Promise<void> {
      local.cool(provider, ms, model);
      const { outer, inner } = rateKeys(own.prefix, provider, model);
      await bestEffort(() => own.buckets.cool(model === undefined ? outer : inner, ms));
    },
  };
}

type Own = {
  readonly buckets: RateBuckets;
  readonly rules: RateRules;
  readonly prefix: string;
  readonly onBookingsLost: (provider: string, count: number) => void;
};

async function admit(own: Own, request: RateRequest): Promise<RateOutcome> {
  const tenant = tenantSlot(own, request);
  if (tenant !== undefined) {
    const answer = await own.buckets.admit(tenant, toSlotRequest(request, 'tenant'));
    if (answer.ms > 0) return toWait(answer, ['plan', 'tier']);
  }
  if (!own.rules.limitsProviders()) return { kind: 'admitted' };
  const answer = await askProvider(own, request);
  if (answer.ms <= 0) return { kind: 'admitted' };
  // The wait is told all the same: what could not be given back now ends with its lease.
  if (tenant !== undefined)
    await bestEffort(() => own.buckets.giveBack(tenant, request.attemptKey, { ...NOT_SENT, teaches: '' }));
  return toWait(answer, ['provider', 'model']);
}

/** A call that was told of its booking takes it up, which is all that is needed; only without one it is admitted like any other. */
async function askProvider(own: Own, request: RateRequest): Promise<SlotAnswer> {
  const slot = providerSlot(own, request);
  const asked = toSlotRequest(request, 'provider');
  if (request.isBooked === true) {
    const redeemed = noted(own, request, await own.buckets.redeem(slot, asked));
    if (redeemed.ms >= 0) return redeemed;
  }
  return noted(own, request, await own.buckets.admit(slot, asked));
}

async function probe(own: Own, request: RateRequest): Promise<RateWait | undefined> {
  const tenant = tenantSlot(own, request);
  const first =
    tenant === undefined ? undefined : await own.buckets.probe(tenant, toSlotRequest(request, 'tenant'));
  if (first !== undefined && first.ms > 0) return toWait(first, ['plan', 'tier']);
  if (!own.rules.limitsProviders()) return undefined;
  const answer = await own.buckets.probe(providerSlot(own, request), toSlotRequest(request, 'provider'));
  return noted(own, request, answer).ms > 0 ? toWait(answer, ['provider', 'model']) : undefined;
}

function noted(own: Own, { provider }: RateRequest, answer: SlotAnswer): SlotAnswer {
  if (answer.lost > 0) own.onBookingsLost(provider, answer.lost);
  return answer;
}

function providerSlot(
  { rules, prefix }: Own,
  { provider, model }: Pick<PermitRef, 'provider' | 'model'>,
): Slot {
  return {
    keys: rateKeys(prefix, provider, model),
    outer: rules.provider(provider),
    inner: rules.model(model),
  };
}

/** Undefined where neither the tenant's plan nor the model's tier binds. */
function tenantSlot({ rules, prefix }: Own, { model, tenantId }: PermitRef): Slot | undefined {
  const tier = rules.tierOf(model);
  const inner = tier === undefined ? NOTHING : rules.tier(tier);
  const outer = rules.plan(tenantId);
  if (!binds(inner) && !binds(outer)) return undefined;
  return { keys: tenantRateKeys(prefix, tenantId, tier ?? ''), outer, inner };
}

function binds(limit: RateLimit): boolean {
  const { rpm, tpm, inputTpm, outputTpm, maxParallel } = limit;
  return [rpm, tpm, inputTpm, outputTpm, maxParallel].some((value) => value !== undefined);
}

function toSlotRequest(request: RateRequest, slot: 'provider' | 'tenant') {
  const { attemptKey, priority, queuedAtMs = 0, tokens } = request;
  const neverBooks = slot === 'tenant';
  return {
    attemptKey,
    booking: neverBooks ? '' : toBooking(request),
    priority,
    queuedAtMs,
    neverBooks,
    ...tokens,
  };
}

function toBooking({ callKey, candidate }: Pick<BookingRef, 'callKey' | 'candidate'>): string {
  return `${callKey}#${candidate}`;
}

function toWait(answer: SlotAnswer, [outer, inner]: readonly [RateBucket, RateBucket]): RateWait {
  const { ms, dimension, isInner, isBooked } = answer;
  return {
    kind: 'wait',
    // Those who wait for a place must not come back all at once.
    ms: dimension === 'maxParallel' ? Math.ceil(ms * (0.5 + Math.random())) : ms,
    dimension,
    bucket: isInner ? inner : outer,
    isBooked,
  };
}

/** What Redis is told, as far as it is there: a permit that it is not told of ends with its lease. */
async function bestEffort(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!isRedisOutage(error)) throw error;
  }
}

function toRules(given: Partial<RateRules> = {}): RateRules {
  return {
    provider: () => NOTHING,
    model: () => NOTHING,
    tier: () => NOTHING,
    plan: () => NOTHING,
    tierOf: () => undefined,
    limitsProviders: () => true,
    ...given,
  };
}
