// How many tasks wait in Temporal's queues for a worker. Asks the server alone; it counts by itself and answers from memory.

import type { Connection } from '@temporalio/client';
import { PRIORITIES, type Priority } from '../task/input.ts';
import { priorityOfKey, toQueue } from '../task/priority.ts';
import type { Backlog, QueueCount } from '../task/queue-count.ts';

export type QueueBacklogOptions = {
  readonly namespace: string;
  readonly queuePrefix: string;
  /** For all answers together, in milliseconds. */
  readonly timeoutMs: number;
};

export type QueueBacklog = Omit<QueueCount, 'quotaWaiting'>;

/** Temporal's numbers of the two kinds of queue that share a name. */
const KINDS = { workflows: 1, activities: 2 } as const;

/** All four queues, whether they are in use or not: one without a backlog has zeros. */
export function describeQueues(
  connection: Connection,
  options: QueueBacklogOptions,
): Promise<readonly QueueBacklog[]> {
  return connection.withDeadline(Date.now() + options.timeoutMs, () =>
    Promise.all(PRIORITIES.map((priority) => describeQueue(connection, options, priority))),
  );
}

async function describeQueue(
  connection: Connection,
  { namespace, queuePrefix }: QueueBacklogOptions,
  priority: Priority,
): Promise<QueueBacklog> {
  const queue = toQueue(queuePrefix, priority, true);
  const describe = (taskQueueType: number) =>
    connection.workflowService.describeTaskQueue({
      namespace,
      taskQueue: { name: queue },
      taskQueueType,
      reportStats: true,
    });
  const [workflows, activities] = await Promise.all([describe(KINDS.workflows), describe(KINDS.activities)]);
  return {
    queue,
    priority,
    workflows: toBacklog(workflows.stats),
    activities: toBacklog(activities.stats),
    backlog: byPriority([workflows.statsByPriorityKey, activities.statsByPriorityKey]),
  };
}

type Description = Awaited<ReturnType<Connection['workflowService']['describeTaskQueue']>>;

function toBacklog(stats: Description['stats']): Backlog {
  const age = stats?.approximateBacklogAge;
  return {
    waiting: countOf(stats),
    oldestSeconds: Number(age?.seconds ?? 0) + (age?.nanos ?? 0) / 1e9,
    addedPerSecond: stats?.tasksAddRate ?? 0,
    takenPerSecond: stats?.tasksDispatchRate ?? 0,
  };
}

function byPriority(all: readonly Description['statsByPriorityKey'][]): Record<Priority, number> {
  const counts = { critical: 0, high: 0, normal: 0, low: 0 };
  for (const [key, stats] of all.flatMap((byKey) => Object.entries(byKey ?? {})))
    counts[priorityOfKey(Number(key))] += countOf(stats);
  return counts;
}

/** The server's estimate goes below zero for a moment while tasks are taken. */
function countOf(stats: Description['stats']): number {
  return Math.max(0, Number(stats?.approximateBacklogCount ?? 0));
}
