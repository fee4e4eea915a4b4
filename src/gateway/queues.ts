// The route of queues: what waits for a worker and what waits for a quota, for people and for autoscalers that read JSON.

import { z } from 'zod';
import type { QueuesView, QueueView } from '../client/wire.ts';
import { PRIORITIES } from '../task/input.ts';
import type { QueueCount } from '../task/queue-count.ts';
import { notCounted } from './errors.ts';
import type { App, RouteParts } from './parts.ts';
import { problemAnswer } from './schemas.ts';

const amount = z.number().nonnegative();
const backlog = z
  .object({
    waiting: amount.describe('Tasks that no worker has taken yet'),
    oldestSeconds: amount,
    addedPerSecond: amount,
    takenPerSecond: amount,
  })
  .meta({ id: 'Backlog' });

const queues: z.ZodType<QueuesView> = z
  .object({
    at: z.string().describe('When it was counted'),
    queues: z.array(
      z.object({
        queue: z.string(),
        priority: z.enum(PRIORITIES).describe('Whose slots serve it'),
        backlog: amount.describe('Tasks that wait for a slot: more workers would take them'),
        quotaWaiting: amount.describe('Tasks that wait for a quota: more workers would not help'),
        workflows: backlog,
        activities: backlog,
        byPriority: z.array(
          z.object({ priority: z.enum(PRIORITIES), backlog: amount, quotaWaiting: amount }),
        ),
      }),
    ),
  })
  .meta({ id: 'Queues' });

export function registerQueues(app: App, parts: RouteParts): void {
  app.get(
    '/queues',
    {
      schema: {
        tags: ['operations'],
        summary: 'What waits in each queue, by priority',
        description:
          'Counted every few seconds, over the whole system; approximate, as Temporal counts. 503 while nobody has counted.',
        response: { 200: queues, default: problemAnswer },
      },
    },
    async () => {
      const counts = await parts.stores.queueCounts.read();
      if (counts === undefined) throw notCounted();
      return { at: counts.at, queues: counts.queues.map(toView) };
    },
  );
}

function toView(count: QueueCount): QueueView {
  const { queue, priority, workflows, activities } = count;
  const byPriority = PRIORITIES.map((name) => ({
    priority: name,
    backlog: count.backlog[name],
    quotaWaiting: count.quotaWaiting[name],
  }));
  return {
    queue,
    priority,
    backlog: workflows.waiting + activities.waiting,
    quotaWaiting: byPriority.reduce((sum, one) => sum + one.quotaWaiting, 0),
    workflows,
    activities,
    byPriority,
  };
}
