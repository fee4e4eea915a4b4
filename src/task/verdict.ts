// What a provider's fault means for the call, as one pure table: the workflow and the direct way drive the same rules.

import type { CallOutcome } from './decision.ts';
import type { BudgetExceededDetails, FailureDetails } from './failure.ts';
import { parseUsd } from './money.ts';

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
  /** Time left until the deadline, Infinity without one. */
  readonly remainingMs: number;
};

export type Verdict =
  | { readonly kind: 'retry' }
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
    case 'auth':
    case 'quota':
      return { kind: 'unavailable', reason: fault.kind };
    case 'rate_limited':
    case 'overloaded':
      return throttled(fault, context);
    case 'timeout':
    case 'connection':
    case 'cut':
    case 'unknown':
      return mayRetry(context) ? { kind: 'retry' } : { kind: 'unavailable', reason: fault.kind };
    default:
      return fault.kind satisfies never;
  }
}

/** What the workflow does next with an outcome. */
export type NextMove =
  | { readonly kind: 'done' }
  | { readonly kind: 'sleep'; readonly ms: number; readonly limit: string }
  /** The time for waiting for others is over: what they leave no room for counts as exceeded now. */
  | { readonly kind: 'look_again' }
  | { readonly kind: 'ask'; readonly failure: BudgetExceededDetails }
  | { readonly kind: 'next_candidate' }
  | { readonly kind: 'fail'; readonly failure: FailureDetails };

/** Where a call stands. Times are milliseconds, Infinity where nothing ends them. */
export type CallStanding = {
  /** Models that a model's failure leaves, the present one not counted. */
  readonly candidatesLeft: number;
  /** Models that an exceeded budget leaves: the candidates and, after them, cheaper ones. */
  readonly cheaperLeft: number;
  /** Until the call's own time is over, or the deadline. */
  readonly remainingMs: number;
  /** Until the deadline alone: what waits for a window or for a person takes none of the call's own time. */
  readonly untilDeadlineMs: number;
  /** What is left of the time a call may wait for other calls' holds. */
  readonly heldWaitLeftMs: number;
  /** It was looked at for a last time after that. */
  readonly heldWaitOver: boolean;
};

export function nextMove(outcome: CallOutcome, standing: CallStanding): NextMove {
  switch (outcome.kind) {
    case 'completed':
      return { kind: 'done' };
    case 'refuse':
      return { kind: 'fail', failure: outcome.failure };
    case 'wait':
      return waitOrFail(outcome, standing);
    case 'held':
      return waitForHolds(outcome, standing);
    case 'budget_wait':
      // What is larger than the whole limit fits into no window.
      if (outcome.ms >= standing.untilDeadlineMs || isLargerThanLimit(outcome.failure))
        return { kind: 'fail', failure: outcome.failure };
      return { kind: 'sleep', ms: outcome.ms, limit: outcome.limit };
    case 'ask':
      return outcome;
    case 'degrade':
      return standing.cheaperLeft > 0
        ? { kind: 'next_candidate' }
        : { kind: 'fail', failure: outcome.failure };
    case 'unavailable':
      if (standing.candidatesLeft > 0) return { kind: 'next_candidate' };
      if (outcome.retryAfterMs !== undefined && outcome.retryAfterMs < standing.remainingMs)
        return { kind: 'sleep', ms: outcome.retryAfterMs, limit: outcome.reason };
      return {
        kind: 'fail',
        failure: { type: 'NoModelAvailable', reason: outcome.reason, model: outcome.model },
      };
    default:
      return outcome satisfies never;
  }
}

function waitForHolds(
  outcome: Extract<CallOutcome, { kind: 'held' }>,
  { heldWaitLeftMs, heldWaitOver, remainingMs }: CallStanding,
): NextMove {
  if (heldWaitOver) return { kind: 'fail', failure: outcome.failure };
  if (heldWaitLeftMs <= 0) return { kind: 'look_again' };
  const ms = Math.min(outcome.ms, heldWaitLeftMs, Math.max(0, remainingMs));
  return { kind: 'sleep', ms, limit: outcome.limit };
}

function waitOrFail(outcome: Extract<CallOutcome, { kind: 'wait' }>, standing: CallStanding): NextMove {
  const { ms, limit, reason } = outcome;
  if (ms < standing.remainingMs) return { kind: 'sleep', ms, limit };
  // Back-pressure slows down and refuses nobody: it takes no more than half of what time there is.
  if (reason === 'backpressure')
    return { kind: 'sleep', ms: Math.max(0, Math.floor(standing.remainingMs / 2)), limit };
  return {
    kind: 'fail',
    failure: {
      type: 'RateLimited',
      reason: `the wait for ${limit} would end after the deadline`,
      retryAfterMs: ms,
    },
  };
}

function isLargerThanLimit({ unit, needed, limit }: BudgetExceededDetails): boolean {
  const amountOf = (text: string) => (unit === 'usd' ? parseUsd(text) : BigInt(text));
  return (amountOf(needed) ?? 0n) > (amountOf(limit) ?? 0n);
}

function throttled(fault: ProviderFault, context: VerdictContext): Verdict {
  const ms =
    fault.retryAfterMs ??
    Math.min(FIRST_UNHINTED_WAIT_MS * 2 ** context.unhintedWaits, LONGEST_UNHINTED_WAIT_MS);
  if (ms < context.remainingMs) return { kind: 'wait', ms };
  return refuse(
    'RateLimited',
    'the provider is throttling until after the deadline',
    { ...fault, retryAfterMs: ms },
    context,
  );
}

function mayRetry(context: VerdictContext): boolean {
  return (
    context.failedAttempts < context.attemptsPerCandidate &&
    context.failedAttemptsOfCall < context.attemptsPerCall
  );
}

function refuse(
  type: 'RequestRejected' | 'ContentRefused' | 'RateLimited',
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
