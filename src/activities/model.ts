// `callModel`: one visit of a governed call, with Temporal's context around it. Nothing of the call itself lives here.

import { CancelledFailure, Context } from '@temporalio/activity';
import type { CallRequest } from '../calls/call.ts';
import type { Calls } from '../calls/govern.ts';
import type { Logger } from '../log.ts';
import type { Events } from '../stores/events.ts';
import type { Tasks, TaskWait } from '../stores/tasks.ts';
import type { ExceededPolicy } from '../task/budget.ts';
import type { CallOutcome } from '../task/decision.ts';
import type { EventDraft } from '../task/event.ts';
import type { AbortPolicy, Priority, Tier } from '../task/input.ts';
import type { Fallback } from '../task/journey.ts';
import { PRIORITY_KEYS, priorityOfKey } from '../task/priority.ts';
import { toRetryable } from './failure.ts';

/** Below 4 KB in history: the conversation is read from Postgres. */
export type CallModelInput = {
  readonly taskId: string;
  readonly runId: string;
  readonly tenantId: string;
  readonly userId: string;
  readonly sessionId?: string;
  readonly callKey: string;
  readonly stepId: string;
  readonly model: string;
  /** Size class that the task asked for. */
  readonly tier?: Tier;
  readonly candidate: number;
  /** Other models that can answer, now or in time; absent: none. */
  readonly candidatesLeft?: number;
  /** Why the call is not at its first model. */
  readonly fallback?: Fallback;
  readonly visit: number;
  /** No visit of the call was made before it. */
  readonly isFirst?: boolean;
  readonly maxOutputTokens: number;
  readonly heldWaits: number;
  /** The call has waited long enough for other calls' holds: what they leave no room for counts as exceeded. */
  readonly heldWaitOver: boolean;
  readonly onExceeded: ExceededPolicy;
  /** Back-pressure that the call has waited for already, in milliseconds: it is served once. */
  readonly backpressureMs: number;
  readonly abort: AbortPolicy;
  /** ISO 8601. */
  readonly endsAt: string;
  /** The fields from here on are absent in old histories. */
  readonly priority?: Priority;
  /** Since when the call waits, by Temporal's clock; in milliseconds since 1970. */
  readonly queuedAtMs?: number;
  /** The call has waited for a place in rate control that was booked for it. */
  readonly isBooked?: boolean;
};

export type QueueMeter = {
  /** How long an attempt was in its queue until a slot was free. */
  slotTaken(slot: { queue: string; priority: string; seconds: number }): void;
};

export type ModelActivityDependencies = {
  readonly calls: Calls;
  readonly tasks: Pick<Tasks, 'findMessages' | 'note'>;
  readonly events: Pick<Events, 'append'>;
  readonly meter?: QueueMeter;
  readonly log: Logger;
  /** Fires when a stopping worker has waited long enough; the SDK tells an activity that was cancelled nothing more. */
  readonly letGo?: AbortSignal;
};

const BEAT_MS = 1_000;
const NEVER = new AbortController().signal;

export function createModelActivities(dependencies: ModelActivityDependencies) {
  const { calls, tasks, events, meter, log, letGo = NEVER } = dependencies;
  return {
    /** Answers the visit's outcome; throws what Temporal tries again on the same candidate, or the cancellation. */
    async callModel(input: CallModelInput): Promise<CallOutcome> {
      const context = Context.current();
      meter?.slotTaken(slotOf(context.info));
      // Remembered: whatever the SDK says of the activity later, nobody will go on with a call that its user has cancelled.
      let isCancelled = false;
      const isCancelRequested = () => {
        isCancelled ||= context.cancellationDetails?.cancelRequested === true;
        return isCancelled;
      };
      context.cancellationSignal.addEventListener('abort', isCancelRequested, { once: true });
      let outputTokens = 0;
      // Through the whole visit, waits for a store or a predecessor included, and on after a cancellation: a call that is drained or
      // detached is alive. What may hang ends by limits of its own.
      const beating = setInterval(() => context.heartbeat({ outputTokens }), BEAT_MS);
      try {
        const request = await toRequest(dependencies, input, context.info.attempt);
        if (input.visit > 1) await show(input, 'running');
        const outcome = await calls.visit(request, {
          owner: `activity ${input.taskId}/${input.runId}/${context.info.activityId}/${context.info.attempt}`,
          signal: context.cancellationSignal,
          seenBefore: tokensOf(context.info.heartbeatDetails),
          abortReason: () => (isCancelRequested() ? 'cancelled' : 'handover'),
          abort: input.abort,
          letGo,
          beat: (tokens) => {
            outputTokens = tokens;
          },
        });
        await show(input, outcome);
        return outcome;
      } catch (error) {
        // Only a cancellation that Temporal asked for may end the activity as cancelled; a stopping worker hands its call over.
        if (isCancelRequested()) throw new CancelledFailure('the call was cancelled');
        const { attempt } = context.info;
        if (attempt > 1)
          log.warn('model call failed again', { taskId: input.taskId, attempt, model: input.model, error });
        throw toRetryable(error);
      } finally {
        clearInterval(beating);
      }
    },
  };

  /** What a waiting or refused call tells its readers. Shown, never decisive: a failure here loses no outcome. */
  async function show(input: CallModelInput, outcome: CallOutcome | 'running'): Promise<void> {
    const { taskId, runId, tenantId } = input;
    try {
      if (outcome === 'running') {
        await tasks.note(taskId, runId, { status: 'running', phase: 'running' });
        const fallback = toFallbackEvent(input);
        if (fallback !== undefined) await events.append({ taskId, runId, tenantId }, [fallback]);
        return;
      }
      const waiting = toWaiting(input, outcome);
      if (waiting !== undefined)
        await tasks.note(taskId, runId, { status: 'waiting', phase: 'waiting', waiting });
      const event = toEvent(input, outcome);
      if (event !== undefined) await events.append({ taskId, runId, tenantId }, [event]);
    } catch (error) {
      log.warn('the state of a call could not be shown', { taskId, error });
    }
  }
}

