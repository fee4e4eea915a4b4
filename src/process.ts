// What worker and gateway have in common when they are composed: connections behind their breakers, stores, the governed call, and a
// list of what to close. It decides nothing; both roots read top to bottom.

import { Client, Connection, defaultGrpcRetryOptions, makeGrpcRetryInterceptor } from '@temporalio/client';
import type { Breaker } from './calls/breaker.ts';
import { type CallDependencies, providerOf } from './calls/call.ts';
import { createCatalogs } from './calls/catalog.ts';
import { createDeltaRoom } from './calls/delta-room.ts';
import { foreseeCall } from './calls/estimate.ts';
import { guarded } from './calls/guarded.ts';
import { pause } from './calls/pause.ts';
import { type RerateRequest, rerate } from './calls/rerate.ts';
import { createSpendBreaker, type SpendBreaker } from './calls/spend-breaker.ts';
import { createOwnerLife } from './client/owner.ts';
import { describeQueues } from './client/queue-backlog.ts';
import { rpcMeasuring } from './client/rpc-metrics.ts';
import { ensureSearchAttributes } from './client/search-attributes.ts';
import { createTaskClient } from './client/task-client.ts';
import { CONFIG_FILES, type LiveConfig, liveFields } from './config/live-config.ts';
import { createRateRules, toRateClasses } from './config/rate-rules.ts';
import { type Config, planOfTenant } from './config.ts';
import { type EventsRedis, openEventsRedis } from './events-redis.ts';
import { type Housekeeping, type HousekeepingOptions, startHousekeeping } from './housekeeping.ts';
import { createTurns } from './llm/candidates.ts';
import { countInputTokens, countTokensAsync, estimateInputTokens } from './llm/count.ts';
import { createLanguageModels } from './llm/models.ts';
import { createTaskPlan } from './llm/plan-task.ts';
import type { Logger } from './log.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { startPersisting } from './persist-events.ts';
import { ownerLife, startPresence } from './presence.ts';
import { createProcessBreakers, openModelBreakers, type ProcessBreakers } from './process-breakers.ts';
import { guardPostgres } from './stores/guarded-postgres.ts';
import { listenForLimitChanges } from './stores/limit-changes.ts';
import { createPostgres, isPostgresOutage, type Postgres } from './stores/postgres.ts';
import type { ProcessKind } from './stores/processes.ts';
import { checkRedis, createRedis, type Redis } from './stores/redis.ts';
import { createStores, type Stores } from './stores/stores.ts';
import type { TaskInput } from './task/input.ts';
import { wakeParked } from './wake-parked.ts';

export type Parts = Awaited<ReturnType<typeof openParts>>;

export type PartsOptions = {
  readonly config: Config;
  /** Left out: the configuration stays as it is. */
  readonly onReload?: LiveConfig['onReload'];
  readonly kind: ProcessKind;
  readonly log: Logger;
};

/**
 * Opens everything that both processes need. `closers` are run in reverse; see `closingAfter`. The sections of the configuration that
 * may change under way (config/live-config.ts) are read where they are used, never kept.
 */
