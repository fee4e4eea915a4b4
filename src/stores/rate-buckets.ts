// Two buckets in one slot of Redis, one inside the other: a provider's and a model's, or a tenant's plan and a tier. The server's clock
// decides. Who asks which of them, and what holds while Redis is away, is up to rates.ts.

import { PRIORITIES, type Priority } from '../task/input.ts';
import { RATE_DIMENSIONS } from '../task/rate-reading.ts';
import type { RateKeys } from './keys.ts';
import type { RateBound, RateClasses, RateLimit, RateUse } from './rate-rules.ts';
import { loadLibrary, loadScript, type Redis } from './redis.ts';

const functions = loadLibrary(
  ['rate-limits', 'rate-permits'],
  ['rate-admit', 'rate-redeem', 'rate-give-back', 'rate-unbook', 'rate-renew'],
  { freeing: ['rate-give-back', 'rate-unbook'] },
);
const cool = loadScript('rate-cool');

/** Both buckets with their limits. */
export type Slot = { readonly keys: RateKeys; readonly outer: RateLimit; readonly inner: RateLimit };

export type SlotRequest = {
  readonly attemptKey: string;
  /** '' where nothing is booked. */
  readonly booking: string;
  readonly priority: Priority;
  readonly queuedAtMs: number;
  readonly input: number;
  readonly output: number;
  /** Whether no wait may be booked, whatever the class's horizon. */
  readonly neverBooks: boolean;
};

export type SlotAnswer = {
  /** 0: admitted. */
  readonly ms: number;
  readonly dimension: RateBound;
  readonly isInner: boolean;
  readonly isBooked: boolean;
  /** Bookings that were found to be lost, whosesoever. */
  readonly lost: number;
};

/** What an attempt used, and the model that it says something of: how much it usually writes; '' for none. */
export type SlotUse = RateUse & { readonly teaches: string };

export type RateBuckets = ReturnType<typeof createRateBuckets>;

export function createRateBuckets(
  redis: Pick<Redis, 'run'>,
  options: { readonly leaseMs: number; readonly classes: RateClasses },
) {
  const { leaseMs } = options;
  const settingsOf = createSettings(options.classes);
  const ask = async (slot: Slot, request: SlotRequest, isProbe: boolean): Promise<SlotAnswer> => {
    const { attemptKey, booking, queuedAtMs, input, output } = request;
    const lease = isProbe ? 0 : leaseMs;
    const args = [attemptKey, booking, lease, queuedAtMs, input, output, settingsOf(slot, request, isProbe)];
    return toAnswer(await redis.run(functions['rate-admit'], keysOf(slot.keys), args));
  };
  return {
    admit: (slot: Slot, request: SlotRequest) => ask(slot, request, false),

    /** Takes no permit, and books a wait that is long. */
    probe: (slot: Slot, request: SlotRequest) => ask(slot, request, true),

    /** Makes a booking a permit. `ms` is -1 when there is none, or not any more. */
    async redeem(
      { keys, outer, inner }: Slot,
      { attemptKey, booking }: Pick<SlotRequest, 'attemptKey' | 'booking'>,
    ): Promise<SlotAnswer> {
      const args = [attemptKey, booking, leaseMs, outer.maxParallel ?? 0, inner.maxParallel ?? 0];
      return toAnswer(await redis.run(functions['rate-redeem'], keysOf(keys), args));
    },

    /** Answers what the model usually writes, as far as it was asked and is known. */
    async giveBack(
      { keys, outer, inner }: Slot,
      attemptKey: string,
      used: SlotUse,
    ): Promise<number | undefined> {
      const limits = [outer, inner].flatMap((limit) =>
        RATE_DIMENSIONS.map((dimension) => limit[dimension] ?? 0),
      );
      const flags = [used.isSent ? 0 : 1, used.teaches];
      const args = [attemptKey, used.input, used.output, ...flags, limits.join(' ')];
      const usual = await redis.run(functions['rate-give-back'], keysOf(keys), args);
      return typeof usual === 'number' && usual > 0 ? usual : undefined;
    },

    /** True when the place was lost: others have lined up behind it. */
    async unbook(keys: RateKeys, booking: string): Promise<boolean> {
      return (await redis.run(functions['rate-unbook'], keysOf(keys), [booking])) === 0;
    },

    async renew(keys: RateKeys, attemptKey: string): Promise<void> {
      await redis.run(functions['rate-renew'], keysOf(keys), [attemptKey, leaseMs]);
    },

    /** Nobody is admitted to the bucket for so long; a shorter time never shortens a longer one. */
    async cool(bucket: string, ms: number): Promise<void> {
      await redis.run(cool, [bucket], [Math.ceil(ms)]);
    },
  };
}

/** The settings of a request as rate-admit.lua reads them. They are few, and written once: every call asks. */
function createSettings({ horizonMs, ...classes }: RateClasses) {
  const ofClasses = new Map<string, string>();
  const ofLimits = new WeakMap<RateLimit, string>();
  const limits = (limit: RateLimit): string => {
    const known = ofLimits.get(limit);
    if (known !== undefined) return known;
    const dimensions = RATE_DIMENSIONS.map((dimension) => limit[dimension] ?? 0);
    const text = [...dimensions, limit.maxParallel ?? 0].join(' ');
    ofLimits.set(limit, text);
    return text;
  };
  const toText = ({ priority, neverBooks }: SlotRequest, isProbe: boolean): string =>
    [
      PRIORITIES.indexOf(priority) + 1,
      classes.rpmBurstMs * 1_000,
      classes.tpmBurstMs * 1_000,
      neverBooks ? -1 : horizonMs[priority],
      isProbe ? classes.leastBookedMs : 0,
      horizonMs[priority],
      classes.agedShare,
      // Twice what anybody else may book: there is a place behind them all.
      neverBooks ? -1 : 2 * Math.max(...Object.values(horizonMs)),
      classes.reservedShare,
      horizonMs.high,
    ].join(' ');
  return ({ outer, inner }: Slot, request: SlotRequest, isProbe: boolean): string => {
    const name = `${request.priority} ${request.neverBooks} ${isProbe}`;
    const known = ofClasses.get(name) ?? toText(request, isProbe);
    ofClasses.set(name, known);
    return `${known} ${limits(outer)} ${limits(inner)}`;
  };
}

/** As rate-permits.lua lists them. */
function keysOf({ outer, inner, outerLeases, innerLeases, bookings }: RateKeys): string[] {
  return [outer, inner, outerLeases, innerLeases, bookings];
}

const LINES = [
  ...RATE_DIMENSIONS.map((dimension) => ({ dimension, isInner: false })),
  ...RATE_DIMENSIONS.map((dimension) => ({ dimension, isInner: true })),
  { dimension: 'cooldown', isInner: false },
  { dimension: 'cooldown', isInner: true },
  { dimension: 'maxParallel', isInner: false },
  { dimension: 'maxParallel', isInner: true },
] as const;

function toAnswer(answer: unknown): SlotAnswer {
  const [ms = 0, line = 0, booked = 0, lost = 0] = Array.isArray(answer) ? (answer as number[]) : [];
  const { dimension, isInner } = LINES[line - 1] ?? LINES[0];
  return { ms, dimension, isInner, isBooked: booked === 1, lost };
}