function toWaiting(input: CallModelInput, outcome: CallOutcome): TaskWait | undefined {
  const until = (ms: number) => new Date(Date.now() + ms).toISOString();
  switch (outcome.kind) {
    case 'wait':
    case 'held':
    case 'budget_wait':
      return { reason: outcome.limit, until: until(outcome.ms), kind: reasonOf(outcome) };
    case 'unavailable': {
      const { model, reason, retryAfterMs } = outcome;
      // With another model left the call goes on there; with none it waits for this one.
      if (retryAfterMs === undefined || (input.candidatesLeft ?? 0) > 0) return undefined;
      return { reason: `${model} (${reason})`, until: until(retryAfterMs), kind: 'unavailable' };
    }
    default:
      return undefined;
  }
}

/** By this machine's clock against the server's; Temporal's core measures the same by the server's alone. */
function slotOf(info: Context['info']) {
  const { taskQueue, priority, currentAttemptScheduledTimestampMs } = info;
  const key = priority?.priorityKey ?? PRIORITY_KEYS.normal;
  const seconds = Math.max(0, Date.now() - currentAttemptScheduledTimestampMs) / 1_000;
  return { queue: taskQueue, priority: priorityOfKey(key), seconds };
}

/** What the attempt before this one told last; it may have died between two renewals of its lease. */
function tokensOf(heartbeat: unknown): number {
  const tokens: unknown =
    typeof heartbeat === 'object' && heartbeat !== null ? Reflect.get(heartbeat, 'outputTokens') : 0;
  return typeof tokens === 'number' ? tokens : 0;
}

/** The conversation comes from Postgres: it never travels through a history. */
async function toRequest(
  { tasks }: ModelActivityDependencies,
  input: CallModelInput,
  attempt: number,
): Promise<CallRequest> {
  const { taskId, runId, tenantId, userId, sessionId, candidate, visit } = input;
  const conversation = await tasks.findMessages(taskId);
  if (conversation === undefined) throw new Error(`task ${taskId} has no row`);
  const { messages, temperature, reasoningEffort, responseFormat } = conversation;
  return {
    callKey: input.callKey,
    stepId: input.stepId,
    payer: { tenantId, userId, sessionId, taskId },
    task: { taskId, runId, tenantId },
    model: input.model,
    tier: input.tier,
    candidatesLeft: input.candidatesLeft,
    fallback: input.fallback,
    isFirst: input.isFirst,
    number: { candidate, visit, attempt },
    messages,
    maxOutputTokens: input.maxOutputTokens,
    temperature,
    reasoningEffort,
    responseFormat,
    heldWaits: input.heldWaits,
    heldWaitOver: input.heldWaitOver,
    onExceeded: input.onExceeded,
    backpressureMs: input.backpressureMs,
    remainingMs: Date.parse(input.endsAt) - Date.now(),
    priority: input.priority,
    queuedAtMs: input.queuedAtMs,
    isBooked: input.isBooked,
  };
}

/** Told with the first visit at another model; which one that is, only the workflow knew. */
function toFallbackEvent(input: CallModelInput): EventDraft | undefined {
  const { stepId, callKey, candidate, visit, model, fallback } = input;
  if (fallback?.since !== visit) return undefined;
  return {
    ...{ stepId, callKey },
    id: `${callKey}#${candidate}.${visit}:fallback`,
    type: 'fallback',
    message: `${model} instead of ${fallback.model}: ${fallback.reason}`,
    data: { from: fallback.model, to: model, reason: fallback.reason },
  };
}

function toEvent(input: CallModelInput, outcome: CallOutcome): EventDraft | undefined {
  const common = { stepId: input.stepId, callKey: input.callKey };
  const id = `${input.callKey}#${input.candidate}.${input.visit}:${outcome.kind}`;
  switch (outcome.kind) {
    case 'wait':
    case 'held':
    case 'budget_wait': {
      const reason = reasonOf(outcome);
      const type = reason === 'backpressure' ? 'backpressure' : 'rate_wait';
      return { ...common, id, type, message: outcome.limit, data: { ms: outcome.ms, reason } };
    }
    case 'degrade':
      return { ...common, id, type: 'degraded', data: { model: input.model, reason: outcome.failure } };
    case 'refuse':
      return outcome.failure.type === 'BudgetExceeded'
        ? { ...common, id, type: 'budget_refused', data: { ...outcome.failure } }
        : undefined;
    case 'unavailable':
      return outcome.reason === 'breaker_open'
        ? { ...common, id, type: 'degraded', ...toBreakerEvent(outcome) }
        : undefined;
    case 'completed':
    // Asking is an activity of its own, with an event of its own.
    case 'ask':
      return undefined;
    default:
      return outcome satisfies never;
  }
}

/** Of a provider's outage the tasks hear that it keeps from a model. */
function toBreakerEvent({ model, reason, retryAfterMs }: Extract<CallOutcome, { kind: 'unavailable' }>) {
  return {
    message: `the breaker of ${model} is open`,
    data: { model, reason, breaker: `llm:${model}`, retryAfterMs },
  };
}

function reasonOf(outcome: Extract<CallOutcome, { kind: 'wait' | 'held' | 'budget_wait' }>): string {
  if (outcome.kind === 'wait') return outcome.reason;
  return outcome.kind === 'held' ? 'held' : 'budget';
}
