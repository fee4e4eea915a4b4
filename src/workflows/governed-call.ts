// One logical call as the workflow drives it: visit, act on the outcome, wait in a durable timer, visit again. It decides and waits; it
// never checks, sends or publishes.

import {
  ActivityFailure,
  CancellationScope,
  CancelledFailure,
  isCancellation,
  TimeoutFailure,
  workflowInfo,
} from '@temporalio/workflow';
import type { CallOutcome, TaskSettings } from '../task/decision.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import type { TaskInput } from '../task/input.ts';
import { toCallKey } from '../task/keys.ts';
import { type CallStanding, nextMove } from '../task/verdict.ts';
import type { ApprovalDesk } from './approvals.ts';
import type { BudgetNews } from './budget-news.ts';
import { taskFailure } from './failure.ts';
import type { Progress } from './progress.ts';
import { activityQueue, modelActivities } from './proxies.ts';

export type AnsweredCall = Extract<CallOutcome, { kind: 'completed' }> & {
  /** The cheaper model that answered, because a budget had no room for the one that was asked for. */
  readonly degradedTo?: string;
};

export type GovernedCall = {
  readonly input: TaskInput;
  readonly settings: TaskSettings;
  readonly stepId: string;
  /** Which call of its step, from 1. */
  readonly n: number;
  readonly progress: Progress;
  readonly news: BudgetNews;
  readonly approvals: ApprovalDesk;
};

/** What a call has been through so far. Times are milliseconds. */
type Journey = {
  /** Candidates, and after them cheaper models. */
  readonly models: readonly string[];
  index: number;
  isDegraded: boolean;
  visit: number;
  waits: number;
  heldWaits: number;
  heldWaitLeftMs: number;
  heldWaitOver: boolean;
  backpressureMs: number;
  /** Since 1970: moves on while the call waits for a window or a person. */
  endsAt: number;
};

/** Drives a call to its answer, or throws the task's typed failure. */
export async function governedCall(call: GovernedCall): Promise<AnsweredCall> {
  const { settings, progress } = call;
  const journey: Journey = {
    models: [...settings.candidates, ...settings.cheaper],
    index: 0,
    isDegraded: false,
    visit: 0,
    waits: 0,
    heldWaits: 0,
    heldWaitLeftMs: settings.heldWaitMs,
    heldWaitOver: false,
    backpressureMs: 0,
    endsAt: Math.min(deadlineOf(call.input), now() + settings.callMaxDurationMs),
  };
  for (;;) {
    journey.visit += 1;
    const seen = call.news.count;
    progress.update({
      phase: 'calling',
      currentStep: call.stepId,
      waiting: null,
      model: modelOf(call, journey),
    });
    const outcome = await visitOnce(call, journey);
    // A change of limits let the call look again while somebody was asked: it does not need the answer any more.
    if (outcome.kind !== 'ask') await call.approvals.withdraw();
    progress.pressed(outcome);
    if (outcome.kind === 'completed')
      return journey.isDegraded ? { ...outcome, degradedTo: outcome.model } : outcome;
    await act(call, journey, { outcome, seen });
  }
}

/** Brings the call to its next visit, or throws its failure. */
async function act(
  call: GovernedCall,
  journey: Journey,
  { outcome, seen }: { readonly outcome: CallOutcome; readonly seen: number },
): Promise<void> {
  const move = nextMove(outcome, standingOf(call, journey));
  switch (move.kind) {
    case 'done':
      return;
    case 'fail':
      throw taskFailure(move.failure);
    case 'next_candidate':
      journey.index += 1;
      if (outcome.kind === 'degrade') journey.isDegraded = true;
      return;
    case 'look_again':
      journey.heldWaitOver = true;
      return;
    case 'ask':
      return ask(call, journey, { exceeded: move.failure, seen });
    case 'sleep':
      return sleepFor(call, journey, { outcome, seen, ...move });
    default:
      move satisfies never;
  }
}

function standingOf({ input, settings }: GovernedCall, journey: Journey): CallStanding {
  const { index, models, endsAt, heldWaitLeftMs, heldWaitOver } = journey;
  const cheaperLeft = models.length - 1 - index;
  const isCheaper = index >= settings.candidates.length;
  return {
    // A model that is away is no reason for a cheaper one, unless the call is among these already.
    candidatesLeft: isCheaper ? cheaperLeft : settings.candidates.length - 1 - index,
    cheaperLeft,
    remainingMs: endsAt - now(),
    untilDeadlineMs: deadlineOf(input) - now(),
    heldWaitLeftMs,
    heldWaitOver,
  };
}

async function ask(
  call: GovernedCall,
  journey: Journey,
  question: { readonly exceeded: BudgetExceededDetails; readonly seen: number },
): Promise<void> {
  const { input, settings, stepId, n } = call;
  const callKey = callKeyOf(call);
  const deadlineMs = deadlineOf(input);
  await parked(call, journey, () =>
    call.approvals.ask({ input, settings, stepId, n, callKey, deadlineMs, ...question }),
  );
}

