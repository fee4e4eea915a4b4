// The models of a call that cannot answer it, and the failure that tells of all of them. Pure.

import type { FailureDetails, ModelSetback } from './failure.ts';
import type { Setback } from './next-move.ts';

/** What a model has against it, and since when of 1970 on it has not; Infinity where that does not end. */
export type Fallen = Omit<Setback, 'backInMs'> & { readonly backAtMs: number };

type Tried = {
  readonly models: readonly string[];
  /** By the place of the model; undefined for those that may answer. */
  readonly fallen: readonly (Fallen | undefined)[];
};

/** Every model with its reason. Where all that stands in the way is that providers throttle, it is a limit and no outage. */
export function noneLeft(journey: Tried, nowMs: number): FailureDetails {
  const setbacks = setbacksOf(journey, nowMs);
  const isThrottled = setbacks.every(({ reason }) => THROTTLES.has(reason));
  const back = setbacks.flatMap(({ retryAfterMs }) => retryAfterMs ?? []);
  const [only] = setbacks;
  return {
    type: isThrottled ? 'RateLimited' : 'NoModelAvailable',
    ...(setbacks.length === 1 && only !== undefined
      ? { reason: only.reason, model: only.model }
      : {
          reason: setbacks.map(({ model, reason }) => `${model}: ${reason}`).join('; '),
          candidates: setbacks,
        }),
    ...(back.length === 0 ? {} : { retryAfterMs: Math.min(...back) }),
  };
}

const THROTTLES: ReadonlySet<string> = new Set(['rate_limited', 'overloaded', 'rate', 'provider_limit']);

function setbacksOf({ models, fallen }: Tried, nowMs: number): readonly ModelSetback[] {
  return models.flatMap((model, index): readonly ModelSetback[] => {
    const one = fallen[index];
    if (one === undefined) return [];
    const isBack = one.backAtMs < Number.POSITIVE_INFINITY;
    return [
      { model, reason: one.reason, ...(isBack ? { retryAfterMs: Math.max(0, one.backAtMs - nowMs) } : {}) },
    ];
  });
}

/** What the models before the last one had against them belongs to the end that the last one caused. */
export function withSetbacks(journey: Tried, failure: FailureDetails, nowMs: number): FailureDetails {
  const candidates = setbacksOf(journey, nowMs);
  if (candidates.length === 0) return failure;
  return failure.type === 'NoModelAvailable' || failure.type === 'RateLimited'
    ? { ...failure, candidates }
    : failure;
}
