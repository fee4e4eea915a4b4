import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { NativeConnection, Worker } from '@temporalio/worker';
import { expect, inject, it } from 'vitest';
import { startSimulatedProvider } from '../dev/simulated-provider/server.ts';
import { createActivities } from '../src/activities/index.ts';
import { createCalls } from '../src/calls/govern.ts';
import { loadConfig } from '../src/config.ts';
import { createApp } from '../src/gateway/app.ts';
import { closingAfter, openParts, type Parts } from '../src/process.ts';
import { eventKeys } from '../src/stores/keys.ts';
import { folderWith } from './config/overlay.ts';
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
  await using greedy = await startGreedyProvider();
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
      OPENAI_API_KEY: 'a-key',
      OPENAI_BASE_URL: greedy.url,
      CB_LLM_FAILURE_THRESHOLD: '3',
      MAX_BACKPRESSURE_DELAY_MS: '20',
      WEIR_BUDGET_DRIFT_INTERVAL: '100ms',
      WEIR_CONFIG_DIR: folderWith({ 'models.yaml': PRICELESS }),
      WEIR_BUDGET_REAPER_INTERVAL: '200ms',
      WEIR_TASK_QUEUE_COUNT_INTERVAL: '100ms',
    },
  });
  await closingAfter(QUIET, async (closers) => {
    const parts = await openParts({ config, kind: 'gateway', log: QUIET }, closers);
    const app = await createApp({
      ...parts,
      client: parts.tasks,
      log: QUIET,
      isStoreAway: () => false,
      settings: { auth: 'off', adminKey: undefined, heartbeatMs: 1_000 },
    });
    closers.push(() => app.close());
    await using _worker = await startWorker(parts, servers.temporal, `${test.schema}-normal`);
    await drive(parts, test);
    const ended = await parts.stores.tasks.list({ limit: 1 });
    // A stream of a task that ended closes by itself.
    await app.inject({
      url: `/api/v1/tasks/${ended[0]?.taskId}/stream`,
      headers: { accept: 'text/event-stream' },
    });

    await eventually(async () => {
      const page = await parts.metrics.registry.metrics();
      if (!page.includes('weir_queue_backlog{')) throw new Error('nobody has counted queues');
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

const PRICELESS =
  'models: {simulated/priceless: {tier: small, contextWindow: 1000, maxOutputTokens: 100, capabilities: []}}\n' +
  'tiers: {large: [simulated/priceless, simulated/large]}';

/** Every kind of end, and the faults that the rarer metrics tell of. */
async function drive(parts: Parts, test: TestStores): Promise<void> {
  const run = async (input: Record<string, unknown>) => {
    const { taskId } = await parts.tasks.start({ userId: 'user', model: 'simulated/small', ...input });
    await parts.tasks.result(taskId).catch(() => undefined /* how it ends is what is measured */);
    return taskId;
  };
  await run({ query: QUERY });
  await run({ query: QUERY, budget: { usd: '0.000001' } });
  await run({ query: QUERY, model: 'simulated/priceless' });
  // Its first candidate is that one.
  await run({ query: QUERY, model: undefined, tier: 'large' });
  // Passed at once, and soft: the call is slowed down.
  const soft = { unit: 'usd', window: 'day', amount: 1n, hard: false, warnAt: 0.8 } as const;
  await parts.stores.limits.set('default', { kind: 'user', id: 'slowed' }, [soft], { by: 'test' });
  await run({ query: QUERY, userId: 'slowed' });
  const throttled = run({ query: faulty({ status: 429, retryAfterMs: 2_000 }) });
  await eventually(async () => {
    if ((await parts.stores.tasks.waitingCount()) === 0) throw new Error('no task waits for the provider');
  });
  // The provider's bucket is blocked for everybody by now.
  await Promise.all([throttled, run({ query: QUERY })]);
  // It reports more output than was asked for, which costs more than was held.
  await run({ query: QUERY, model: 'openai/gpt-5-nano', maxOutputTokens: 1 });
  await superseded(parts, test);
  // Three failures open the breaker.
  await run({ query: faulty({ status: 500, times: 3 }) });
}

/** A newer attempt is known to readers: what an older one still streams is dropped. */
async function superseded(parts: Parts, test: TestStores): Promise<void> {
  const { taskId, runId } = await parts.tasks.start({
    userId: 'user',
    model: 'simulated/small',
    query: faulty({ chunkDelayMs: 100 }),
  });
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
      tokens: parts.calls.tokens,
      rateMeter: parts.metrics.call,
      health: parts.breakers.health,
      meter: parts.metrics.task,
      log: QUIET,
    }),
  });
  const running = worker.run();
  return {
    async [Symbol.asyncDispose]() {
      worker.shutdown();
      await running;
      await connection.close();
    },
  };
}

/** An OpenAI server that counts more output tokens than it was allowed. */
async function startGreedyProvider() {
  const chunk = (fields: object) =>
    `data: ${JSON.stringify({ id: 'x', object: 'chat.completion.chunk', created: 1, model: 'm', ...fields })}\n\n`;
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(
      chunk({ choices: [{ index: 0, delta: { role: 'assistant', content: 'much' }, finish_reason: null }] }),
    );
    response.write(chunk({ choices: [{ index: 0, delta: {}, finish_reason: 'length' }] }));
    response.write(
      chunk({ choices: [], usage: { prompt_tokens: 20, completion_tokens: 90_000, total_tokens: 90_020 } }),
    );
    response.end('data: [DONE]\n\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo; // a TCP server's address is an AddressInfo
  return {
    url: `http://127.0.0.1:${port}/v1`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
