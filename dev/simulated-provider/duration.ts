// A time to wait, fixed or drawn from a distribution, and the seeded chance that it is drawn from. Milliseconds throughout.

import { isObject, type JsonObject, optionalNumber, refuseUnknown } from './body-fields.ts';
import { badRequest } from './problem.ts';

export type Duration =
  | { readonly kind: 'fixed'; readonly ms: number }
  | { readonly kind: 'uniform'; readonly minMs: number; readonly maxMs: number }
  | { readonly kind: 'lognormal'; readonly medianMs: number; readonly sigma: number };

/** Numbers from 0 (inclusive) to 1 (exclusive). */
export type Chance = () => number;

const LONGEST_MS = 3_600_000;
const MILLISECONDS = { min: 0, max: LONGEST_MS };

/** The same seed gives the same numbers (mulberry32). */
export function seededChance(seed: number): Chance {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** One duration in milliseconds, at most an hour. */
export function drawMs(duration: Duration, chance: Chance): number {
  switch (duration.kind) {
    case 'fixed':
      return duration.ms;
    case 'uniform':
      return duration.minMs + chance() * (duration.maxMs - duration.minMs);
    case 'lognormal':
      return Math.min(LONGEST_MS, duration.medianMs * Math.exp(duration.sigma * standardNormal(chance)));
    default:
      return duration satisfies never;
  }
}

/** Reads `250`, `{kind: 'fixed', ms}`, `{kind: 'uniform', minMs, maxMs}` or `{kind: 'lognormal', medianMs, sigma}`. */
export function readDuration(from: JsonObject, key: string): Duration | undefined {
  const value = from[key] ?? undefined;
  if (value === undefined) return undefined;
  if (!isObject(value)) return { kind: 'fixed', ms: optionalNumber(from, key, MILLISECONDS) ?? 0 };
  switch (value['kind']) {
    case 'fixed':
      refuseUnknown(value, ['kind', 'ms'], key);
      return { kind: 'fixed', ms: optionalNumber(value, 'ms', MILLISECONDS) ?? 0 };
    case 'uniform':
      return readUniform(value, key);
    case 'lognormal':
      refuseUnknown(value, ['kind', 'medianMs', 'sigma'], key);
      return {
        kind: 'lognormal',
        medianMs: optionalNumber(value, 'medianMs', MILLISECONDS) ?? 0,
        sigma: optionalNumber(value, 'sigma', { min: 0, max: 5 }) ?? 0.5,
      };
    default:
      throw badRequest(`'${key}.kind' must be fixed, uniform or lognormal`, key);
  }
}

function readUniform(value: JsonObject, key: string): Duration {
  refuseUnknown(value, ['kind', 'minMs', 'maxMs'], key);
  const minMs = optionalNumber(value, 'minMs', MILLISECONDS) ?? 0;
  const maxMs = optionalNumber(value, 'maxMs', { min: minMs, max: LONGEST_MS }) ?? minMs;
  return { kind: 'uniform', minMs, maxMs };
}

function standardNormal(chance: Chance): number {
  // 1 - x keeps the logarithm away from zero.
  return Math.sqrt(-2 * Math.log(1 - chance())) * Math.cos(2 * Math.PI * chance());
}
