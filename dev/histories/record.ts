// Records the histories that the replay test checks: one real run of each kind of task, through the embedded stack. Until release 1.0
// a change may record them anew and says so in the CHANGELOG; afterwards changes of workflow code are patched instead.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection, type WorkflowHandle } from '@temporalio/client';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import { createGatewayClient, type GatewayClient } from '../../src/client/gateway-client.ts';
import { createTaskClient, type TaskClient } from '../../src/client/task-client.ts';
import { startStack } from '../stack/stack.ts';

const FOLDER = new URL('../../tests/histories/', import.meta.url);
const PACE = ['--first-token-ms', '100', '--chunk-delay-ms', '100', '--tokens-per-chunk', '2'];
const QUERY = 'What is a weir? A weir is a low dam across a river.';

type Doors = { readonly temporal: Client; readonly gateway: GatewayClient };
type Scene = (client: TaskClient, doors: Doors) => Promise<string>;

/** Room for no call at all. */
const NOTHING = { usd: '0.000001' } as const;

const scenes: Readonly<Record<string, Scene>> = {
  happy: async (client) => ended(client, await client.start({ userId: 'ada', query: QUERY })),
  refused: async (client) =>
    ended(client, await client.start({ userId: 'ada', query: QUERY, budget: { usd: '0.000001' } })),
  retried: async (client) => {
    const marker = `[[sim:{"id":"history-${Date.now()}","status":500,"times":1}]]`;
    return ended(client, await client.start({ userId: 'ada', query: `${QUERY} ${marker}` }));
  },
  throttled: async (client) => {
    const marker = `[[sim:{"id":"history-${Date.now()}","status":429,"retryAfterMs":1200,"times":1}]]`;
    return ended(client, await client.start({ userId: 'ada', query: `${QUERY} ${marker}` }));
  },
  cancelled: async (client) => {
    const started = await client.start({ userId: 'ada', query: QUERY });
    while ((await client.workerPid(started.taskId)) === undefined) await aMoment();
    await client.cancel(started.taskId);
    return ended(client, started);
  },
  detached: async (client) => {
    const started = await client.start({ userId: 'ada', query: QUERY, abort: 'detach' });
    while ((await client.workerPid(started.taskId)) === undefined) await aMoment();
    await client.cancel(started.taskId);
    return ended(client, started);
  },
  approved: async (client) => {
    const started = await client.start({
      userId: 'ada',
      query: QUERY,
      budget: { ...NOTHING, onExceeded: 'ask' },
    });
    const approvalId = await asked(client, started.taskId);
    await client.decideApproval(started.taskId, {
      approvalId,
      decision: 'approve',
      raiseUsd: '0.10',
      by: 'grace',
    });
    return ended(client, started);
  },
  raised: async (client) => {
    const started = await client.start({
      userId: 'ada',
      query: QUERY,
      budget: { ...NOTHING, onExceeded: 'ask' },
    });
    await asked(client, started.taskId);
    await client.raiseBudget(started.taskId, { usd: '0.10', by: 'grace' });
    return ended(client, started);
  },
  'timed-out': async (client) =>
    ended(
      client,
      await client.start({
        userId: 'ada',
        query: QUERY,
        budget: { ...NOTHING, onExceeded: 'ask' },
        approval: { timeoutSeconds: 1 },
      }),
    ),
  degraded: async (client) =>
    ended(
      client,
      await client.start({
        userId: 'ada',
        query: QUERY,
        model: 'simulated/large',
        maxOutputTokens: 1_000,
        budget: { usd: '0.005', onExceeded: 'degrade' },
      }),
    ),
  waited: async (client, { gateway }) => {
    const limit = (amount: string) => [{ unit: 'usd', window: 'month', amount } as const];
    const task = { userId: 'eve', query: QUERY, maxOutputTokens: 60 };
    await gateway.budgets.set('user', 'eve', limit(NOTHING.usd));
    const refused = await client.start(task);
    await ended(client, refused);
    const failure = await client.failure(refused.taskId, refused.runId);
    if (failure?.type !== 'BudgetExceeded') throw new Error('the first task of the scene was not refused');
    // Room for one such call, and not for a second one.
    await gateway.budgets.set('user', 'eve', limit(failure.needed));
    await ended(client, await client.start(task));
    const started = await client.start({ ...task, budget: { onExceeded: 'wait' } });
    while ((await client.status(started.taskId)).phase !== 'waiting') await aMoment();
    await gateway.budgets.set('user', 'eve', limit('1'));
    return ended(client, started);
  },
  // Started by a plain client: ours would not send it.
  invalid: async (client, { temporal }) => {
    const taskId = 'history-invalid';
    await temporal.workflow.start('runTask', {
      workflowId: taskId,
      taskQueue: 'weir-normal',
      args: [{ query: '', extra: 1 }],
    });
    return ended(client, { taskId });
  },
};

async function main(): Promise<void> {
  const stateDir = await mkdtemp(join(tmpdir(), 'weir-histories-'));
  const stack = await startStack({ stateDir, workers: 1, providerArgs: PACE });
  try {
    const connection = await Connection.connect({ address: stack.info.temporal });
    const temporal = new Client({ connection, namespace: stack.info.namespace });
    const client = createTaskClient({
      temporal,
      queuePrefix: 'weir',
      priorityQueues: true,
      searchAttributes: true,
    });
    const gateway = createGatewayClient({ url: stack.info.gateway ?? '' });
    for (const [name, scene] of Object.entries(scenes)) {
      const taskId = await scene(client, { temporal, gateway });
      await writeFile(new URL(`${name}.json`, FOLDER), await toJson(temporal.workflow.getHandle(taskId)));
      process.stdout.write(`recorded ${name}\n`);
    }
    await connection.close();
  } finally {
    await stack.stop();
    await rm(stateDir, { recursive: true, force: true });
  }
}

function aMoment(): Promise<void> {
  return new Promise((next) => setTimeout(next, 50));
}

/** The id of what a task asks, once it does. */
async function asked(client: TaskClient, taskId: string): Promise<string> {
  for (;;) {
    const { pendingApproval } = await client.status(taskId);
    if (pendingApproval !== null) return pendingApproval.approvalId;
    await aMoment();
  }
}

async function ended(client: TaskClient, { taskId }: { taskId: string }): Promise<string> {
  await client.result(taskId).catch(() => undefined /* how it ends is what is recorded */);
  return taskId;
}

/** What names the machine it was recorded on (process, host, folders) is nobody's business and no part of a replay. */
async function toJson(handle: WorkflowHandle): Promise<string> {
  const history: unknown = JSON.parse(historyToJSON(await handle.fetchHistory()));
  const clean = (key: string, value: unknown) => {
    if (key === 'identity') return 'weir';
    if (key === 'stackTrace') return '';
    return typeof value === 'string' ? value.replaceAll(/\b\d+@[\w.-]+/g, 'weir') : value;
  };
  return `${JSON.stringify(history, clean, 1)}\n`;
}

await main();
