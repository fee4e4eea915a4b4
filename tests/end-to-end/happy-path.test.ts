import { expect, it } from 'vitest';
import { openFleet } from '../support/fleet.ts';

it('runs a simple task in at most fourteen events and eight kilobytes of history', async () => {
  await using fleet = await openFleet();
  await fleet.startWorker();
  const query =
    'What is a weir? A weir is a low dam across a river. It measures the water that flows over it.';
  const { taskId } = await fleet.tasks.start({ userId: 'user', query });
  const result = await fleet.tasks.result(taskId);
  const history = await fleet.temporal.workflow.getHandle(taskId).fetchHistory();
  expect(history.events?.length).toBeLessThanOrEqual(14);
  const described = await fleet.temporal.workflow.getHandle(taskId).describe();
  expect(Number(described.historySize)).toBeLessThanOrEqual(8 * 1024);
  expect(described.searchAttributes).toMatchObject({
    WeirTenant: ['default'],
    WeirUser: ['user'],
    WeirStatus: ['completed'],
    WeirCostUsd: [Number(result.costUsd)],
  });
});
