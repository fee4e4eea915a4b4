import { expect, it } from 'vitest';
import { createTaskClient } from '../../src/client/task-client.ts';
import { PRIORITIES } from '../../src/task/input.ts';
import { type Fleet, openFleet } from '../support/fleet.ts';

const PATIENCE = { timeout: 120_000 };

/** Priorities in the order in which their requests reached the provider; a task's id begins with its priority. */
function orderOf(fleet: Fleet): readonly (string | undefined)[] {
  return fleet.provider.requests().map(({ attemptKey }) => attemptKey?.split('-')[0]);
}

it(
  'serves the more important of what waits in one queue first when the queues are off',
  PATIENCE,
  async () => {
    await using fleet = await openFleet({
      // Long enough for all to have queued while the first one runs.
      provider: { latency: 1_500 },
      env: { PRIORITY_QUEUES: 'off', WORKER_ACT_NORMAL: '1' },
    });
    const { temporal, queuePrefix } = fleet;
    const tasks = createTaskClient({ temporal, queuePrefix, priorityQueues: false, searchAttributes: true });
    const queued = ['low', 'low', 'critical', 'low', 'critical'].map((priority, n) => ({
      taskId: `${priority}-${n}-${queuePrefix}`,
      input: { userId: 'user', query: 'why is the sky blue', model: 'simulated/small', priority },
    }));
    for (const { taskId, input } of queued) await tasks.start(input, taskId);
    await fleet.startWorker();
    await Promise.all(queued.map(({ taskId }) => tasks.result(taskId)));
    expect(orderOf(fleet)).toEqual(['critical', 'critical', 'low', 'low', 'low']);
  },
);

it(
  'polls every queue when they are off, for tasks that were started when they were on',
  PATIENCE,
  async () => {
    await using fleet = await openFleet({ env: { PRIORITY_QUEUES: 'off' } });
    const started = await Promise.all(
      PRIORITIES.map((priority) =>
        fleet.tasks.start({
          userId: 'user',
          query: 'why is the sky blue',
          model: 'simulated/small',
          priority,
        }),
      ),
    );
    await fleet.startWorker();
    for (const { taskId } of started) {
      expect(await fleet.tasks.result(taskId)).toMatchObject({ status: 'completed' });
      const { events } = await fleet.temporal.workflow.getHandle(taskId).fetchHistory();
      const queues = (events ?? []).flatMap(({ activityTaskScheduledEventAttributes: scheduled }) =>
        scheduled?.activityType?.name === 'callModel' ? [scheduled.taskQueue?.name] : [],
      );
      expect(queues).toEqual([`${fleet.queuePrefix}-normal`]);
    }
  },
);
