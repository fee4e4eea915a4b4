// Hands on what the answer to one attempt says of the provider's limits. Best effort beside the call: what cannot be told now is said by
// the next answer, and no call fails for it.

import { LlmError } from '../llm/error.ts';
import type { Attempt } from '../stores/ledger.ts';
import type { RateReading } from '../task/rate-reading.ts';
import type { CallDependencies, CallMeter } from './call.ts';

export type RateListener = {
  /** The headers of the answer, the moment they came. */
  heard(readings: readonly RateReading[]): void;
  /** The attempt failed. Resolves when everybody knows of a refusal: who asks again after that is told to wait. */
  failed(error: unknown): Promise<void>;
  /** Resolves when nothing is under way. */
  done(): Promise<void>;
};

export function listenToRates(
  {
    learntRates,
    meter,
    log,
  }: Pick<CallDependencies, 'learntRates' | 'log'> & {
    readonly meter: Pick<CallMeter, 'throttled'>;
  },
  { provider, model }: Pick<Attempt, 'provider' | 'model'>,
): RateListener {
  const sentAt = performance.now();
  let readings: readonly RateReading[] = [];
  let telling: Promise<void> = Promise.resolve();
  const unheard = (error: unknown) =>
    log.warn('limits that a provider told were not noted', { model, error });
  return {
    heard(said) {
      readings = said;
      telling = learntRates.heard(model, said).catch(unheard);
    },
    async failed(error) {
      await telling;
      if (!(error instanceof LlmError) || !isThrottle(error)) return;
      meter.throttled(provider);
      // With another key the next request is not refused for what this one was.
      if (error.hasOtherKey) return;
      const refusal = { readings, hintMs: error.retryAfterMs, ageMs: performance.now() - sentAt };
      await learntRates.throttled(model, refusal).catch(unheard);
    },
    done: () => telling,
  };
}

/** Refused for what the provider can take now, not for what the request is. */
export function isThrottle(error: LlmError): boolean {
  return error.kind === 'rate_limited' || error.kind === 'overloaded';
}