export async function openParts({ config, onReload, kind, log }: PartsOptions, closers: Closers) {
  const metrics = createMetrics();
  metrics.config.ready(CONFIG_FILES);
  const breakers = createProcessBreakers(config, metrics, log);

  const { postgres, redis } = await openServers(config, log, { breakers, closers });
  const ofEvents = await openEventsRedis(config, redis, { breakers, closers, log });
  const ofModels = openModelBreakers(breakers, config, redis);
  closers.push(async () => ofModels[Symbol.asyncDispose]());
  const stores = openStores(config, { postgres, redis, ofEvents, metrics, log });
  closers.push(() => stores.liveFeed.close());
  const presence = startPresence({ kind, processes: stores.processes, log });
  closers.push(async () => presence[Symbol.asyncDispose]());
  const persisting = startPersisting({
    eventLog: stores.eventLog,
    name: presence.owner,
    intervalMs: config.event.logBatchIntervalMs,
    log,
  });
  closers.push(async () => persisting[Symbol.asyncDispose]());
  const connection = await connectTemporal(config, metrics, log);
  closers.push(() => connection.close());
  const temporal = new Client({ connection, namespace: config.temporal.namespace });
  const searchAttributes = await ensureSearchAttributes(connection, config.temporal.namespace);
  if (!searchAttributes)
    log.warn('tasks run without search attributes: the namespace lacks them and they cannot be added');

  const spendBreaker = createSpendBreaker(liveFields(() => config.breakers.budget));
  const limitChanges = listenForLimitChanges(config.postgres, spendBreaker.forget, log);
  closers.push(async () => limitChanges[Symbol.asyncDispose]());
  const calls = createCallDependencies(config, {
    stores,
    metrics,
    breakerOf: ofModels.of,
    spendBreaker,
    log,
  });
  const tasks = openTasks(config, temporal, { breaker: breakers.temporal, searchAttributes });
  onReload?.((change) => {
    // What a default budget refused says nothing of another one.
    spendBreaker.forget(undefined);
    void wakeParked({ client: tasks, postgres, log }, change);
  });
  const housekeeping = housekeep(config, {
    connection,
    temporal,
    postgres,
    redis,
    stores,
    calls,
    tasks,
    metrics,
    log,
  });
  closers.push(async () => housekeeping[Symbol.asyncDispose]());
  const probes = probesOf({ connection, redis, postgres, ofEvents });
  const turnOf = createTurns();
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
    plan: (input: TaskInput) => planOf(config, searchAttributes, { calls, turnOf })(input),
  };
}

/** Past the breakers: a probe asks the server. */
function probesOf(
  parts: { connection: Connection; ofEvents: EventsRedis } & Record<
    'redis' | 'postgres',
    Pick<Redis, 'ping'>
  >,
) {
  const { connection, redis, postgres, ofEvents } = parts;
  return {
    temporal: async () => {
      await connection.workflowService.getSystemInfo({});
    },
    redis: redis.ping,
    postgres: postgres.ping,
    ...(ofEvents.probe === undefined ? {} : { redisEvents: ofEvents.probe }),
  };
}

