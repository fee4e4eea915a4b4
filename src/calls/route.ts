// A logical call without Temporal: visits its models one after the other, in this process. The one layer that retries there, by the same
// rules as the workflow (task/journey.ts): no cap, no order and no reason is decided here. What it waits for, it waits for while somebody
// holds a connection open, so that its waits are bounded; a durable task has no such bound.

import type { CallOutcome } from '../task/decision.ts';
import type { FailureDetails } from '../task/failure.ts';
import {
  type CallRoute,
  isDegraded,
  type Journey,
  nextVisit,
  proceed,
  type Step,
  startJourney,
  wake,
} from '../task/journey.ts';
import type { CallContext, CallRequest } from './call.ts';
import { AttemptFailed, type Calls } from './govern.ts';

/** What every visit of the call has in common. */
export type RoutedCall = Omit<
  CallRequest,
  | 'model'
  | 'number'
  | 'heldWaits'
  | 'heldWaitOver'
  | 'backpressureMs'
  | 'remainingMs'
  | 'candidatesLeft'
  | 'fallback'
  | 'isFirst'
> & {
  readonly route: CallRoute;
  /** Longest time, in all, that is waited for limits and for models that are away. Milliseconds. */
  readonly maxWaitMs: number;
};

export type RouteOutcome =
  | {
      readonly kind: 'answered';
      readonly outcome: Extract<CallOutcome, { kind: 'completed' }>;
      /** Set where a budget had no room for the model that was asked for. */
      readonly degradedTo?: string;
    }
  /** `canWait`: a durable task would have waited, or asked somebody, instead. */
  | { readonly kind: 'failed'; readonly failure: FailureDetails; readonly canWait: boolean };

export type RouteDependencies = {
  readonly calls: Calls;
  /** Waits in the process; rejects at once when the signal fires. Milliseconds. */
  readonly pause: (ms: number, signal?: AbortSignal) => Promise<void>;
};

const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 8_000;

/**
 * Drives a call to its answer or its failure.
 * @throws CallAborted when the context's signal fired · anything else: a store is down
 */
export async function routeCall(
  { calls, pause }: RouteDependencies,
  call: RoutedCall,
  context: CallContext,
): Promise<RouteOutcome> {
  const journey = startJourney(call.route, Date.now());
  let waitLeftMs = call.maxWaitMs;
  for (;;) {
    const outcome = await visitOnce({ calls, pause }, { ...call, maxWaitMs: waitLeftMs }, context, journey);
    if (outcome.kind === 'completed')
      return {
        kind: 'answered',
        outcome,
        ...(isDegraded(journey) ? { degradedTo: outcome.model } : {}),
      };
    const step = proceed(journey, outcome, { nowMs: Date.now(), random: Math.random });
    if (step.kind === 'fail') return { kind: 'failed', failure: step.failure, canWait: false };
    if (step.kind === 'ask') return { kind: 'failed', failure: step.failure, canWait: true };
    if (step.kind !== 'sleep') continue;
    if (step.ms > waitLeftMs) return { kind: 'failed', failure: toFailure(outcome, step), canWait: true };
    waitLeftMs -= step.ms;
    const sinceMs = Date.now();
    await pause(step.ms, context.signal);
    wake(journey, { sinceMs, nowMs: Date.now(), isFor: step.isFor, isNews: false });
  }
}

/** One visit, with the retries that Temporal makes of a task's. The caps are the visit's own: it stops asking for one at them. */
async function visitOnce(
  { calls, pause }: RouteDependencies,
  call: RoutedCall,
  context: CallContext,
  journey: Journey,
): Promise<CallOutcome> {
  const { route, maxWaitMs: waitLeftMs, ...common } = call;
  // Age counts by a server's clock, and this is none.
  const { candidate, visit, queuedAtMs: _, ...visited } = nextVisit(journey, Date.now());
  const { model } = visited;
  for (let attempt = 1; ; attempt += 1) {
    const remainingMs = journey.endsAtMs - Date.now();
    if (remainingMs <= 0) return noTime('no time was left for the call', model);
    const number = { candidate, visit, attempt };
    try {
      return await calls.visit({ ...common, ...visited, number, remainingMs, waitLeftMs }, context);
    } catch (error) {
      if (!(error instanceof AttemptFailed)) throw error;
      const ms = Math.min(FIRST_RETRY_MS * 2 ** (attempt - 1), LONGEST_RETRY_MS) * (0.75 + Math.random() / 2);
      if (ms >= journey.endsAtMs - Date.now()) return noTime('the call did not end in time', model);
      await pause(ms, context.signal);
    }
  }
}

function noTime(reason: string, model: string): CallOutcome {
  return { kind: 'refuse', failure: { type: 'DeadlineExceeded', reason, model } };
}

/** What a wait is told as that is longer than somebody is kept waiting. */
function toFailure(outcome: CallOutcome, step: Extract<Step, { kind: 'sleep' }>): FailureDetails {
  switch (outcome.kind) {
    case 'held':
    case 'budget_wait':
    case 'ask':
    case 'degrade':
      return outcome.failure;
    case 'refuse':
    case 'unavailable':
      return {
        type: 'NoModelAvailable',
        reason: `the first that is back: ${step.limit}`,
        retryAfterMs: Math.ceil(step.ms),
      };
    case 'wait':
    case 'completed':
      return {
        type: 'RateLimited',
        reason: `the wait for ${step.limit} is longer than this request may take`,
        retryAfterMs: Math.ceil(step.ms),
      };
    default:
      return outcome satisfies never;
  }
}