async function sleepFor(
  call: GovernedCall,
  journey: Journey,
  how: {
    readonly outcome: CallOutcome;
    readonly ms: number;
    readonly limit: string;
    readonly seen: number;
  },
): Promise<void> {
  const { outcome, limit, seen } = how;
  let { ms } = how;
  if (outcome.kind === 'held') {
    journey.heldWaits += 1;
    journey.heldWaitLeftMs -= ms;
  }
  if (outcome.kind === 'wait' && outcome.reason === 'backpressure') journey.backpressureMs += outcome.ms;
  else if (outcome.kind === 'wait') {
    journey.waits += 1;
    ms = Math.max(ms, leastWaitMs(journey.waits));
  }
  call.progress.update({
    phase: 'waiting',
    waiting: { reason: limit, until: new Date(now() + ms).toISOString() },
  });
  const wait = () => call.news.wait(ms, { limit, seen });
  if (outcome.kind !== 'budget_wait') return wait();
  await parked(call, journey, wait);
  // In the next window the holds of others are waited for anew.
  Object.assign(journey, {
    heldWaits: 0,
    heldWaitLeftMs: call.settings.heldWaitMs,
    heldWaitOver: false,
  });
}

/** Time that is spent on a window or a person is none of the call's own. */
async function parked(call: GovernedCall, journey: Journey, wait: () => Promise<void>): Promise<void> {
  const since = now();
  await wait();
  journey.endsAt = Math.min(deadlineOf(call.input), journey.endsAt + now() - since);
}

async function visitOnce(call: GovernedCall, journey: Journey): Promise<CallOutcome> {
  const { input, settings, stepId, n } = call;
  const { visit, endsAt } = journey;
  const { workflowId, runId } = workflowInfo();
  const model = modelOf(call, journey);
  const remainingMs = endsAt - now();
  if (remainingMs <= 0)
    throw taskFailure({ type: 'DeadlineExceeded', reason: 'no time was left for the call', model });
  const activities = modelActivities({
    settings,
    // Without the run id: a reset replays it.
    activityId: `${stepId}:${n}:${visit}`,
    summary: `${model} · ${stepId}${visit > 1 ? ` · visit ${visit}` : ''}`,
    taskQueue: activityQueue(input.priority, settings.priorityQueues),
    scheduleToCloseMs: remainingMs,
  });
  try {
    return await activities.callModel({
      taskId: workflowId,
      runId,
      tenantId: input.tenantId,
      userId: input.userId,
      ...(input.sessionId === undefined ? {} : { sessionId: input.sessionId }),
      callKey: callKeyOf(call),
      stepId,
      model,
      candidate: journey.index,
      visit,
      maxOutputTokens: settings.maxOutputTokens,
      heldWaits: journey.heldWaits,
      heldWaitOver: journey.heldWaitOver,
      onExceeded: settings.onExceeded,
      backpressureMs: journey.backpressureMs,
      abort: settings.abort,
      endsAt: new Date(endsAt).toISOString(),
    });
  } catch (error) {
    throw toVisitFailure(error, model);
  }
}

/** Temporal gives up retrying when the task is cancelled or the time is over; the failure it then shows is the last attempt's. */
function toVisitFailure(error: unknown, model: string): unknown {
  if (!(error instanceof ActivityFailure) || isCancellation(error)) return error;
  if (CancellationScope.current().consideredCancelled) return new CancelledFailure('the task was cancelled');
  if (error.cause instanceof TimeoutFailure || error.retryState === 'TIMEOUT')
    return taskFailure({ type: 'DeadlineExceeded', reason: 'the call did not end in time', model });
  return error;
}

/**
 * A provider's slot is told exactly, but all who wait for it wake up together and most wait again. Every visit costs eleven events, so
 * that the waits of one call grow: from the third on 1, 2, 4 … at most 15 s, jittered.
 */
function leastWaitMs(waits: number): number {
  if (waits < 3) return 0;
  return Math.min(1_000 * 2 ** (waits - 3), 15_000) * (0.75 + Math.random() / 2);
}

function callKeyOf({ stepId, n }: GovernedCall): string {
  const { workflowId, runId } = workflowInfo();
  return toCallKey({ taskId: workflowId, runId, stepId, n });
}

function modelOf({ settings }: GovernedCall, { models, index }: Journey): string {
  return models[index] ?? settings.model;
}

function deadlineOf(input: TaskInput): number {
  return input.deadline === undefined ? Number.POSITIVE_INFINITY : Date.parse(input.deadline);
}

/** Milliseconds. In the sandbox this is the time of the workflow task, the same on every replay. */
function now(): number {
  return Date.now();
}
