// The permit of an attempt: what it asks of rate control, where it waits for it, and whose it is. The hold is there already; whoever is
// told to wait gives it back.

import type { Attempt } from '../stores/ledger.ts';
import type { BookingRef, PermitRef, RateUse, RateWait } from '../stores/rate-rules.ts';
import type { CallOutcome } from '../task/decision.ts';
import { totalInputTokens, type Usage } from '../task/usage.ts';
import { type CallContext, type CallDependencies, type CallRequest, providerOf } from './call.ts';

/** Undefined when the permit is there; short waits are spent here, with the hold in hand. */
export async function permit(
  dependencies: CallDependencies,
  request: CallRequest,
  context: CallContext,
  attempt: Attempt,
): Promise<CallOutcome | undefined> {
  if (!dependencies.settings.rateControl) return undefined;
  const { rates, settings, meter } = dependencies;
  const { priority = 'normal', queuedAtMs } = request;
  const asked = {
    ...{ ...toPermit(attempt), ...toBooking(attempt), priority, queuedAtMs },
    tokens: rateTokens(dependencies, request, attempt.estimate),
  };
  let inlineMs = settings.inlineWaitMs;
  let isBooked = request.isBooked === true;
  for (;;) {
    const answer = await rates.admit({ ...asked, isBooked });
    if (answer.kind === 'admitted') return undefined;
    const { ms, dimension } = answer;
    isBooked = answer.isBooked && !(await leaves(dependencies, request, answer));
    meter.delayed({ provider: attempt.provider, dimension, seconds: ms / 1000 });
    if (ms > inlineMs)
      return {
        kind: 'wait',
        // Told by the provider itself: another model is better than a long wait for it.
        reason: dimension === 'cooldown' ? 'provider_limit' : 'rate',
        ms,
        limit: toLimitName(attempt, answer),
        ...(isBooked && { isBooked }),
      };
    inlineMs -= ms;
    try {
      await dependencies.pause(ms, context.signal);
    } catch (error) {
      // Handed over, the call finds its place again; cancelled, it will not come for it.
      if (isBooked && context.abortReason() === 'cancelled') await unbook(dependencies, request);
      throw error;
    }
  }
}

/** Whether the call goes to another model, or ends, instead of waiting; then its place is given up. */
async function leaves(
  dependencies: CallDependencies,
  request: CallRequest,
  { ms, dimension }: RateWait,
): Promise<boolean> {
  const { remainingMs, waitLeftMs = remainingMs, candidatesLeft = 0 } = request;
  const isElsewhere =
    dimension === 'cooldown' && candidatesLeft > 0 && ms > dependencies.settings.shortHintMs;
  if (ms < remainingMs && ms <= waitLeftMs && !isElsewhere) return false;
  await unbook(dependencies, request);
  return true;
}

/** Gives up the place of a call that will not come for it. */
export async function unbook(
  { rates, log }: Pick<CallDependencies, 'rates' | 'log'>,
  { model, callKey, number }: Pick<CallRequest, 'model' | 'callKey' | 'number'>,
): Promise<void> {
  const booking = { provider: providerOf(model), model, callKey, candidate: number.candidate };
  await rates.unbook(booking).catch((error: unknown) => {
    log.warn('a booked place was not given back', { callKey, error });
  });
}

export function toPermit({ provider, model, attemptKey, payer }: Attempt): PermitRef {
  return { provider, model, attemptKey, tenantId: payer.tenantId };
}

function toBooking({ provider, model, callKey, candidate }: Attempt): BookingRef {
  return { provider, model, callKey, candidate };
}

/** What a request that was sent used. */
export function toRateUse(usage: Usage): RateUse {
  return { input: totalInputTokens(usage), output: usage.outputTokens, isSent: true };
}

/** The limit as waits, timers and messages show it. */
export function toLimitName(
  { provider, model }: Pick<PermitRef, 'provider' | 'model'>,
  { bucket, dimension }: Pick<RateWait, 'bucket' | 'dimension'>,
): string {
  switch (bucket) {
    case 'provider':
      return `${provider} ${dimension}`;
    case 'model':
      return `${model} ${dimension}`;
    case 'tier':
    case 'plan':
      return `tenant's ${bucket} ${dimension}`;
    default:
      return bucket satisfies never;
  }
}

/**
 * Tokens a request is expected to take of a minute; corrected both ways when it ends. The bound of the input counts bytes, and a token is
 * about three of them; where the input was counted, that is the most.
 */
export function rateTokens(
  { tokens }: { readonly tokens: Pick<CallDependencies['tokens'], 'upperBound'> },
  { messages, responseFormat }: Pick<CallRequest, 'messages' | 'responseFormat'>,
  { inputTokens, maxOutputTokens }: { readonly inputTokens: number; readonly maxOutputTokens: number },
): { readonly input: number; readonly output: number } {
  const counted = Math.ceil(tokens.upperBound(messages, responseFormat) / BYTES_PER_TOKEN);
  return { input: Math.min(inputTokens, counted), output: maxOutputTokens };
}

const BYTES_PER_TOKEN = 3;
