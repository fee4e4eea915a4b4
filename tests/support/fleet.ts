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
import { openTestStores, QUIET, type Servers, type TestStores } from './stores.ts';

export type Fleet = AsyncDisposable & {
  readonly test: TestStores;
  readonly provider: SimulatedProvider;
  readonly tasks: TaskClient;
  readonly temporal: Client;
  readonly queuePrefix: string;
  readonly configDir: string | undefined;
  /** What clients in other processes need, to join. */
  readonly temporalAddress: string;
  /** Starts one worker process, with variables of its own, and resolves when it is ready. */
  startWorker(env?: Readonly<Record<string, string>>): Promise<FleetWorker>;
};

export type FleetWorker = {
  readonly pid: number;
  readonly metricsUrl: string;
  /** The exit code, null after a signal; pending while it lives. */
  readonly exited: Promise<number | null>;
  /** The last of what it wrote. */
  output(): string;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
  /** SIGSTOP: it keeps its sockets and does nothing, until `thaw`. */
  freeze(): void;
  thaw(): void;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
};

export type FleetOptions = {
  readonly provider?: SimulatedProviderOptions;
  readonly env?: Readonly<Record<string, string>>;
  /** Files of a configuration folder, laid over the shipped ones. */
  readonly config?: Readonly<Record<string, string>>;
  /** Instead of the run's shared ones. */
  readonly servers?: Partial<Servers>;
};

/** Everything stops when the fleet is disposed. */
export async function openFleet(options: FleetOptions = {}): Promise<Fleet> {
  const servers = { ...inject('servers'), ...options.servers };
  const test = await openTestStores({}, servers);
  const provider = await startSimulatedProvider(options.provider ?? {});
  const folder = await mkdtemp(join(tmpdir(), 'weir-fleet-'));
  const bundle = join(folder, 'workflows.js');
  const { code } = await bundleWorkflowCode({
    workflowsPath: new URL('../../src/workflows/index.ts', import.meta.url).pathname,
    logger: { ...QUIET, log: () => undefined, trace: () => undefined },
  });
  await writeFile(bundle, code);
  for (const [name, text] of Object.entries(options.config ?? {})) await writeFile(join(folder, name), text);
  const connection = await Connection.connect({ address: servers.temporal });
  const temporal = new Client({ connection });
  const queuePrefix = test.schema;
  const workers = new Set<ChildProcess>();
  const env = {
    PATH: process.env['PATH'] ?? '',
    HOME: process.env['HOME'] ?? '',
    TEMPORAL_ADDRESS: servers.temporal,
    DATABASE_URL: servers.postgres,
    REDIS_URL: servers.redis,
    WEIR_POSTGRES_SCHEMA: test.schema,
    WEIR_REDIS_KEY_PREFIX: test.prefix,
    WEIR_QUEUE_PREFIX: queuePrefix,
    WEIR_WORKFLOW_BUNDLE: bundle,
    ...(options.config === undefined ? {} : { WEIR_CONFIG_DIR: folder }),
    WEIR_LOG_FORMAT: 'json',
    SIMULATED_BASE_URL: `${provider.url}/v1`,
    METRICS_PORT: '0',
    ...options.env,
  };
  return {
    test,
    provider,
    temporal,
    temporalAddress: servers.temporal,
    queuePrefix,
    configDir: options.config === undefined ? undefined : folder,
    tasks: createTaskClient({ temporal, queuePrefix, priorityQueues: true, searchAttributes: true }),
    startWorker: (own) => startWorker({ ...env, ...own }, workers),
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
    const onExit = (code: number | null) => {
      workers.delete(child);
      reject(new Error(`the worker ended with ${code} while starting:\n${output.slice(-4_000)}`));
    };
    child.once('exit', onExit);
    let isReady = false;
    const read = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-100_000);
      if (process.env['WEIR_TEST_LOGS'] !== undefined) process.stderr.write(chunk);
      const metricsUrl = isReady ? undefined : READY.exec(output)?.[1];
      if (metricsUrl === undefined) return;
      isReady = true;
      child.off('exit', onExit);
      resolve(toWorker(child, metricsUrl, workers, () => output));
    };
    child.stdout?.on('data', read);
    child.stderr?.on('data', read);
  });
}

function toWorker(
  child: ChildProcess,
  metricsUrl: string,
  workers: Set<ChildProcess>,
  output: () => string,
): FleetWorker {
  const exited = once(child, 'exit').then(() => {
    workers.delete(child);
    return child.exitCode;
  });
  return {
    pid: child.pid ?? 0,
    metricsUrl,
    exited,
    output,
    kill: () => end(child, 'SIGKILL'),
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    stop: async () => {
      await end(child, 'SIGTERM');
      return child.exitCode;
    },
  };
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill(signal);
  await gone;
}
