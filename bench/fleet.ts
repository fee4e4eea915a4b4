// A whole Weir for a bench: the embedded stack's servers with its simulated provider, worker processes that a bench starts and stops
// itself, and a client. Like the other benches it prints and asserts nothing.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { bundleWorkflowCode } from '@temporalio/worker';
import type { LoggedRequest } from '../dev/simulated-provider/request-log.ts';
import { startStack } from '../dev/stack/stack.ts';
import { createTaskClient, type TaskClient } from '../src/client/task-client.ts';
import { loadConfig, planOfTenant } from '../src/config.ts';
import { createLogger } from '../src/log.ts';
import { createAccounts } from '../src/stores/accounts.ts';
import { createPostgres, migrate, type Postgres } from '../src/stores/postgres.ts';

export type BenchFleet = {
  readonly tasks: TaskClient;
  readonly temporal: Client;
  readonly postgres: Postgres;
  readonly accounts: ReturnType<typeof createAccounts>;
  /** The folder of the bench's own settings, for prices. */
  readonly configDir: string;
  /** Of its servers. */
  readonly pids: Readonly<Partial<Record<'temporal' | 'postgres' | 'redis' | 'provider', number>>>;
  /** What every process of the fleet gets. */
  readonly env: Readonly<Record<string, string>>;
  startWorker(options?: StartOptions): Promise<BenchWorker>;
  /** The provider's own log, oldest first. */
  requests(): Promise<readonly LoggedRequest[]>;
};

export type StartOptions = {
  readonly env?: Readonly<Record<string, string>>;
  readonly nodeArgs?: readonly string[];
  /** Instead of Weir's worker. */
  readonly script?: URL;
};

export type BenchWorker = {
  readonly pid: number;
  /** SIGTERM; resolves when the process is gone. */
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
};

export type FleetOptions = {
  readonly providerArgs?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** limits.yaml, laid over the shipped one. */
  readonly limits?: string;
};

const ANY_PORT = {
  ...{ gateway: 0, metrics: 0, temporal: 0, temporalUi: 0 },
  ...{ redis: 0, postgres: 0, provider: 0 },
} as const;
const QUEUE_PREFIX = 'weir';
const LOG = createLogger({ level: 'error', format: 'json', service: 'bench' });
const READY = /"(?:worker is|bench worker is) ready"/;

/** Limits that no bench runs into by chance. */
export const ROOMY = `
rates:
  providers: {simulated: {rpm: unlimited, tpm: unlimited, maxParallel: unlimited}}
  tiers: {small: {rpm: unlimited, tpm: unlimited}}
budgets: {user: [], task: []}
`;

/** Everything stops and is removed at the end, also after Ctrl-C. */
export async function withFleet(
  options: FleetOptions,
  work: (fleet: BenchFleet) => Promise<void>,
): Promise<void> {
  const stateDir = await mkdtemp(join(tmpdir(), 'weir-bench-'));
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  const stack = await startStack({
    ...{ stateDir, workers: 0, processes: false, ports: ANY_PORT },
    providerArgs: options.providerArgs ?? [],
    log: () => undefined,
    signal: interrupted.signal,
  });
  const children = new Set<ChildProcess>();
  try {
    const gone = once(interrupted.signal, 'abort').then(() => {
      throw new Error('interrupted');
    });
    await Promise.race([run(options, { stateDir, info: stack.info, children }, work), gone]);
  } finally {
    await Promise.all([...children].map((child) => end(child, 'SIGKILL')));
    await stack.stop();
    await rm(stateDir, { recursive: true, force: true });
  }
}

type Stack = Awaited<ReturnType<typeof startStack>>;

async function run(
  options: FleetOptions,
  stack: {
    readonly stateDir: string;
    readonly info: Stack['info'];
    readonly children: Set<ChildProcess>;
  },
  work: (fleet: BenchFleet) => Promise<void>,
): Promise<void> {
  const { stateDir, info, children } = stack;
  const configDir = await mkdtemp(join(stateDir, 'config-'));
  await writeFile(join(configDir, 'limits.yaml'), options.limits ?? ROOMY);
  const bundle = join(stateDir, 'workflows.js');
  const { code } = await bundleWorkflowCode({
    workflowsPath: new URL('../src/workflows/index.ts', import.meta.url).pathname,
    logger: { ...LOG, log: () => undefined, trace: () => undefined },
  });
  await writeFile(bundle, code);
  await migrate({ url: info.postgres, schema: 'weir' }, LOG);
  const env = {
    ...inherited(),
    TEMPORAL_ADDRESS: info.temporal,
    DATABASE_URL: info.postgres,
    REDIS_URL: info.redis,
    WEIR_QUEUE_PREFIX: QUEUE_PREFIX,
    WEIR_WORKFLOW_BUNDLE: bundle,
    WEIR_CONFIG_DIR: configDir,
    WEIR_LOG_FORMAT: 'json',
    SIMULATED_BASE_URL: `${info.provider}/v1`,
    METRICS_PORT: '0',
    ...options.env,
  };
  const { limits, worker } = loadConfig({ env });
  const connection = await Connection.connect({ address: info.temporal });
  const postgres = createPostgres(
    { url: info.postgres, schema: 'weir', poolSize: 4, statementTimeoutMs: 60_000 },
    LOG,
  );
  const temporal = new Client({ connection });
  try {
    await work({
      temporal,
      postgres,
      accounts: createAccounts(postgres),
      configDir,
      pids: info.pids,
      env,
      tasks: createTaskClient({
        temporal,
        queuePrefix: QUEUE_PREFIX,
        priorityQueues: worker.priorityQueues,
        searchAttributes: true,
        fairnessWeightOf: (tenantId) => planOfTenant(limits.rates, tenantId).fairnessWeight,
      }),
      startWorker: (given = {}) => startWorker({ ...given, env: { ...env, ...given.env } }, children),
      requests: async () => {
        const answer = await fetch(`${info.provider}/control/requests`);
        return (await answer.json()) as LoggedRequest[];
      },
    });
  } finally {
    await connection.close();
    await postgres.close();
  }
}

/** What a program needs of the surroundings, and nothing that would be a setting. */
function inherited(): Record<string, string> {
  const { PATH = '', HOME = '' } = process.env;
  return { PATH, HOME };
}

function startWorker(options: StartOptions, children: Set<ChildProcess>): Promise<BenchWorker> {
  const script = options.script ?? new URL('../src/worker.ts', import.meta.url);
  const child = spawn(process.execPath, [...(options.nodeArgs ?? []), script.pathname], {
    env: options.env ?? {},
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.add(child);
  let output = '';
  return new Promise((resolve, reject) => {
    const onExit = () => reject(new Error(`a worker ended while starting:\n${output.slice(-4_000)}`));
    child.once('exit', onExit);
    const read = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-100_000);
      if (process.env['WEIR_BENCH_LOGS'] !== undefined) process.stderr.write(chunk);
      if (!READY.test(output)) return;
      child.off('exit', onExit);
      resolve({
        pid: child.pid ?? 0,
        stop: () => end(child, 'SIGTERM'),
        kill: () => end(child, 'SIGKILL'),
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

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The smallest value that a share of all values does not pass. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

/** Runs the work for each item, so many at a time. */
export async function eachOf<Item>(
  items: readonly Item[],
  inFlight: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const queue = items.values();
  const lane = async () => {
    for (const item of queue) await work(item);
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
}

/** The task that a request was made for; attempt keys begin with it. */
export function taskOf(request: Pick<LoggedRequest, 'attemptKey'>): string {
  return request.attemptKey?.split(':')[0] ?? '';
}
