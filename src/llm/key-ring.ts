// Which of a provider's keys the next request takes: the one that was used longest ago among those that work. A key that was refused or
// throttled rests for a while. Known to this process alone: another one learns the same from its own first request. No key is ever told.

import type { ProviderFault } from '../task/verdict.ts';

/** How long a key that was refused is passed over: its account may be paid, its rights may be given back. */
export const DEAD_KEY_MS = 300_000;
/** How long a throttled key rests when the provider gave no hint. */
const UNHINTED_REST_MS = 1_000;

export type KeyFault = Pick<ProviderFault, 'kind' | 'status' | 'retryAfterMs'>;

/** What another key could do for a failed request. */
export type OtherKeys = {
  /** One is there that neither was refused nor is throttled. */
  readonly hasOtherKey: boolean;
  /** Until the first of several throttled keys may be used again; the fault's own hint where there is one key. */
  readonly retryAfterMs: number | undefined;
};

/** The model as its provider names it: rights and limits of a key may differ from model to model. */
export type KeyUse = { readonly provider: string; readonly model: string; readonly keys: readonly string[] };

export type KeyRing = ReturnType<typeof createKeyRing>;

/** @param nowMs a clock that only goes forward */
export function createKeyRing(nowMs: () => number = () => performance.now()) {
  const restsUntil = new Map<string, number>();
  const usedAt = new Map<string, number>();
  let uses = 0;
  const placesOf = ({ provider, model }: KeyUse, key: string) =>
    [`${provider}\0${key}`, `${provider}\0${key}\0${model}`] as const;
  const restOf = (use: KeyUse, key: string) =>
    Math.max(0, ...placesOf(use, key).map((place) => (restsUntil.get(place) ?? 0) - nowMs()));
  return {
    /** The key of the next request; where all rest, the one that rests shortest. Undefined when the provider has none. */
    take(use: KeyUse): string | undefined {
      const order = (key: string) => usedAt.get(placesOf(use, key)[0]) ?? 0;
      const [key] = use.keys.toSorted(
        (left, right) => restOf(use, left) - restOf(use, right) || order(left) - order(right),
      );
      if (key === undefined) return undefined;
      uses += 1;
      usedAt.set(placesOf(use, key)[0], uses);
      return key;
    },

    /** A request with this key was taken. */
    worked(use: KeyUse, key: string): void {
      for (const place of placesOf(use, key)) restsUntil.delete(place);
    },

    /** A request with this key failed. */
    failed(use: KeyUse, key: string, fault: KeyFault): OtherKeys {
      const [ofKey, ofModel] = placesOf(use, key);
      const { kind, status, retryAfterMs } = fault;
      const others = use.keys.filter((other) => other !== key);
      if (kind === 'rate_limited') restsUntil.set(ofModel, nowMs() + (retryAfterMs ?? UNHINTED_REST_MS));
      // Forbidden may be the model alone; a key that is unknown, or whose account is empty, serves none.
      else if (kind === 'auth' || kind === 'quota')
        restsUntil.set(status === 403 ? ofModel : ofKey, nowMs() + DEAD_KEY_MS);
      else return { hasOtherKey: false, retryAfterMs };
      const rests = others.map((other) => restOf(use, other));
      const shortest = Math.min(...rests, Number.POSITIVE_INFINITY);
      const isSooner = kind === 'rate_limited' && shortest < (retryAfterMs ?? UNHINTED_REST_MS);
      return {
        hasOtherKey: rests.some((rest) => rest === 0),
        retryAfterMs: isSooner ? Math.ceil(shortest) : retryAfterMs,
      };
    },
  };
}
