// What worker and gateway have in common when they are composed: connections behind their breakers, stores, the governed call, and a
// list of what to close. It decides nothing; both roots read top to bottom.

import { Client, Connection, defaultGrpcRetryOptions, makeGrpcRetryInterceptor } from '@temporalio/client';
import { type Breaker, createBreaker, guarded } from './calls/breaker.ts';
import type { CallDependencies } from './calls/call.ts';
import { isProviderFailure } from './calls/govern.ts';
import { pause } from './calls/pause.ts';
import { type RerateRequest, rerate } from './calls/rerate.ts';
import { createSpendBreaker, type SpendBreaker } from './calls/spend-breaker.ts';
import { isTemporalOutage } from './client/outage.ts';
import { createOwnerLife } from './client/owner.ts';
import { rpcMeasuring } from './client/rpc-metrics.ts';
import { ensureSearchAttributes } from './client/search-attributes.ts';
import { createTaskClient } from './client/task-client.ts';
import type { Config } from './config.ts';
import { startHousekeeping } from './housekeeping.ts';
import { countInputTokens, countTokensAsync, estimateInputTokens } from './llm/count.ts';
import { createLanguageModels } from './llm/models.ts';
import { createTaskPlan } from './llm/plan-task.ts';
import type { Logger } from './log.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { ownerLife, startPresence } from './presence.ts';
import { listenForLimitChanges } from './stores/limit-changes.ts';
import { createPostgres, isPostgresOutage, type Postgres } from './stores/postgres.ts';
import type { ProcessKind } from './stores/processes.ts';
import { checkRedis, createRedis, isRedisOutage, type Redis } from './stores/redis.ts';
import { createStores, type Stores } from './stores/stores.ts';

export type Parts = Awaited<ReturnType<typeof openParts>>;

/** Opens everything that both processes need. `closers` are run in reverse; see `closingAfter`. */
export async function openParts(
  { config, kind, log }: { config: Config; kind: ProcessKind; log: Logger },
  closers: Closers,
) {
  const metrics = createMetrics();
  const breakers = createBreakers(config, metrics, log);

  const { postgres, redis } = await openServers(config, log, { breakers, closers });
  const stores = openStores(config, { postgres, redis, metrics, log });
  const presence = startPresence({ kind, processes: stores.processes, log });
  closers.push(async () => presence[Symbol.asyncDispose]());
  const connection = await connectTemporal(config, metrics, log);
  closers.push(() => connection.close());
  const temporal = new Client({ connection, namespace: config.temporal.namespace });
  const searchAttributes = await ensureSearchAttributes(connection, config.temporal.namespace);
  if (!searchAttributes)
    log.warn('tasks run without search attributes: the namespace lacks them and they cannot be added');

  const spendBreaker = createSpendBreaker(config.breakers.budget);
  const limitChanges = listenForLimitChanges(config.postgres, spendBreaker.forget, log);
  closers.push(async () => limitChanges[Symbol.asyncDispose]());
  const calls = createCallDependencies(config, {
    stores,
    metrics,
    breakerOf: breakers.ofModel,
    spendBreaker,
    log,
  });
  const tasks = openTasks(config, temporal, { breaker: breakers.temporal, searchAttributes });
  const housekeeping = startHousekeeping({
    postgres,
    redis,
    stores,
    calls,
    lifeOf: ownerLife(stores.processes, createOwnerLife(temporal, config.call)),
    describe: tasks.describe,
    metrics,
    log,
    reaperIntervalMs: config.budget.reaperIntervalMs,
    returnAfterMs: config.budget.returnAfterMs,
    sweepAfterMs: config.event.sweepAfterMs,
    reconcileIntervalMs: config.task.reconcileIntervalMs,
    driftIntervalMs: config.budget.driftIntervalMs,
    retention: config.retention,
  });
  closers.push(async () => housekeeping[Symbol.asyncDispose]());
  const probes = {
    temporal: async () => {
      await connection.workflowService.getSystemInfo({});
    },
    // Past their breakers: a probe asks the server.
    redis: redis.ping,
    postgres: postgres.ping,
  };
  const rerateAll = (request: RerateRequest) => rerate({ ...calls, rerateRows: stores.rerateRows }, request);
  return {
    metrics,
    breakers,
    stores,
    presence,
    calls,
    rerate: rerateAll,
    tasks,
    probes,
    plan: planOf(config, searchAttributes),
  };
}

function openTasks(
  config: Config,
  temporal: Client,
  { breaker, searchAttributes }: { breaker: Breaker; searchAttributes: boolean },
) {
  const tasks = createTaskClient({
    temporal,
    queuePrefix: config.temporal.queuePrefix,
    priorityQueues: config.worker.priorityQueues,
    searchAttributes,
    rpcTimeoutMs: RPC_TIMEOUT_MS,
  });
  return guarded(tasks, breaker, [
    ...(['start', 'cancel', 'describe', 'failure'] as const),
    ...(['decideApproval', 'raiseBudget', 'budgetChanged'] as const),
  ]);
}

async function openServers(
  config: Config,
  log: Logger,
  { breakers, closers }: { breakers: ReturnType<typeof createBreakers>; closers: Closers },
): Promise<{ postgres: Postgres; redis: Redis }> {
  const postgres = createPostgres(config.postgres, log);
  closers.push(() => postgres.close());
  const redis = createRedis(config.redis, log);
  closers.push(() => redis.close());
  await checkRedis(redis, config.redis);
  return {
    postgres: guarded(postgres, breakers.postgres, ['query', 'transaction']),
    redis: guarded(redis, breakers.redis, ['run', 'command', 'runId', 'nowMs']),
  };
}

