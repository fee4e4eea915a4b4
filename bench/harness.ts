// What the benches share: servers of their own, stores on them, and the arithmetic of their figures. A bench prints figures and asserts
// nothing: how fast a machine is decides no build.

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startStack } from '../dev/stack/stack.ts';
import { createLogger } from '../src/log.ts';
import { createPostgres, migrate, type Postgres } from '../src/stores/postgres.ts';
import { createRedis, type Redis } from '../src/stores/redis.ts';
import { createStores, type Stores } from '../src/stores/stores.ts';

export type Servers = { readonly postgres: string; readonly redis: string };

export type BenchStores = AsyncDisposable & {
  readonly servers: Servers;
  readonly stores: Stores;
  readonly postgres: Postgres;
  readonly redis: Redis;
  /** The Postgres schema and the prefix of all keys. */
  readonly name: string;
};

const ANY_PORT = {
  gateway: 0,
  metrics: 0,
  temporal: 0,
  temporalUi: 0,
  redis: 0,
  postgres: 0,
  provider: 0,
} as const;

const LOG = createLogger({ level: 'error', format: 'json', service: 'bench' });

/**
 * Postgres and Redis as the embedded stack sets them up, with nothing beside them; removed at the end, also after Ctrl-C.
 * `durable`: commits wait for the disk, as they do in production.
 */
export async function withServers(
  work: (servers: Servers) => Promise<void>,
  { durable = false }: { readonly durable?: boolean } = {},
): Promise<void> {
  const stateDir = await mkdtemp(join(tmpdir(), 'weir-bench-'));
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  const stack = await startStack({
    stateDir,
    workers: 0,
    processes: false,
    durable,
    ports: ANY_PORT,
    log: () => undefined,
    signal: interrupted.signal,
  });
  try {
    await Promise.all([stack.halt('temporal'), stack.halt('provider')]);
    await Promise.race([work(stack.info), rejectOn(interrupted.signal)]);
  } finally {
    await stack.stop();
    await rm(stateDir, { recursive: true, force: true });
  }
}

function rejectOn(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(new Error('interrupted')));
  });
}

/** A migrated schema, and every store on it. The servers are removed with all that is in them. */
export async function openBenchStores(servers: Servers): Promise<BenchStores> {
  const name = `b_${randomBytes(6).toString('hex')}`;
  await migrate({ url: servers.postgres, schema: name }, LOG);
  return joinBenchStores(servers, name);
}

/** The stores of a bench, from another process of it; `store` is the gate that admits there. */
export async function joinBenchStores(
  servers: Servers,
  name: string,
  store: 'redis' | 'postgres' = 'redis',
): Promise<BenchStores> {
  const postgres = createPostgres(
    // Filling a table with a million rows is one statement.
    { url: servers.postgres, schema: name, poolSize: 10, statementTimeoutMs: 600_000 },
    LOG,
  );
  const redis = createRedis(
    { url: servers.redis, keyPrefix: name, commandTimeoutMs: 60_000, policyChecked: false },
    LOG,
  );
  await redis.ready(10_000);
  const stores = createStores(postgres, redis, {
    leaseMs: 60_000,
    attemptMs: 600_000,
    defaultLimits: { tenant: [], user: [], session: [], task: [] },
    budget: { store, redisDown: 'closed', onMoved: () => undefined },
    calendar: { zone: 'UTC', weekStart: 'monday' },
    events: { ringCapacity: 512, onPublished: () => undefined },
  });
  return {
    servers,
    stores,
    postgres,
    redis,
    name,
    async [Symbol.asyncDispose]() {
      await redis.close();
      await postgres.close();
    },
  };
}

/** Books charges of a tenant, in the order of time since the last month began, by users and tasks in turn. One statement. */
export async function fillLedger(
  { postgres }: Pick<BenchStores, 'postgres'>,
  { tenant, rows }: { tenant: string; rows: number },
): Promise<void> {
  await postgres.query(
    `insert into ledger (held_at, attempt_key, kind, call_key, tenant_id, user_id, session_id, task_id, provider, model,
       input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
       cost_nano_usd, billable, usage_source, price_hash)
     select now() - (1 - n::float8 / $2) * (now() - date_trunc('month', now() at time zone 'UTC' - interval '1 month') at time zone 'UTC'),
       $1 || '-' || n || ':0123456789abcdef:answer:1#0.1.1.0', 'charge', $1 || '-' || n || ':0123456789abcdef:answer:1',
       $1, 'user-' || n % 100, null, 'task-' || n % 1000, 'simulated', 'simulated/small',
       500, 0, 0, 0, 1000, 0, 900000, true, 'measured', 'hash'
     from generate_series(1, $2::integer) as n`,
    [tenant, rows],
  );
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = Number.NaN, high = Number.NaN] = [sorted[sorted.length - 1 - middle], sorted[middle]];
  return (low + high) / 2;
}

/** Median, and the smallest and largest value, with so many digits behind the point. */
export function spread(values: readonly number[], digits = 0): string {
  const [middle, least, most] = [median(values), Math.min(...values), Math.max(...values)];
  return `${middle.toFixed(digits)} (${least.toFixed(digits)} to ${most.toFixed(digits)})`;
}
