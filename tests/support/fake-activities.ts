// Activities of a workflow test: each answers as the test wrote it down, and remembers what it was given.

import {
  ApplicationFailure,
  WorkflowFailedError,
  type WorkflowHandle,
  WorkflowUpdateFailedError,
} from '@temporalio/client';
import { expect } from 'vitest';
import type {
  RaiseBudgetInput,
  RecordDecisionInput,
  RequestApprovalInput,
} from '../../src/activities/approvals.ts';
import type { Activities } from '../../src/activities/index.ts';
import type { CallModelInput } from '../../src/activities/model.ts';
import type { FinishInput } from '../../src/activities/task.ts';
import type { CallOutcome } from '../../src/task/decision.ts';
import { NO_USAGE_TOTALS } from '../../src/task/usage.ts';
import { RUN_TASK, STATUS_QUERY, type TaskStatusReport } from '../../src/workflows/messages.ts';
import { SETTINGS, type WorkflowWorker } from './workflow-worker.ts';

export const USAGE = { ...NO_USAGE_TOTALS, inputTokens: 3, outputTokens: 2 };
export const INPUT = { userId: 'user', query: 'why is the sky blue' };
export const REFUSAL = {
  type: 'BudgetExceeded',
  scope: 'task',
  id: 't',
  unit: 'usd',
  window: 'total',
  limit: '1.00',
  settled: '1.00',
  held: '0.00',
  needed: '0.10',
} as const;

export type Recorded = Activities & {
  readonly calls: CallModelInput[];
  readonly finished: FinishInput[];
  readonly requested: RequestApprovalInput[];
  readonly decided: RecordDecisionInput[];
  readonly raised: RaiseBudgetInput[];
};

export function answer(input: CallModelInput): Extract<CallOutcome, { kind: 'completed' }> {
  return {
    kind: 'completed',
    callKey: input.callKey,
    model: input.model,
    usage: USAGE,
    costUsd: '0.01',
    finishReason: 'stop',
  };
}

export function fakeActivities(overrides: Partial<Activities> = {}): Recorded {
  const recorded = {
    calls: [] as CallModelInput[],
    finished: [] as FinishInput[],
    requested: [] as RequestApprovalInput[],
    decided: [] as RecordDecisionInput[],
    raised: [] as RaiseBudgetInput[],
  };
  return {
    ...recorded,
    begin: overrides.begin ?? (async () => ({ kind: 'go', settings: SETTINGS })),
    async callModel(input) {
      recorded.calls.push(input);
      return overrides.callModel?.(input) ?? answer(input);
    },
    async finish(input) {
      recorded.finished.push(input);
      return overrides.finish?.(input) ?? { text: 'the answer', usage: USAGE, costUsd: '0.01' };
    },
    async requestApproval(input) {
      recorded.requested.push(input);
      await overrides.requestApproval?.(input);
    },
    async recordDecision(input) {
      recorded.decided.push(input);
      const { status, raiseUsd, comment, by = 'weir' } = input;
      return (
        overrides.recordDecision?.(input) ?? {
          ...{ status, by },
          ...(raiseUsd === undefined ? {} : { raiseUsd }),
          ...(comment === undefined ? {} : { comment }),
        }
      );
    },
    async raiseBudget(input) {
      recorded.raised.push(input);
      return (
        overrides.raiseBudget?.(input) ?? {
          kind: 'raised',
          limits: [{ unit: 'usd', window: 'total', amount: '2.00' }],
        }
      );
    },
  };
}

export function start(
  worker: WorkflowWorker,
  input: unknown,
  workflowId = `task-${worker.taskQueue}`,
): Promise<WorkflowHandle> {
  return worker.temporal.workflow.start(RUN_TASK, { workflowId, taskQueue: worker.taskQueue, args: [input] });
}

export function statusOf(handle: WorkflowHandle): Promise<TaskStatusReport> {
  return handle.query<TaskStatusReport>(STATUS_QUERY);
}

export async function failureOf(handle: WorkflowHandle): Promise<ApplicationFailure> {
  const error: unknown = await handle.result().catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(WorkflowFailedError);
  const cause = (error as WorkflowFailedError).cause;
  expect(cause).toBeInstanceOf(ApplicationFailure);
  return cause as ApplicationFailure;
}

/** How a task refuses an update. */
export async function refusalOf(update: Promise<unknown>): Promise<ApplicationFailure> {
  const error: unknown = await update.catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(WorkflowUpdateFailedError);
  const cause = (error as WorkflowUpdateFailedError).cause;
  expect(cause).toBeInstanceOf(ApplicationFailure);
  return cause as ApplicationFailure;
}

/** Summaries of the timers and activities that a task's history holds, in order; words that are none are left out. */
export async function timersOf(handle: WorkflowHandle): Promise<readonly string[]> {
  const { events } = await handle.fetchHistory();
  return (events ?? [])
    .filter((event) => event.timerStartedEventAttributes)
    .map((event) => {
      const summary: unknown = JSON.parse(
        Buffer.from(event.userMetadata?.summary?.data ?? []).toString() || 'null',
      );
      return typeof summary === 'string' ? summary : '';
    });
}
