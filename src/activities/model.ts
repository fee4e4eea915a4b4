// `callModel`: one visit of a governed call, with Temporal's context around it. Nothing of the call itself lives here.

import { CancelledFailure, Context } from '@temporalio/activity';
import type { CallRequest } from '../calls/call.ts';
import { CallAborted, type Calls } from '../calls/govern.ts';
import type { Logger } from '../log.ts';
import type { Events } from '../stores/events.ts';
import type { Tasks } from '../stores/tasks.ts';
import type { CallOutcome } from '../task/decision.ts';
import type { EventDraft } from '../task/event.ts';
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
  readonly candidate: number;
  readonly visit: number;
  readonly maxOutputTokens: number;
  readonly heldWaits: number;
  /** ISO 8601. */
  readonly endsAt: string;
};

export type ModelActivityDependencies = {
  readonly calls: Calls;
  readonly tasks: Pick<Tasks, 'messages' | 'note'>;
  readonly events: Pick<Events, 'append'>;
  readonly log: Logger;
};

export function createModelActivities({ calls, tasks, events, log }: ModelActivityDependencies) {
  return {
    /** Answers the visit's outcome; throws what Temporal tries again on the same candidate, or the cancellation. */
    async callModel(input: CallModelInput): Promise<CallOutcome> {
      const context = Context.current();
      const { attempt, activityId } = context.info;
      const task = { taskId: input.taskId, runId: input.runId, tenantId: input.tenantId };
      context.heartbeat({ outputTokens: 0 });
      try {
        const { messages, temperature, responseFormat } = await tasks.messages(input.taskId);
        const request: CallRequest = {
          callKey: input.callKey,
          stepId: input.stepId,
          payer: {
            tenantId: input.tenantId,
            userId: input.userId,
            sessionId: input.sessionId,
            taskId: input.taskId,
          },
          task,
          model: input.model,
          number: { candidate: input.candidate, visit: input.visit, attempt },
          messages,
          maxOutputTokens: input.maxOutputTokens,
          temperature,
          responseFormat,
          heldWaits: input.heldWaits,
          remainingMs: Date.parse(input.endsAt) - Date.now(),
        };
        const outcome = await calls.visit(request, {
          owner: `activity ${input.taskId}/${input.runId}/${activityId}/${attempt}`,
          signal: context.cancellationSignal,
          abortReason: () =>
            context.cancellationDetails?.cancelRequested === true ? 'cancelled' : 'handover',
          beat: (outputTokens) => context.heartbeat({ outputTokens }),
        });
        await show(input, outcome);
        return outcome;
      } catch (error) {
        if (context.cancellationSignal.aborted || isCancelled(error))
          throw new CancelledFailure('the call was cancelled');
        if (attempt > 1)
          log.warn('model call failed again', { taskId: input.taskId, attempt, model: input.model, error });
        throw toRetryable(error);
      }
    },
  };

  /** What a waiting or refused call tells its readers. Shown, never decisive: a failure here loses no outcome. */
  async function show(input: CallModelInput, outcome: CallOutcome): Promise<void> {
    const event = toEvent(input, outcome);
    if (event === undefined) return;
    const { taskId, runId, tenantId } = input;
    try {
      if (outcome.kind === 'wait' || outcome.kind === 'held') {
        const until = new Date(Date.now() + outcome.ms).toISOString();
        await tasks.note(taskId, runId, {
          status: 'waiting',
          phase: 'waiting',
          waiting: { reason: outcome.limit, until },
        });
      }
      await events.append({ taskId, runId, tenantId }, [event]);
    } catch (error) {
      log.warn('the outcome of a visit could not be shown', { taskId, outcome: outcome.kind, error });
    }
  }
}

function isCancelled(error: unknown): boolean {
  return error instanceof CallAborted && error.by === 'cancelled';
}

function toEvent(input: CallModelInput, outcome: CallOutcome): EventDraft | undefined {
  const common = { stepId: input.stepId, callKey: input.callKey };
  const id = `${input.callKey}#${input.candidate}.${input.visit}:${outcome.kind}`;
  switch (outcome.kind) {
    case 'wait':
    case 'held':
      return {
        ...common,
        id,
        type: 'rate_wait',
        message: outcome.limit,
        data: { ms: outcome.ms, reason: outcome.kind === 'held' ? 'held' : outcome.reason },
      };
    case 'refuse':
      return outcome.failure.type === 'BudgetExceeded'
        ? { ...common, id, type: 'budget_refused', data: { ...outcome.failure } }
        : undefined;
    case 'completed':
    case 'unavailable':
      return undefined;
    default:
      return outcome satisfies never;
  }
}