function housekeep(
  config: Config,
  parts: Pick<HousekeepingOptions, 'postgres' | 'redis' | 'stores' | 'calls' | 'metrics' | 'log'> & {
    readonly connection: Connection;
    readonly temporal: Client;
    readonly tasks: ReturnType<typeof openTasks>;
  },
): Housekeeping {
  const { connection, temporal, tasks, ...rest } = parts;
  const { namespace, queuePrefix } = config.temporal;
  return startHousekeeping({
    ...rest,
    lifeOf: ownerLife(rest.stores.processes, createOwnerLife(temporal, config.call)),
    describe: tasks.describe,
    describeQueues: () => describeQueues(connection, { namespace, queuePrefix, timeoutMs: RPC_TIMEOUT_MS }),
    priorityQueues: config.worker.priorityQueues,
    queueCountIntervalMs: config.task.queueCountIntervalMs,
    reaperIntervalMs: config.budget.reaperIntervalMs,
    returnAfterMs: config.budget.returnAfterMs,
    sweepAfterMs: config.event.sweepAfterMs,
    reconcileIntervalMs: config.task.reconcileIntervalMs,
    driftIntervalMs: config.budget.driftIntervalMs,
    retention: config.retention,
  });
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
    fairnessWeightOf: fairnessWeights(config),
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
  { breakers, closers }: { breakers: ProcessBreakers; closers: Closers },
): Promise<{ postgres: Postgres; redis: Redis }> {
  const postgres = createPostgres(config.postgres, log);
  closers.push(() => postgres.close());
  const redis = createRedis(config.redis, log);
  closers.push(() => redis.close());
  await checkRedis(redis, config.redis);
  return {
    postgres: guardPostgres(postgres, breakers.postgres),
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

function openStores(
  config: Config,
  parts: { postgres: Postgres; redis: Redis; ofEvents: EventsRedis; metrics: Metrics; log: Logger },
): Stores {
  const { postgres, redis, ofEvents, metrics, log } = parts;
  // So that the first loss is seen as one.
  for (const provider of Object.keys(config.providers)) metrics.bookingsLost(provider, 0);
  return createStores(postgres, redis, {
    leaseMs: config.call.leaseMs,
    attemptMs: config.call.attemptMs,
    defaultLimits: liveFields(() => config.limits.budgets),
    lostAttempts: config.billing.lostAttempts,
    budget: {
      ...config.budget,
      onMoved: (tenantId, to) => log.warn('budgets of a tenant are held elsewhere now', { tenantId, to }),
    },
    calendar: { zone: config.budget.zone, weekStart: config.budget.weekStart },
    rates: {
      rules: createRateRules(config),
      classes: toRateClasses(config),
      onBookingsLost: metrics.bookingsLost,
    },
    models: () =>
      Object.keys(config.models).filter((model) => config.providers[providerOf(model)]?.available),
    events: {
      ringCapacity: config.event.ringCapacity,
      liveCapacity: config.event.liveCapacity,
      keepsDeltas: () => !ofEvents.memory.isTight(),
      onPublished: metrics.published,
    },
    eventLog: {
      batchSize: config.event.logBatchSize,
      onRefused(refused) {
        metrics.eventLog.refused();
        log.error('an entry of the event log was refused and given up', { ...refused });
      },
    },
    eventsRedis: ofEvents.redis,
    liveFeed: {
      coalesceMs: config.event.coalesceMs,
      backlogEvents: config.event.readerBacklogEvents,
      backlogBytes: config.event.readerBacklogBytes,
      log,
    },
    maxQueued: config.task.maxQueued,
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
  const catalogOfNow = createCatalogs(() => config);
  return {
    ...stores,
    deltaRoom: createDeltaRoom(),
    models: createLanguageModels({
      get providers() {
        return config.providers;
      },
      canReason: (model) => config.models[model]?.capabilities.includes('reasoning') === true,
      cachePrompts: config.routing.promptCache,
      onWarning: (warning) => log.warn('a model does not support a part of a request', warning),
    }),
    get catalog() {
      return catalogOfNow();
    },
    tokens: { upperBound: estimateInputTokens, closerBound: countInputTokens, count: countTokensAsync },
    breakerOf,
    spendBreaker,
    isOutage: isPostgresOutage,
    pause,
    messagesOf: async ({ taskId }) =>
      taskId === undefined ? undefined : (await stores.tasks.findMessages(taskId))?.messages,
    settings: {
      ...config.call,
      shortHintMs: config.routing.shortHintMs,
      rateControl: true,
      backpressure: config.budget.backpressure,
      deltaIntervalMs: config.event.deltaIntervalMs,
      deltaBytes: config.event.deltaBytes,
      deltaFlushMs: config.event.deltaFlushMs,
      drainCapMs: config.task.drainCapMs,
      unknownPrice: config.budget.unknownPrice,
      ceiling: { input: config.budget.ceilingInput, output: config.budget.ceilingOutput },
    },
    meter: metrics.call,
    log,
  };
}

function planOf(
  config: Config,
  searchAttributes: boolean,
  { calls, turnOf }: { calls: CallDependencies; turnOf: ReturnType<typeof createTurns> },
) {
  const available = (model: string) =>
    config.providers[model.slice(0, model.indexOf('/'))]?.available === true;
  return createTaskPlan({
    models: config.models,
    tiers: config.tiers,
    isAvailable: available,
    costOf: (model, { messages, responseFormat }, maxOutputTokens) =>
      foreseeCall(calls, { model, messages, responseFormat, maxOutputTokens }, Date.now())?.nanoUsd,
    turnOf,
    shortHintMs: config.routing.shortHintMs,
    taskLimits: config.limits.budgets.task,
    callMaxDurationMs: config.call.maxDurationMs,
    heartbeatTimeoutMs: config.call.heartbeatTimeoutMs,
    heldWaitMs: config.budget.heldWaitMs,
    maxTextBytes: config.task.maxTextBytes,
    priorityQueues: config.worker.priorityQueues,
    searchAttributes,
    fairnessWeightOf: fairnessWeights(config),
  });
}

function fairnessWeights(config: Config): (tenantId: string) => number {
  return (tenantId) => planOfTenant(config.limits.rates, tenantId).fairnessWeight;
}
