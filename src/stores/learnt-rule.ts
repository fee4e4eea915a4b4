// What a provider's own words and refusals make of a configured limit. Pure; scripts/rate-limits.lua and rate-learning.lua are the same
// rule where the state is, and a test holds the two against each other. Nothing here ever passes what is configured.

/** One learnt limit of a bucket, per minute. */
export type LearntLimit = {
  /** What it was at `atMs`; from there it recovers. */
  readonly value: number;
  /** What the provider itself states, up to which it recovers. */
  readonly ceiling?: number;
  readonly atMs: number;
};

/** A tenth of what is configured comes back in a minute without a refusal. */
const RECOVERY_PER_MS = 0.1 / 60_000;
/** What a provider stated is believed for a day after it was last heard; from then on it is recovered from as well. */
const CEILING_FOR_MS = 86_400_000;
/** A statement that changes nothing is noted again after this long, so that it does not grow old while it is heard. */
const CONFIRM_AFTER_MS = 3_600_000;
/** What is left of a limit after a refusal, and of all refusals together at least: a bucket that closes for good would never learn. */
const CUT = 0.7;
const FLOOR = 0.01;

/**
 * The limit that holds at a moment.
 * @param configured per minute; 0 when nothing is configured, and then only what a provider states can bind
 * @returns 0 when nothing binds
 */
export function effectiveLimit(learnt: LearntLimit | undefined, configured: number, nowMs: number): number {
  if (learnt === undefined) return configured;
  const { value, ceiling } = learnt;
  const base = configured > 0 ? configured : (ceiling ?? 0);
  if (base <= 0) return configured;
  const ageMs = Math.max(0, nowMs - learnt.atMs);
  if (configured <= 0 && ageMs > CEILING_FOR_MS) return 0;
  const limit = Math.min(base, value + base * RECOVERY_PER_MS * ageMs);
  if (ceiling === undefined) return limit;
  return Math.min(limit, ceiling + base * RECOVERY_PER_MS * Math.max(0, ageMs - CEILING_FOR_MS));
}

/** What follows from a provider that states a limit: less holds at once, more is recovered to. Undefined when nothing changes. */
export function statedLimit(
  learnt: LearntLimit | undefined,
  stated: number,
  at: { readonly configured: number; readonly nowMs: number },
): LearntLimit | undefined {
  const effective = effectiveLimit(learnt, at.configured, at.nowMs);
  const isNews =
    learnt === undefined || learnt.ceiling !== stated || at.nowMs - learnt.atMs >= CONFIRM_AFTER_MS;
  if (!isNews) return undefined;
  // Nothing was learnt: all of it holds, as far as it is configured.
  const from = learnt === undefined || effective <= 0 ? stated : effective;
  return { value: rounded(Math.min(stated, from)), ceiling: stated, atMs: at.nowMs };
}

/** What follows from a refusal. Undefined when there is no limit that could be cut. */
export function cutLimit(
  learnt: LearntLimit | undefined,
  at: { readonly configured: number; readonly nowMs: number },
): LearntLimit | undefined {
  const effective = effectiveLimit(learnt, at.configured, at.nowMs);
  if (effective <= 0) return undefined;
  const base = at.configured > 0 ? at.configured : (learnt?.ceiling ?? effective);
  const value = rounded(Math.max(effective * CUT, Math.min(effective, Math.max(1, base * FLOOR))));
  return {
    value,
    ...(learnt?.ceiling === undefined ? {} : { ceiling: learnt.ceiling }),
    atMs: at.nowMs,
  };
}

/** Reads the two fields of a bucket. */
export function readLearnt(
  limit: string | null | undefined,
  at: string | null | undefined,
): LearntLimit | undefined {
  const [value = '', ceiling] = (limit ?? '').split(' ');
  if (value === '' || !Number.isFinite(Number(value))) return undefined;
  return {
    value: Number(value),
    ...(ceiling === undefined ? {} : { ceiling: Number(ceiling) }),
    atMs: Number(at ?? 0),
  };
}

/** The bucket's field: `'<value>'` or `'<value> <ceiling>'`. */
export function writeLearnt({ value, ceiling }: LearntLimit): string {
  return ceiling === undefined ? value.toFixed(3) : `${value.toFixed(3)} ${ceiling.toFixed(3)}`;
}

function rounded(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
