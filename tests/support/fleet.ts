// Worker processes of one test, against a simulated provider in the test's own process, so that its request log can be read at any
// moment. Workers are real processes: they can be killed.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { bundleWorkflowCode } from '@temporalio/worker';
import { inject } from 'vitest';
import {
  type SimulatedProvider,
  type SimulatedProviderOptions,
  startSimulatedProvider,
} from '../../dev/simulated-provider/server.ts';
import { createTaskClient, type TaskClient } from '../../src/client/task-client.ts';
import { openTestStores, QUIET, type TestStores } from './stores.ts';

export type Fleet = AsyncDisposable & {
  readonly test: TestStores;
  readonly provider: SimulatedProvider;
  readonly tasks: TaskClient;
  readonly temporal: Client;
  readonly queuePrefix: string;
  /** Starts one worker process and resolves when it is ready. */
  startWorker(): Promise<FleetWorker>;
};

export type FleetWorker = {
  readonly pid: number;
  readonly metricsUrl: string;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
};

export type FleetOptions = {
  readonly provider?: SimulatedProviderOptions;
  readonly env?: Readonly<Record<string, string>>;
  /** Instead of the run's shared Temporal server. */
  readonly temporal?: string;
};

/** Everything stops when the fleet is disposed. */
export async function openFleet(options: FleetOptions = {}): Promise<Fleet> {
  const test = await openTestStores();
  const provider = await startSimulatedProvider(options.provider ?? {});
  const folder = await mkdtemp(join(tmpdir(), 'weir-fleet-'));
  const bundle = join(folder, 'workflows.js');
  const { code } = await bundleWorkflowCode({
    workflowsPath: new URL('../../src/workflows/index.ts', import.meta.url).pathname,
    logger: { ...QUIET, log: () => undefined, trace: () => undefined },
  });
  await writeFile(bundle, code);
  const servers = inject('servers');
  const address = options.temporal ?? servers.temporal;
  const connection = await Connection.connect({ address });
  const temporal = new Client({ connection });
  const queuePrefix = test.schema;
  const workers = new Set<ChildProcess>();
  const env = {
    PATH: process.env['PATH'] ?? '',
    HOME: process.env['HOME'] ?? '',
    TEMPORAL_ADDRESS: address,
    DATABASE_URL: servers.postgres,
    REDIS_URL: servers.redis,
    WEIR_POSTGRES_SCHEMA: test.schema,
    WEIR_REDIS_KEY_PREFIX: test.prefix,
    WEIR_QUEUE_PREFIX: queuePrefix,
    WEIR_WORKFLOW_BUNDLE: bundle,
    WEIR_LOG_FORMAT: 'json',
    SIMULATED_BASE_URL: `${provider.url}/v1`,
    METRICS_PORT: '0',
    ...options.env,
  };
  return {
    test,
    provider,
    temporal,
    queuePrefix,
    tasks: createTaskClient({ temporal, queuePrefix, priorityQueues: true, searchAttributes: true }),
    startWorker: () => startWorker(env, workers),
    async [Symbol.asyncDispose]() {
      await Promise.all([...workers].map((worker) => end(worker, 'SIGKILL')));
      await connection.close();
      await provider.close();
      await test[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

const READY = /"worker is ready".*?"metrics":"([^"]+)"/;

function startWorker(env: NodeJS.ProcessEnv, workers: Set<ChildProcess>): Promise<FleetWorker> {
  const path = new URL('../../src/worker.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, [path], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  workers.add(child);
  let output = '';
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null) =>
      reject(new Error(`the worker ended with ${code} while starting:\n${output.slice(-4_000)}`));
    child.once('exit', onExit);
    const read = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-100_000);
      if (process.env['WEIR_TEST_LOGS'] !== undefined) process.stderr.write(chunk);
      const ready = READY.exec(output);
      if (ready?.[1] === undefined) return;
      child.off('exit', onExit);
      resolve({
        pid: child.pid ?? 0,
        metricsUrl: ready[1],
        kill: async () => {
          await end(child, 'SIGKILL');
          workers.delete(child);
        },
        stop: async () => {
          await end(child, 'SIGTERM');
          workers.delete(child);
          return child.exitCode;
        },
      });
    };
    child.stdout?.on('data', read);
    child.stderr?.on('data', read);
  });
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill(signal);
  await gone;
}
