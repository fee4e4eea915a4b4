// A gateway of one test on the run's real Postgres and Redis. Temporal is a fake that remembers what it was asked: what matters here is
// what the gateway does with each answer; the real one is in the end-to-end tests.

import type { AddressInfo } from 'node:net';
import { PassThrough } from 'node:stream';
import { createBreakers } from '../../src/calls/breakers.ts';
import { rerate } from '../../src/calls/rerate.ts';
import type { TaskExecution } from '../../src/client/task-client.ts';
import { loadConfig } from '../../src/config.ts';
import { createApp } from '../../src/gateway/app.ts';
import type { App, GatewayParts } from '../../src/gateway/parts.ts';
import { createTaskPlan } from '../../src/llm/plan-task.ts';
import { createLogger } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import { isPostgresOutage } from '../../src/stores/postgres.ts';
import { isRedisOutage } from '../../src/stores/redis.ts';
import type { FailureDetails } from '../../src/task/failure.ts';
import type { ApprovalDecided, BudgetRaised } from '../../src/workflows/messages.ts';
import { callDependencies } from '../support/calls.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { openTestStores, QUIET, type TestStoreOptions, type TestStores } from '../support/stores.ts';

type FakeTemporal = GatewayParts['client'] & {
  readonly started: { readonly input: unknown; readonly taskId: string }[];
  readonly cancelled: string[];
  /** What `describe` answers, by task id. */
  readonly executions: Map<string, Partial<TaskExecution>>;
  readonly failures: Map<string, FailureDetails>;
  /** Updates and signals, in order. */
  readonly told: { readonly taskId: string; readonly what: string; readonly argument: unknown }[];
  /** What a task answers to an update, or throws. */
  answerUpdate: (taskId: string, argument: unknown) => Promise<ApprovalDecided & BudgetRaised>;
  /** Thrown by the next start. */
  refuseStart: Error | undefined;
  /** What `cancel` answers. */
  takesCancel: boolean;
};

export type TestGateway = AsyncDisposable & {
  readonly app: App;
  readonly test: TestStores;
  readonly temporal: FakeTemporal;
  readonly parts: GatewayParts;
  /** Listens on a free port and answers the URL. */
  listen(): Promise<string>;
};

export type TestGatewayOptions = {
  readonly settings?: Partial<GatewayParts['settings']>;
  readonly stores?: TestStoreOptions;
  readonly probes?: GatewayParts['probes'];
  readonly breakers?: GatewayParts['breakers'];
};

export async function openTestGateway(options: TestGatewayOptions = {}): Promise<TestGateway> {
  const test = await openTestStores(options.stores);
  const temporal = createFakeTemporal();
  const metrics = createMetrics();
  const parts: GatewayParts = {
    stores: test.stores,
    client: temporal,
    plan: planLikeShipped(),
    rerate: rerateWith(test),
    probes: options.probes ?? {},
    breakers:
      options.breakers ??
      createBreakers({
        settingsOf: (kind) => loadConfig({ env: {} }).breakers[kind],
        meter: metrics,
        log: QUIET,
      }),
    metrics,
    log: createLogger({
      level: 'debug',
      format: 'json',
      service: 'test',
      stream: new PassThrough().resume(),
    }),
    isStoreAway: (error) => isPostgresOutage(error) && isRedisOutage(error),
    settings: { auth: 'off', adminKey: undefined, heartbeatMs: 15_000, ...options.settings },
  };
  const app = await createApp(parts);
  return {
    app,
    test,
    temporal,
    parts,
    async listen() {
      await app.listen({ host: '127.0.0.1', port: 0 });
      const address = app.server.address() as AddressInfo; // it listens on a port
      return `http://127.0.0.1:${address.port}`;
    },
    async [Symbol.asyncDispose]() {
      await app.close();
      await test[Symbol.asyncDispose]();
    },
  };
}

function createFakeTemporal(): FakeTemporal {
  const fake: FakeTemporal = {
    started: [],
    cancelled: [],
    executions: new Map(),
    failures: new Map(),
    refuseStart: undefined,
    takesCancel: true,
    async start(input, taskId = 'task-without-id') {
      if (fake.refuseStart !== undefined) throw fake.refuseStart;
      fake.started.push({ input, taskId });
      return { taskId, runId: 'run-1' };
    },
    async cancel(taskId) {
      fake.cancelled.push(taskId);
      return fake.takesCancel;
    },
    async describe(taskId) {
      const execution = fake.executions.get(taskId);
      if (execution === undefined) return undefined;
      return {
        runId: 'run-1',
        status: 'running',
        startedAt: new Date(0),
        endedAt: undefined,
        given: {},
        ...execution,
      };
    },
    failure: async (taskId) => fake.failures.get(taskId),
    async decideApproval(taskId, decision) {
      fake.told.push({ taskId, what: 'decideApproval', argument: decision });
      return fake.answerUpdate(taskId, decision);
    },
    async raiseBudget(taskId, raise) {
      fake.told.push({ taskId, what: 'raiseBudget', argument: raise });
      return fake.answerUpdate(taskId, raise);
    },
    async budgetChanged(taskId) {
      fake.told.push({ taskId, what: 'budgetChanged', argument: undefined });
      return fake.takesCancel;
    },
    answerUpdate: async () => {
      throw new Error('the test did not say what the task answers');
    },
    told: [],
  };
  return fake;
}

export function planLikeShipped(): GatewayParts['plan'] {
  const { models, tiers, limits, call, budget, task, worker, routing } = loadConfig({
    env: { SIMULATED_BASE_URL: 'http://127.0.0.1:9/v1' },
  });
  return createTaskPlan({
    models,
    tiers,
    isAvailable: (model) => model.startsWith('simulated/'),
    shortHintMs: routing.shortHintMs,
    taskLimits: limits.budgets.task,
    callMaxDurationMs: call.maxDurationMs,
    heartbeatTimeoutMs: call.heartbeatTimeoutMs,
    heldWaitMs: budget.heldWaitMs,
    maxTextBytes: task.maxTextBytes,
    priorityQueues: worker.priorityQueues,
    searchAttributes: true,
  });
}

export function rerateWith(test: TestStores): GatewayParts['rerate'] {
  const dependencies = {
    ...callDependencies(test, createFakeModels([])),
    rerateRows: test.stores.rerateRows,
  };
  return (request) => rerate(dependencies, request);
}
