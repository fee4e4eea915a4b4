// Counts what waits in all queues: for a slot, as Temporal tells it, and for a quota, as the rows of tasks tell it. Housekeeping runs it in
// one process at a time.

import type { QueueBacklog } from './client/queue-backlog.ts';
import type { QueueCountStore } from './stores/queue-counts.ts';
import { PRIORITIES, type Priority } from './task/input.ts';

export type CountQueuesParts = {
  readonly queueCounts: Pick<QueueCountStore, 'quotaWaiting' | 'write'>;
  readonly describeQueues: () => Promise<readonly QueueBacklog[]>;
  /** Off: all tasks come back to the queue `normal`. */
  readonly priorityQueues: boolean;
};

export async function countQueues({
  queueCounts,
  describeQueues,
  priorityQueues,
}: CountQueuesParts): Promise<void> {
  const [backlogs, waiting] = await Promise.all([describeQueues(), queueCounts.quotaWaiting()]);
  const isHome = (queue: Priority, priority: Priority) => queue === (priorityQueues ? priority : 'normal');
  await queueCounts.write(
    backlogs.map((backlog) => {
      const share = (priority: Priority) => (isHome(backlog.priority, priority) ? waiting[priority] : 0);
      const [critical, high, normal, low] = PRIORITIES.map(share) as [number, number, number, number]; // one for each
      return { ...backlog, quotaWaiting: { critical, high, normal, low } };
    }),
  );
}
