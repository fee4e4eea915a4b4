// What is done next with the outcome of a visit, as one pure table: the workflow and the direct way drive the same rules. Which model
// comes next is the journey's to say (journey.ts); here it is only decided whether one is to come.

import { toBudgetName } from './budget.ts';
import type { CallOutcome } from './decision.ts';
import type { BudgetExceededDetails, FailureDetails } from './failure.ts';
import { parseUsd } from './money.ts';

const NEVER = Number.POSITIVE_INFINITY;

/** Why a model cannot answer now: it is away, or a budget has no room for it. `backInMs` is Infinity where it does not come back. */
export type Setback = {
  readonly kind: 'away' | 'budget';
  readonly reason: string;
  readonly backInMs: number;
};

/** What is done next with an outcome. */
export type NextMove =
  | { readonly kind: 'done' }
  | { readonly kind: 'sleep'; readonly ms: number; readonly limit: string }
  /** The time for waiting for others is over: what they leave no room for counts as exceeded now. */
  | { readonly kind: 'look_again' }
  | { readonly kind: 'ask'; readonly failure: BudgetExceededDetails }
  | { readonly kind: 'next_candidate'; readonly setback: Setback }
  /** No model can answer now: wait for the first that is back. */
  | { readonly kind: 'rest'; readonly setback: Setback }
  /** No model can answer, and none is back in time. */
  | { readonly kind: 'give_up'; readonly setback: Setback }
  | { readonly kind: 'fail'; readonly failure: FailureDetails };

/** Where a call stands. Times are milliseconds, Infinity where nothing ends them. */
export type CallStanding = {
  /** Models that a model's failure leaves for now, the present one not counted. */
  readonly candidatesLeft: number;
  /** Models that an exceeded budget leaves: the candidates and, after them, cheaper ones. */
  readonly cheaperLeft: number;
  /** Until the first of the other models is back that cannot answer now; NEVER when none is back in time. */
  readonly othersBackInMs: number;
  /** The present model is tried only because another one is away. */
  readonly isFallback: boolean;
  /** A provider that says "not before" is waited for so long although another model is left. */
  readonly shortHintMs: number;
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
      return outcome.failure.type === 'BudgetExceeded' && standing.isFallback
        ? setBack(noRoom(outcome.failure), standing)
        : { kind: 'fail', failure: outcome.failure };
    case 'wait':
      return waitOrMove(outcome, standing);
    case 'held':
      return waitForHolds(outcome, standing);
    case 'budget_wait':
      return waitForWindow(outcome, standing);
    case 'ask':
      // Nobody is asked for money while the model that was wanted comes back by itself.
      return standing.isFallback && (standing.candidatesLeft > 0 || standing.othersBackInMs < NEVER)
        ? setBack(noRoom(outcome.failure), standing)
        : outcome;
    case 'degrade':
      if (standing.cheaperLeft > 0) return { kind: 'next_candidate', setback: noRoom(outcome.failure) };
      return standing.isFallback
        ? setBack(noRoom(outcome.failure), standing)
        : { kind: 'fail', failure: outcome.failure };
    case 'unavailable':
      return setBack(
        { kind: 'away', reason: outcome.reason, backInMs: outcome.retryAfterMs ?? NEVER },
        standing,
      );
    default:
      return outcome satisfies never;
  }
}

/** The next model that can answer now, else the first that is back in time, else none. */
function setBack(setback: Setback, standing: CallStanding): NextMove {
  if (standing.candidatesLeft > 0) return { kind: 'next_candidate', setback };
  const isBack = setback.backInMs < endOf(setback.kind, standing);
  return isBack || standing.othersBackInMs < NEVER ? { kind: 'rest', setback } : { kind: 'give_up', setback };
}

/** Until when something of this kind may be waited for. */
export function endOf(
  kind: Setback['kind'],
  { remainingMs, untilDeadlineMs }: Pick<CallStanding, 'remainingMs' | 'untilDeadlineMs'>,
): number {
  return kind === 'budget' ? untilDeadlineMs : remainingMs;
}

function noRoom(failure: BudgetExceededDetails, backInMs = NEVER): Setback {
  return { kind: 'budget', reason: `no room in the ${toBudgetName(failure)}`, backInMs };
}

function waitForHolds(outcome: Extract<CallOutcome, { kind: 'held' }>, standing: CallStanding): NextMove {
  const { heldWaitLeftMs, heldWaitOver, remainingMs } = standing;
  if (heldWaitOver)
    return standing.isFallback
      ? setBack(noRoom(outcome.failure), standing)
      : { kind: 'fail', failure: outcome.failure };
  if (heldWaitLeftMs <= 0) return { kind: 'look_again' };
  const ms = Math.min(outcome.ms, heldWaitLeftMs, Math.max(0, remainingMs));
  return { kind: 'sleep', ms, limit: outcome.limit };
}

function waitForWindow(
  { ms, limit, failure }: Extract<CallOutcome, { kind: 'budget_wait' }>,
  standing: CallStanding,
): NextMove {
  // What is larger than the whole limit fits into no window.
  const isOver = ms >= standing.untilDeadlineMs || isLargerThanLimit(failure);
  if (standing.isFallback) return setBack(noRoom(failure, isOver ? NEVER : ms), standing);
  return isOver ? { kind: 'fail', failure } : { kind: 'sleep', ms, limit };
}

function waitOrMove(outcome: Extract<CallOutcome, { kind: 'wait' }>, standing: CallStanding): NextMove {
  const { ms, limit, reason } = outcome;
  const { remainingMs, candidatesLeft, othersBackInMs, shortHintMs } = standing;
  const isInTime = ms < remainingMs;
  // Back-pressure slows down and refuses nobody: it takes no more than half of what time there is.
  if (reason === 'backpressure')
    return { kind: 'sleep', ms: isInTime ? ms : Math.max(0, Math.floor(remainingMs / 2)), limit };
  const isTooLong = !isInTime || (reason === 'provider_limit' && ms > shortHintMs);
  if (isTooLong && (candidatesLeft > 0 || othersBackInMs < (isInTime ? ms : NEVER)))
    return setBack({ kind: 'away', reason, backInMs: ms }, standing);
  if (isInTime) return { kind: 'sleep', ms, limit };
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
