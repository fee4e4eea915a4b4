import { NativeConnection, Worker } from '@temporalio/worker';
import { expect, inject, it } from 'vitest';
import { startSimulatedProvider } from '../dev/simulated-provider/server.ts';
import { createActivities } from '../src/activities/index.ts';
import { createCalls } from '../src/calls/govern.ts';
import { loadConfig } from '../src/config.ts';
import { createApp } from '../src/gateway/app.ts';
import { closingAfter, openParts, type Parts } from '../src/process.ts';
import { eventKeys } from '../src/stores/keys.ts';
import { eventually } from './support/eventually.ts';
import { openTestStores, QUIET, type TestStores } from './support/stores.ts';

const QUERY = 'What is a weir? A weir is a low dam across a river.';

/** A fault of the simulated provider, asked for by the prompt; the id makes each one a fault of its own. */
function faulty(fault: Record<string, unknown>): string {
  return `${QUERY} [[sim:${JSON.stringify({ id: crypto.randomUUID(), times: 1, ...fault })}]]`;
}

it('writes every metric it declares while tasks run through the system', { timeout: 90_000 }, async () => {
  await using test = await openTestStores();
  await using provider = await startSimulatedProvider({ firstTokenMs: 100, chunkDelayMs: 20 });
  const servers = inject('servers');
  const config = loadConfig({
    env: {
      TEMPORAL_ADDRESS: servers.temporal,
      DATABASE_URL: servers.postgres,
      REDIS_URL: servers.redis,
      WEIR_POSTGRES_SCHEMA: test.schema,
      WEIR_REDIS_KEY_PREFIX: test.prefix,
      WEIR_QUEUE_PREFIX: test.schema,
      WEIR_AUTH: 'off',
      SIMULATED_BASE_URL: `${provider.url}/v1`,
      CB_LLM_FAILURE_THRESHOLD: '3',
      WEIR_BUDGET_REAPER_INTERVAL: '200ms',
    },
  });
  await closingAfter(QUIET, async (closers) => {
    const parts = await openParts(config, QUIET, closers);
    const app = await createApp({
      ...parts,
      client: parts.tasks,
      log: QUIET,
      isStoreAway: () => false,
      settings: { auth: 'off', adminKey: undefined, heartbeatMs: 1_000 },
    });
    closers.push(() => app.close());
    await using worker = await startWorker(parts, servers.temporal, `${test.schema}-normal`);
    expect(worker.taskQueue).toBe(`${test.schema}-normal`);
    await drive(parts, test);
    const ended = await parts.stores.tasks.list({ limit: 1 });
    // A stream of a task that ended closes by itself.
    await app.inject({
      url: `/api/v1/tasks/${ended[0]?.taskId}/stream`,
      headers: { accept: 'text/event-stream' },
    });

    const declared = await parts.metrics.registry.getMetricsAsJSON();
    const page = await app.inject({ url: '/metrics' });
    const unwritten = declared.filter(
      (metric) => !new RegExp(`^${metric.name}(_count)?[{ ]`, 'm').test(page.body),
    );
    expect(unwritten.map((metric) => metric.name)).toEqual([]);
    expect(declared.length).toBeGreaterThan(20);
  });
});

/** Every kind of end, and the faults that the rarer metrics tell of. */
async function drive(parts: Parts, test: TestStores): Promise<void> {
  const run = async (input: Record<string, unknown>) => {
    const { taskId } = await parts.tasks.start({ userId: 'user', ...input });
    await parts.tasks.result(taskId).catch(() => undefined /* how it ends is what is measured */);
    return taskId;
  };
  await run({ query: QUERY });
  await run({ query: QUERY, budget: { usd: '0.000001' } });
  await run({ query: faulty({ status: 429, retryAfterMs: 400 }) });
  // More output than was asked for costs more than was held.
  await run({ query: faulty({ outputTokens: 50 }), maxOutputTokens: 1 });
  await superseded(parts, test);
  // Three failures open the breaker.
  await run({ query: faulty({ status: 500, times: 3 }) });
}

/** A newer attempt is known to readers: what an older one still streams is dropped. */
async function superseded(parts: Parts, test: TestStores): Promise<void> {
  const { taskId, runId } = await parts.tasks.start({ userId: 'user', query: faulty({ chunkDelayMs: 100 }) });
  const { meta } = eventKeys(test.prefix, taskId);
  await eventually(async () => {
    const head = await parts.stores.events.head(taskId);
    if (head === undefined) throw new Error('the task has no events yet');
  });
  const call = `${taskId}:${runId}:answer:1`;
  await test.redis.command((client) => client.hset(meta, `order:${call}`, Number.MAX_SAFE_INTEGER));
  await parts.tasks.result(taskId);
}

async function startWorker(parts: Parts, address: string, taskQueue: string) {
  const connection = await NativeConnection.connect({ address });
  const worker = await Worker.create({
    connection,
    taskQueue,
    workflowsPath: new URL('../src/workflows/index.ts', import.meta.url).pathname,
    activities: createActivities({
      ...parts.stores,
      calls: createCalls(parts.calls),
      plan: parts.plan,
      meter: parts.metrics.task,
      log: QUIET,
    }),
  });
  const running = worker.run();
  return {
    taskQueue,
    async [Symbol.asyncDispose]() {
      worker.shutdown();
      await running;
      await connection.close();
    },
  };
}
