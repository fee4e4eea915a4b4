// Closes rows of tasks whose workflow is gone without having said so: terminated, timed out, or never started. Readers of the task get
// their last event and the end of the stream.

import { randomUUID } from 'node:crypto';
import type { TaskExecution } from './client/task-client.ts';
import type { Stores } from './stores/stores.ts';
import type { EventDraft } from './task/event.ts';
import type { EndedStatus } from './task/status.ts';

type Describe = (taskId: string, runId: string | undefined) => Promise<TaskExecution | undefined>;

const TASKS_PER_PASS = 200;

/** One pass; answers how many rows were closed. */
export async function reconcile(
  stores: Pick<Stores, 'tasks' | 'events'>,
  describe: Describe,
  olderThanMs: number,
): Promise<number> {
  let closed = 0;
  const failed: unknown[] = [];
  for (const task of await stores.tasks.open(olderThanMs, TASKS_PER_PASS))
    closed += await closeIfGone(stores, describe, task).catch((error: unknown) => {
      failed.push(error);
      return 0;
    });
  // One task that cannot be asked about keeps no other from its end.
  if (failed.length > 0) throw new AggregateError(failed, `${failed.length} tasks could not be reconciled`);
  return closed;
}

async function closeIfGone(
  stores: Pick<Stores, 'tasks' | 'events'>,
  describe: Describe,
  task: { taskId: string; runId: string | undefined; tenantId: string },
): Promise<number> {
  const execution = await describe(task.taskId, task.runId);
  const end = endOf(execution);
  if (end === undefined) return 0;
  // An id that was never started may be used again: its next end is another one.
  const runId = task.runId ?? execution?.runId ?? `never-started-${randomUUID()}`;
  const events: readonly EventDraft[] = [
    {
      id: `${runId}:reconciled`,
      type: end.status === 'cancelled' ? 'task_cancelled' : 'task_failed',
      message: end.message,
    },
    { id: `${runId}:stream_end`, type: 'stream_end', data: { status: end.status } },
  ];
  const error = { type: 'Lost', message: end.message, details: undefined };
  if (!(await stores.tasks.end({ taskId: task.taskId, runId }, { status: end.status, error }, events)))
    return 0;
  await stores.events.publishPending({ taskId: task.taskId, runId, tenantId: task.tenantId });
  return 1;
}

/** Undefined while the workflow runs, or ended in a way that its own `finish` tells. */
function endOf(execution: TaskExecution | undefined): { status: EndedStatus; message: string } | undefined {
  const status = execution?.status;
  switch (status) {
    case 'running':
    case 'continued_as_new':
      return undefined;
    case 'terminated':
      return { status: 'failed', message: 'the workflow was terminated' };
    case 'timed_out':
      return { status: 'failed', message: 'the workflow timed out' };
    case 'cancelled':
      return { status: 'cancelled', message: 'the workflow was cancelled before it began' };
    case 'completed':
    case 'failed':
      return { status: 'failed', message: `the workflow ${status} without closing its task` };
    case undefined:
      return { status: 'failed', message: 'temporal knows no workflow of this task' };
    default:
      return status satisfies never;
  }
}
