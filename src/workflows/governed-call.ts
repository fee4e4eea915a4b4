// One logical call as the workflow drives it: visit, act on the outcome, wait in a durable timer, visit again. It decides and waits; it
// never checks, sends or publishes.

import {
  ActivityFailure,
  CancellationScope,
  CancelledFailure,
  isCancellation,
  sleep,
  TimeoutFailure,
  workflowInfo,
} from '@temporalio/workflow';
import type { CallOutcome, TaskSettings } from '../task/decision.ts';
import type { TaskInput } from '../task/input.ts';
import { toCallKey } from '../task/keys.ts';
import { toSummary } from '../task/text.ts';
import { nextMove } from '../task/verdict.ts';
import { taskFailure } from './failure.ts';
import type { Progress } from './progress.ts';
import { activityQueue, modelActivities } from './proxies.ts';

export type CompletedCall = Extract<CallOutcome, { kind: 'completed' }>;

export type GovernedCall = {
  readonly input: TaskInput;
  readonly settings: TaskSettings;
  readonly stepId: string;
  /** Which call of its step, from 1. */
  readonly n: number;
  readonly progress: Progress;
};

/** Drives a call to its answer, or throws the task's typed failure. */
export async function governedCall(call: GovernedCall): Promise<CompletedCall> {
  const { settings, progress } = call;
  const endsAt = Math.min(deadlineOf(call.input), now() + settings.callMaxDurationMs);
  let candidate = 0;
  let heldWaits = 0;
  let waits = 0;
  let heldWaitLeftMs = settings.heldWaitMs;
  for (let visit = 1; ; visit += 1) {
    const model = settings.candidates[candidate] ?? settings.model;
    progress.update({ phase: 'calling', currentStep: call.stepId, waiting: null, model });
    const outcome = await visitOnce(call, { model, candidate, visit, heldWaits, endsAt });
    const move = nextMove(outcome, {
      candidatesLeft: settings.candidates.length - 1 - candidate,
      remainingMs: endsAt - now(),
      heldWaitLeftMs,
    });
    if (outcome.kind === 'completed') return outcome;
    switch (move.kind) {
      case 'fail':
        throw taskFailure(move.failure);
      case 'next_candidate':
        candidate += 1;
        break;
      case 'sleep':
        if (outcome.kind === 'held') {
          heldWaits += 1;
          heldWaitLeftMs -= move.ms;
        }
        if (outcome.kind === 'wait') waits += 1;
        await wait(progress, { ...move, ms: Math.max(move.ms, leastWaitMs(waits)) });
        break;
      case 'done':
        break;
      case 'ask':
        throw taskFailure(move.failure);
      default:
        move satisfies never;
    }
  }
}

async function visitOnce(
  call: GovernedCall,
  at: { model: string; candidate: number; visit: number; heldWaits: number; endsAt: number },
): Promise<CallOutcome> {
  const { input, settings, stepId, n } = call;
  const { workflowId, runId } = workflowInfo();
  const remainingMs = at.endsAt - now();
  if (remainingMs <= 0)
    throw taskFailure({ type: 'DeadlineExceeded', reason: 'no time was left for the call', model: at.model });
  const activities = modelActivities({
    settings,
    // Without the run id: a reset replays it.
    activityId: `${stepId}:${n}:${at.visit}`,
    summary: `${at.model} · ${stepId}${at.visit > 1 ? ` · visit ${at.visit}` : ''}`,
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
      callKey: toCallKey({ taskId: workflowId, runId, stepId, n }),
      stepId,
      model: at.model,
      candidate: at.candidate,
      visit: at.visit,
      maxOutputTokens: settings.maxOutputTokens,
      heldWaits: at.heldWaits,
      heldWaitOver: false,
      onExceeded: settings.onExceeded,
      backpressureMs: 0,
      abort: settings.abort,
      endsAt: new Date(at.endsAt).toISOString(),
    });
  } catch (error) {
    if (!(error instanceof ActivityFailure) || isCancellation(error)) throw error;
    // Temporal gives up retrying when the task is cancelled or the time is over; the failure it then shows is the last attempt's.
    if (CancellationScope.current().consideredCancelled) throw new CancelledFailure('the task was cancelled');
    if (error.cause instanceof TimeoutFailure || error.retryState === 'TIMEOUT')
      throw taskFailure({
        type: 'DeadlineExceeded',
        reason: 'the call did not end in time',
        model: at.model,
      });
    throw error;
  }
}

/**
 * A provider's slot is told exactly, but all who wait for it wake up together and most wait again. Every visit costs eleven events, so
 * that the waits of one call grow: from the third on 1, 2, 4 … at most 15 s, jittered.
 */
function leastWaitMs(waits: number): number {
  if (waits < 3) return 0;
  return Math.min(1_000 * 2 ** (waits - 3), 15_000) * (0.75 + Math.random() / 2);
}

async function wait(progress: Progress, move: { ms: number; limit: string }): Promise<void> {
  progress.update({
    phase: 'waiting',
    waiting: { reason: move.limit, until: new Date(now() + move.ms).toISOString() },
  });
  await sleep(move.ms, { summary: toSummary(`waits for ${move.limit}`) });
}

function deadlineOf(input: TaskInput): number {
  return input.deadline === undefined ? Number.POSITIVE_INFINITY : Date.parse(input.deadline);
}

/** Milliseconds. In the sandbox this is the time of the workflow task, the same on every replay. */
function now(): number {
  return Date.now();
}
