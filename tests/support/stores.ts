// Stores of one test on the run's real servers: a Postgres schema and a Redis key prefix of its own, both removed at the end.

import { randomBytes } from 'node:crypto';
import { inject, type ProvidedContext } from 'vitest';
import { createLogger, type Logger } from '../../src/log.ts';
import { startPersisting } from '../../src/persist-events.ts';
import { createPostgres, migrate, type Postgres } from '../../src/stores/postgres.ts';
import { createRedis, type Redis } from '../../src/stores/redis.ts';
import { createStores, type StoreOptions, type Stores } from '../../src/stores/stores.ts';
import type { Limit } from '../../src/task/budget.ts';

export type TestStores = AsyncDisposable & {
  readonly stores: Stores;
  readonly postgres: Postgres;
  readonly redis: Redis;
  readonly schema: string;
  readonly prefix: string;
  readonly log: Logger;
};

export const QUIET: Logger = createLogger({ level: 'error', format: 'json', service: 'test' });

const NO_LIMITS = { tenant: [], user: [], session: [], task: [] } as const;

export type Servers = ProvidedContext['servers'];

/** `persists: false`: what was published stays without a number in Postgres until the test sees to it. */
export type TestStoreOptions = Partial<StoreOptions> & { readonly persists?: boolean };

/** `servers`: instead of the run's shared ones. */
export async function openTestStores(
  options: TestStoreOptions = {},
  servers: Servers = inject('servers'),
): Promise<TestStores> {
  const schema = `t_${randomBytes(6).toString('hex')}`;
  await migrate({ url: servers.postgres, schema }, QUIET);
  const postgres = createPostgres(
    { url: servers.postgres, schema, poolSize: 10, statementTimeoutMs: 10_000 },
    QUIET,
  );
  const redis = createRedis(
    { url: servers.redis, keyPrefix: schema, commandTimeoutMs: 5_000, policyChecked: false },
    QUIET,
  );
  await redis.ready(10_000);
  const stores = storesOn({ postgres, redis }, options);
  const persisting = options.persists === false ? undefined : persistEvents(stores, schema);
  return {
    stores,
    postgres,
    redis,
    schema,
    prefix: schema,
    log: QUIET,
    async [Symbol.asyncDispose]() {
      await stores.liveFeed.close();
      await persisting?.[Symbol.asyncDispose]();
      await removeKeys(redis, schema);
      await redis.close();
      await postgres.query(`drop schema ${schema} cascade`);
      await postgres.close();
    },
  };
}

/** Numbers of milestones reach their rows soon after they were published, as in every process. */
export function persistEvents(
  { eventLog }: Pick<Stores, 'eventLog'>,
  name: string,
  log = QUIET,
): AsyncDisposable {
  return startPersisting({ eventLog, name, intervalMs: 10, log });
}

/** Further stores on the servers of a test: another process, or another configuration. */
export function storesOn(
  { postgres, redis }: Pick<TestStores, 'postgres' | 'redis'>,
  options: Partial<StoreOptions> = {},
): Stores {
  return createStores(postgres, redis, {
    leaseMs: 10_000,
    attemptMs: 600_000,
    defaultLimits: NO_LIMITS,
    calendar: { zone: 'UTC', weekStart: 'monday' },
    events: { ringCapacity: 512, onPublished: () => undefined },
    ...options,
  });
}

/** Connections of another process to the schema and the keys of a test; closed when disposed. */
export async function connectAgain({ schema, prefix }: Pick<TestStores, 'schema' | 'prefix'>) {
  const servers = inject('servers');
  const postgres = createPostgres(
    { url: servers.postgres, schema, poolSize: 10, statementTimeoutMs: 10_000 },
    QUIET,
  );
  const redis = createRedis(
    { url: servers.redis, keyPrefix: prefix, commandTimeoutMs: 5_000, policyChecked: false },
    QUIET,
  );
  await redis.ready(10_000);
  return {
    postgres,
    redis,
    async [Symbol.asyncDispose]() {
      await redis.close();
      await postgres.close();
    },
  };
}

/** A hard limit over all time. */
export function hardLimit(unit: 'usd' | 'tokens', amount: bigint): Limit {
  return { unit, amount, window: 'total', hard: true, warnAt: 0.8 };
}

async function removeKeys(redis: Redis, prefix: string): Promise<void> {
  await redis.command(async (client) => {
    for await (const keys of client.scanStream({ match: `${prefix}:*`, count: 500 }))
      if (keys.length > 0) await client.del(...(keys as string[]));
  });
}