/** Somebody waits for each answer; the SDK alone would go on trying for a minute. */
const RPC_TIMEOUT_MS = 5_000;
const CONNECT_FOR_MS = 60_000;
const CONNECT_AGAIN_MS = 500;

/** A process may be started before its server: a refused connection is tried again for a minute. */
async function connectTemporal(config: Config, metrics: Metrics, log: Logger): Promise<Connection> {
  const giveUpAt = performance.now() + CONNECT_FOR_MS;
  // Interceptors that are given replace the client's own retries, so these are given too.
  const interceptors = [makeGrpcRetryInterceptor(defaultGrpcRetryOptions()), rpcMeasuring(metrics.rpc)];
  for (;;) {
    try {
      return await Connection.connect({ ...config.temporal.connection, interceptors });
    } catch (error) {
      if (performance.now() > giveUpAt) throw error;
      log.info('temporal does not answer yet', { address: config.temporal.connection.address, error });
      await pause(CONNECT_AGAIN_MS);
    }
  }
}

export type Closers = (() => Promise<void>)[];

/** Runs the work, then everything it left to close, in reverse order of opening. The work's own error comes first. */
export async function closingAfter(log: Logger, work: (closers: Closers) => Promise<void>): Promise<void> {
  const closers: Closers = [];
  try {
    await work(closers);
  } finally {
    for (const close of closers.toReversed())
      await close().catch((error: unknown) =>
        log.error('a part of the process could not be closed', { error }),
      );
  }
}

function createBreakers(config: Config, metrics: Metrics, log: Logger) {
  const make = (
    name: string,
    settings: Config['breakers']['llm'],
    isFailure: (error: unknown) => boolean,
  ) => {
    metrics.breakerReady(name);
    return createBreaker(name, settings, {
      isFailure,
      onChange: (changed, state) => {
        metrics.breaker(changed, state);
        log.warn('breaker changed', { breaker: changed, state });
      },
    });
  };
  const models = new Map<string, Breaker>();
  return {
    redis: make('redis', config.breakers.redis, isRedisOutage),
    postgres: make('postgres', config.breakers.postgres, isPostgresOutage),
    temporal: make('temporal', config.breakers.temporal, isTemporalOutage),
    ofModel: (model: string): Breaker => {
      const known = models.get(model) ?? make(`llm:${model}`, config.breakers.llm, isProviderFailure);
      models.set(model, known);
      return known;
    },
  };
}

function openStores(
  config: Config,
  { postgres, redis, metrics, log }: { postgres: Postgres; redis: Redis; metrics: Metrics; log: Logger },
): Stores {
  const { providers } = config.limits.rates;
  for (const [provider, rate] of Object.entries(providers))
    for (const [dimension, limit] of Object.entries(rate)) metrics.rateLimit(provider, dimension, limit);
  return createStores(postgres, redis, {
    leaseMs: config.call.leaseMs,
    attemptMs: config.call.attemptMs,
    defaultLimits: config.limits.budgets,
    lostAttempts: config.billing.lostAttempts,
    budget: {
      ...config.budget,
      onMoved: (tenantId, to) => log.warn('budgets of a tenant are held elsewhere now', { tenantId, to }),
    },
    calendar: { zone: config.budget.zone, weekStart: config.budget.weekStart },
    rateOf: (provider) => providers[provider] ?? providers.default,
    events: { ringCapacity: config.event.ringCapacity, onPublished: metrics.published },
  });
}

function createCallDependencies(
  config: Config,
  parts: {
    stores: Stores;
    metrics: Metrics;
    breakerOf: (model: string) => Breaker;
    spendBreaker: SpendBreaker;
    log: Logger;
  },
): CallDependencies {
  const { stores, metrics, breakerOf, spendBreaker, log } = parts;
  return {
    ...stores,
    models: createLanguageModels({
      providers: config.providers,
      onWarning: (warning) => log.warn('a model does not support a part of a request', warning),
    }),
    catalog: { priceHash: config.modelsHash, modelOf: (id) => config.models[id] },
    tokens: { upperBound: estimateInputTokens, closerBound: countInputTokens, count: countTokensAsync },
    breakerOf,
    spendBreaker,
    isOutage: isPostgresOutage,
    pause,
    messagesOf: async ({ taskId }) =>
      taskId === undefined ? undefined : (await stores.tasks.findMessages(taskId))?.messages,
    settings: {
      ...config.call,
      rateControl: config.rate.enabled,
      backpressure: config.budget.backpressure,
      deltaIntervalMs: config.event.deltaIntervalMs,
      deltaBytes: config.event.deltaBytes,
      drainCapMs: config.task.drainCapMs,
      unknownPrice: config.budget.unknownPrice,
      ceiling: { input: config.budget.ceilingInput, output: config.budget.ceilingOutput },
    },
    meter: metrics.call,
    log,
  };
}

function planOf(config: Config, searchAttributes: boolean) {
  const available = (model: string) =>
    config.providers[model.slice(0, model.indexOf('/'))]?.available === true;
  return createTaskPlan({
    models: config.models,
    tiers: config.tiers,
    isAvailable: available,
    taskLimits: config.limits.budgets.task,
    callMaxDurationMs: config.call.maxDurationMs,
    heartbeatTimeoutMs: config.call.heartbeatTimeoutMs,
    heldWaitMs: config.budget.heldWaitMs,
    maxTextBytes: config.task.maxTextBytes,
    priorityQueues: config.worker.priorityQueues,
    searchAttributes,
  });
}
