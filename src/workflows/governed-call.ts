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
import type { CallOutcome, LeftBooking, RateDelay, TaskSettings } from '../task/decision.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import type { TaskInput } from '../task/input.ts';
import {
  isDegraded,
  type Journey,
  modelOf,
  nextVisit,
  proceed,
  type Step,
  startJourney,
  wake,
} from '../task/journey.ts';
import { toCallKey } from '../task/keys.ts';
import { toQueuePriority } from '../task/priority.ts';
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
  /** What the task's first call was told to wait before it is made. */
  readonly delay?: RateDelay;
  /** Takes what the call has booked and does not come for. */
  readonly left?: LeftBooking[];
};

/** Drives a call to its answer, or throws the task's typed failure. */
export async function governedCall(call: GovernedCall): Promise<AnsweredCall> {
  const { settings } = call;
  const journey = startJourney(
    {
      candidates: settings.candidates,
      cheaper: settings.cheaper,
      heldWaitMs: settings.heldWaitMs,
      shortHintMs: settings.shortHintMs,
      deadlineMs: deadlineOf(call.input),
      maxDurationMs: settings.callMaxDurationMs,
    },
    now(),
  );
  try {
    return await drive(call, journey);
  } catch (error) {
    // Refused, cancelled or out of time: the call does not come for its place.
    if (journey.place !== undefined) call.left?.push({ callKey: callKeyOf(call), ...journey.place });
    throw error;
  }
}

async function drive(call: GovernedCall, journey: Journey): Promise<AnsweredCall> {
  const { progress, delay } = call;
  if (delay !== undefined) await startDelayed(call, journey, delay);
  for (;;) {
    const seen = call.news.count;
    progress.update({
      phase: 'calling',
      currentStep: call.stepId,
      waiting: null,
      model: modelOf(journey),
    });
    const outcome = await visitOnce(call, journey);
    // A change of limits let the call look again while somebody was asked: it does not need the answer any more.
    if (outcome.kind !== 'ask') await call.approvals.withdraw();
    progress.pressed(outcome);
    if (outcome.kind === 'completed')
      return isDegraded(journey) ? { ...outcome, degradedTo: outcome.model } : outcome;
    await act(call, journey, {
      step: proceed(journey, outcome, { nowMs: now(), random: Math.random }),
      seen,
    });
  }
}

/** What `begin` was told counts as the call's first visit: the wait is the same, and so is what may come of it. */
async function startDelayed(
  call: GovernedCall,
  journey: Journey,
  { ms, limit, isBooked }: RateDelay,
): Promise<void> {
  journey.visits += 1;
  const outcome = { kind: 'wait', reason: 'rate', ms, limit, ...(isBooked && { isBooked }) } as const;
  const step = proceed(journey, outcome, { nowMs: now(), random: Math.random });
  await act(call, journey, { step, seen: call.news.count });
}

/** Brings the call to its next visit, or throws its failure. */
async function act(
  call: GovernedCall,
  journey: Journey,
  { step, seen }: { readonly step: Step; readonly seen: number },
): Promise<void> {
  switch (step.kind) {
    case 'done':
    case 'visit':
      return;
    case 'fail':
      throw taskFailure(step.failure);
    case 'ask':
      return ask(call, journey, { exceeded: step.failure, seen });
    case 'sleep':
      return sleepFor(call, journey, { ...step, seen });
    default:
      step satisfies never;
  }
}

async function ask(
  call: GovernedCall,
  journey: Journey,
  question: { readonly exceeded: BudgetExceededDetails; readonly seen: number },
): Promise<void> {
  const { input, settings, stepId, n, news } = call;
  const callKey = callKeyOf(call);
  const deadlineMs = deadlineOf(input);
  const sinceMs = now();
  await call.approvals.ask({ input, settings, stepId, n, callKey, deadlineMs, ...question });
  wake(journey, { sinceMs, nowMs: now(), isFor: 'person', isNews: news.count !== question.seen });
}

async function sleepFor(
  call: GovernedCall,
  journey: Journey,
  { ms, limit, isFor, seen }: Extract<Step, { kind: 'sleep' }> & { readonly seen: number },
): Promise<void> {
  call.progress.update({
    phase: 'waiting',
    waiting: { reason: limit, until: new Date(now() + ms).toISOString() },
  });
  const sinceMs = now();
  await call.news.wait(ms, { limit, seen });
  wake(journey, { sinceMs, nowMs: now(), isFor, isNews: call.news.count !== seen });
}

async function visitOnce(call: GovernedCall, journey: Journey): Promise<CallOutcome> {
  const { input, settings, stepId, n } = call;
  const { endsAtMs } = journey;
  const { workflowId, runId } = workflowInfo();
  const { model, candidate, visit, fallback, ...visited } = nextVisit(journey, now());
  const remainingMs = endsAtMs - now();
  if (remainingMs <= 0)
    throw taskFailure({ type: 'DeadlineExceeded', reason: 'no time was left for the call', model });
  const activities = modelActivities({
    settings,
    // Without the run id: a reset replays it.
    activityId: `${stepId}:${n}:${visit}`,
    summary: `${model} · ${stepId}${visit > 1 ? ` · visit ${visit}` : ''}`,
    taskQueue: activityQueue(input.priority, settings.priorityQueues),
    priority: toQueuePriority(input.priority, input.tenantId, settings.fairnessWeight),
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
      ...{ model, candidate, visit, priority: input.priority },
      ...visited,
      ...(fallback === undefined ? {} : { fallback }),
      ...(settings.tier === undefined ? {} : { tier: settings.tier }),
      maxOutputTokens: settings.maxOutputTokens,
      onExceeded: settings.onExceeded,
      abort: settings.abort,
      endsAt: new Date(endsAtMs).toISOString(),
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

function callKeyOf({ stepId, n }: GovernedCall): string {
  const { workflowId, runId } = workflowInfo();
  return toCallKey({ taskId: workflowId, runId, stepId, n });
}

function deadlineOf(input: TaskInput): number {
  return input.deadline === undefined ? Number.POSITIVE_INFINITY : Date.parse(input.deadline);
}

/** Milliseconds. In the sandbox this is the time of the workflow task, the same on every replay. */
function now(): number {
  return Date.now();
}
