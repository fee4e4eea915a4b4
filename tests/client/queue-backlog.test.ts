import { randomBytes } from 'node:crypto';
import { Client, Connection } from '@temporalio/client';
import { expect, inject, it } from 'vitest';
import { describeQueues } from '../../src/client/queue-backlog.ts';
import { createTaskClient } from '../../src/client/task-client.ts';
import { PRIORITIES } from '../../src/task/input.ts';
import { eventually } from '../support/eventually.ts';

const NONE = { critical: 0, high: 0, normal: 0, low: 0 };

async function openTemporal() {
  const connection = await Connection.connect({ address: inject('servers').temporal });
  const temporal = new Client({ connection });
  const queuePrefix = `t-${randomBytes(6).toString('hex')}`;
  const client = (priorityQueues: boolean) =>
    createTaskClient({ temporal, queuePrefix, priorityQueues, searchAttributes: false });
  return {
    client,
    temporal,
    describe: () => describeQueues(connection, { namespace: 'default', queuePrefix, timeoutMs: 5_000 }),
    [Symbol.asyncDispose]: () => connection.close(),
  };
}

const input = (priority: string, tenantId = 'acme') => ({ userId: 'user', query: 'why', priority, tenantId });

it('counts what no worker has taken, by the queue of its priority', async () => {
  await using temporal = await openTemporal();
  const tasks = temporal.client(true);
  for (const priority of ['low', 'low', 'high']) await tasks.start(input(priority));
  const queues = await eventually(async () => {
    const found = await temporal.describe();
    expect(found.map(({ workflows }) => workflows.waiting)).toEqual([0, 1, 0, 2]);
    return found;
  });
  expect(queues.map(({ priority }) => priority)).toEqual(PRIORITIES);
  expect(queues.map(({ backlog }) => backlog)).toEqual([
    NONE,
    { ...NONE, high: 1 },
    NONE,
    { ...NONE, low: 2 },
  ]);
  expect(queues.every(({ activities }) => activities.waiting === 0)).toBe(true);
});

it('tells priorities apart that share one queue', async () => {
  await using temporal = await openTemporal();
  const tasks = temporal.client(false);
  for (const priority of ['low', 'critical', 'low', 'normal']) await tasks.start(input(priority));
  await eventually(async () => {
    const normal = (await temporal.describe()).find(({ priority }) => priority === 'normal');
    expect(normal?.backlog).toEqual({ critical: 1, high: 0, normal: 1, low: 2 });
  });
});

it('has zeros for queues that nobody has used', async () => {
  await using temporal = await openTemporal();
  const queues = await temporal.describe();
  expect(queues.map(({ backlog }) => backlog)).toEqual([NONE, NONE, NONE, NONE]);
  expect(queues.map(({ workflows }) => workflows.oldestSeconds)).toEqual([0, 0, 0, 0]);
});

it('starts a task with the key of its priority and the share of its tenant', async () => {
  await using temporal = await openTemporal();
  const { taskId } = await temporal.client(true).start(input('critical', 'acme'));
  const { raw } = await temporal.temporal.workflow.getHandle(taskId).describe();
  expect(raw.workflowExecutionInfo?.priority).toMatchObject({
    priorityKey: 1,
    fairnessKey: 'acme',
    fairnessWeight: 1,
  });
});
