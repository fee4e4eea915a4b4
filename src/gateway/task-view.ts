// A task as the API shows it, from its row, or from Temporal while it has none.

import type { TaskClient, TaskExecution } from '../client/task-client.ts';
import type { TaskLinks, TaskView } from '../client/wire.ts';
import type { TaskRow, Tasks } from '../stores/tasks.ts';
import { failureMessage } from '../task/failure.ts';
import { formatUsd } from '../task/money.ts';
import { isEnded, type TaskStatus } from '../task/status.ts';
import { NO_USAGE_TOTALS } from '../task/usage.ts';

export function linksOf(taskId: string): TaskLinks {
  const self = `/api/v1/tasks/${encodeURIComponent(taskId)}`;
  return { self, events: `${self}/events`, stream: `${self}/stream`, cancel: `${self}/cancel` };
}

export type TaskSources = {
  readonly tasks: Pick<Tasks, 'get'>;
  readonly client: Pick<TaskClient, 'describe' | 'failure'>;
};

/** Undefined when neither Postgres nor Temporal knows the task. */
export async function findTask(sources: TaskSources, taskId: string): Promise<TaskView | undefined> {
  const row = await sources.tasks.get(taskId);
  if (row !== undefined) return toTaskView(row);
  const execution = await sources.client.describe(taskId);
  return execution === undefined ? undefined : toViewOfExecution(sources, taskId, execution);
}

export function toTaskView(row: TaskRow): TaskView {
  // A cancelled task has one where its call was let finish.
  const hasResult =
    row.status === 'completed' ||
    row.status === 'partial' ||
    (row.status === 'cancelled' && row.resultText !== undefined);
  return {
    taskId: row.taskId,
    status: row.status,
    phase: row.phase,
    tenantId: row.tenantId,
    userId: row.userId,
    ...(row.sessionId === undefined ? {} : { sessionId: row.sessionId }),
    strategy: row.strategy,
    priority: row.priority,
    ...(row.tier === undefined ? {} : { tier: row.tier }),
    ...(row.model === undefined ? {} : { model: row.model }),
    createdAt: row.createdAt.toISOString(),
    ...(row.startedAt === undefined ? {} : { startedAt: row.startedAt.toISOString() }),
    ...(row.endedAt === undefined ? {} : { endedAt: row.endedAt.toISOString() }),
    usage: row.usage,
    costUsd: formatUsd(row.nanoUsd),
    ...(row.degradation === undefined ? {} : { degradation: row.degradation }),
    ...(hasResult ? { result: { text: row.resultText ?? '', steps: row.steps } } : {}),
    ...(row.error === undefined ? {} : { error: row.error }),
    ...(row.waiting === undefined || isEnded(row.status) ? {} : { waiting: toWaitView(row.waiting) }),
    links: linksOf(row.taskId),
  };
}

function toWaitView({ reason, until }: NonNullable<TaskRow['waiting']>): NonNullable<TaskView['waiting']> {
  return { reason, ...(until === undefined ? {} : { until }) };
}

/** Started past the gateway: not begun yet, or ended before it could begin. */
async function toViewOfExecution(
  sources: TaskSources,
  taskId: string,
  execution: TaskExecution,
): Promise<TaskView> {
  const status = toStatus(execution.status);
  const details = status === 'failed' ? await sources.client.failure(taskId, execution.runId) : undefined;
  const { tenantId = '', userId = '', sessionId, strategy = 'auto', priority = 'normal' } = execution.given;
  return {
    taskId,
    status,
    phase: status,
    tenantId,
    userId,
    ...(sessionId === undefined ? {} : { sessionId }),
    strategy,
    priority,
    createdAt: execution.startedAt.toISOString(),
    ...(execution.endedAt === undefined ? {} : { endedAt: execution.endedAt.toISOString() }),
    usage: NO_USAGE_TOTALS,
    costUsd: formatUsd(0n),
    ...(status === 'failed' ? { error: toError(execution, details) } : {}),
    links: linksOf(taskId),
  };
}

function toError(
  execution: TaskExecution,
  details: Awaited<ReturnType<TaskSources['client']['failure']>>,
): NonNullable<TaskView['error']> {
  if (details !== undefined) return { type: details.type, message: failureMessage(details), details };
  return { type: 'Lost', message: `the workflow ended as ${execution.status} before the task began` };
}

export function toStatus(status: TaskExecution['status']): TaskStatus {
  switch (status) {
    case 'running':
    case 'continued_as_new':
      return 'queued';
    case 'cancelled':
      return 'cancelled';
    case 'completed':
    case 'failed':
    case 'terminated':
    case 'timed_out':
      return 'failed';
    default:
      return status satisfies never;
  }
}
