// What a provider's fault means for the call, as one pure table: the workflow and the direct way drive the same rules.

import type { FailureDetails } from './failure.ts';

/** What a provider's error means, whatever its dialect. */
export const PROVIDER_FAULT_KINDS = [
  'rate_limited',
  'overloaded',
  'quota',
  'timeout',
  'connection',
  'cut',
  'bad_request',
  'too_long',
  'not_found',
  'auth',
  'content_filter',
  'aborted',
  'unknown',
] as const;

export type ProviderFaultKind = (typeof PROVIDER_FAULT_KINDS)[number];

export type ProviderFault = {
  readonly kind: ProviderFaultKind;
  readonly status?: number | undefined;
  readonly retryAfterMs?: number | undefined;
};

/** What is known of the call when the fault came. Times are milliseconds. */
export type VerdictContext = {
  readonly model: string;
  /** Attempts of this candidate that failed at the provider, this one included. */
  readonly failedAttempts: number;
  readonly attemptsPerCandidate: number;
  /** Failed attempts over all candidates, this one included. */
  readonly failedAttemptsOfCall: number;
  readonly attemptsPerCall: number;
  /** How often this call was already told to wait by a provider that gave no hint. */
  readonly unhintedWaits: number;
  /** Other models that can answer the call, now or later. */
  readonly candidatesLeft: number;
  /** A throttled model is waited for so long although another one is left. */
  readonly shortHintMs: number;
  /** The provider has another key, which it has not refused and does not throttle. */
  readonly hasOtherKey: boolean;
  /** Time left until the deadline, Infinity without one. */
  readonly remainingMs: number;
};

export type Verdict =
  | { readonly kind: 'retry' }
  /** At once and at the same model, with another key. */
  | { readonly kind: 'next_key' }
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'unavailable'; readonly reason: string; readonly retryAfterMs?: number }
  | { readonly kind: 'refuse'; readonly failure: FailureDetails };

/** Without a hint a throttled call waits 1, 2, 4 … at most 30 s. */
const FIRST_UNHINTED_WAIT_MS = 1_000;
const LONGEST_UNHINTED_WAIT_MS = 30_000;

/** The verdict on one failed attempt. `aborted` is not a provider's fault and has no row. */
export function judge(
  fault: ProviderFault & { kind: Exclude<ProviderFaultKind, 'aborted'> },
  context: VerdictContext,
): Verdict {
  switch (fault.kind) {
    case 'bad_request':
      return refuse('RequestRejected', 'the provider answered that the request is wrong', fault, context);
    case 'content_filter':
      return refuse('ContentRefused', 'the provider refused the content', fault, context);
    case 'too_long':
    case 'not_found':
      return moveOn(fault.kind, fault, context);
    case 'auth':
    case 'quota':
      return context.hasOtherKey ? { kind: 'next_key' } : moveOn(fault.kind, fault, context);
    case 'rate_limited':
      return context.hasOtherKey ? { kind: 'next_key' } : throttled(fault.kind, fault, context);
    case 'overloaded':
      return throttled(fault.kind, fault, context);
    case 'timeout':
    case 'connection':
    case 'cut':
    case 'unknown':
      return failed(fault.kind, fault, context);
    default:
      return fault.kind satisfies never;
  }
}

function throttled(
  kind: 'rate_limited' | 'overloaded',
  fault: ProviderFault,
  context: VerdictContext,
): Verdict {
  const ms =
    fault.retryAfterMs ??
    Math.min(FIRST_UNHINTED_WAIT_MS * 2 ** context.unhintedWaits, LONGEST_UNHINTED_WAIT_MS);
  const isInTime = ms < context.remainingMs;
  if (context.candidatesLeft > 0 && (ms > context.shortHintMs || !isInTime))
    return { kind: 'unavailable', reason: kind, retryAfterMs: ms };
  if (isInTime) return { kind: 'wait', ms };
  return refuse(
    'RateLimited',
    'the provider is throttling until after the deadline',
    { ...fault, retryAfterMs: ms },
    context,
  );
}

function failed(
  kind: 'timeout' | 'connection' | 'cut' | 'unknown',
  fault: ProviderFault,
  context: VerdictContext,
): Verdict {
  const { failedAttempts, attemptsPerCandidate, failedAttemptsOfCall, attemptsPerCall } = context;
  return failedAttempts < attemptsPerCandidate && failedAttemptsOfCall < attemptsPerCall
    ? { kind: 'retry' }
    : moveOn(kind, fault, context);
}

/** To the next model, unless that would make it one failed attempt more than a call may have. */
function moveOn(kind: ProviderFaultKind, fault: ProviderFault, context: VerdictContext): Verdict {
  const { candidatesLeft, failedAttemptsOfCall, attemptsPerCall } = context;
  if (candidatesLeft === 0 || failedAttemptsOfCall < attemptsPerCall)
    return { kind: 'unavailable', reason: kind };
  const reason = `${failedAttemptsOfCall} attempts failed, the last by ${kind}`;
  return refuse('NoModelAvailable', reason, fault, context);
}

function refuse(
  type: 'RequestRejected' | 'ContentRefused' | 'RateLimited' | 'NoModelAvailable',
  reason: string,
  fault: ProviderFault,
  context: VerdictContext,
): Verdict {
  return {
    kind: 'refuse',
    failure: {
      type,
      reason,
      model: context.model,
      ...(fault.status === undefined ? {} : { status: fault.status }),
      ...(fault.retryAfterMs === undefined ? {} : { retryAfterMs: fault.retryAfterMs }),
    },
  };
}
