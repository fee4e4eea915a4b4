// The connection to Postgres: one pool per process, every session in Weir's own schema. Only stores use it.

import { runner } from 'node-pg-migrate';
import pg from 'pg';
import type { Logger } from '../log.ts';

/** What a store needs of a connection; inside `transaction` it is the transaction's own client. */
export type Sql = {
  query<Row extends pg.QueryResultRow>(
    text: string,
    values?: readonly unknown[],
  ): Promise<pg.QueryResult<Row>>;
};

export type Postgres = Sql & {
  /**
   * Runs `work` in one transaction; 40001 and 40P01 are repeated here and nowhere else. `statementTimeoutMs` is for what may take longer
   * than statements that a call waits for.
   */
  transaction<Result>(work: (sql: Sql) => Promise<Result>, options?: TransactionOptions): Promise<Result>;
  /** Runs `work` if no other process holds `name`; answers undefined when one does. Keeps housekeeping to one at a time. */
  exclusively<Result>(name: string, work: () => Promise<Result>): Promise<Result | undefined>;
  ping(): Promise<void>;
  close(): Promise<void>;
};

type TransactionOptions = { readonly statementTimeoutMs?: number };

export type PostgresOptions = {
  readonly url: string;
  readonly schema: string;
  readonly poolSize: number;
  readonly statementTimeoutMs: number;
};

const TRANSACTION_TRIES = 5;
const NETWORK_MARGIN_MS = 2_000;
/** Jobs of housekeeping that one process does at a time, at most. */
const MAX_LOCKS = 16;
const RETRIED_CODES: ReadonlySet<unknown> = new Set(['40001', '40P01']);

// int8 comes as text by default; every bigint here is money or a count and becomes a bigint, never a float.
const types = new pg.TypeOverrides();
types.setTypeParser(pg.types.builtins.INT8, (text) => BigInt(text));
types.setTypeParser(pg.types.builtins.NUMERIC, (text) => BigInt(text.split('.')[0] ?? text));

/** Opens a pool. Connections are made on demand, so that this never fails by itself. */
export function createPostgres(options: PostgresOptions, log: Logger): Postgres {
  const pool = openPool(options, options.poolSize, log);
  // A job that holds a lock needs connections for its work: from one pool, jobs that begin together would wait for each other.
  const locks = openPool(options, MAX_LOCKS, log);

  const query: Sql['query'] = (text, values) =>
    pool.query(text, values === undefined ? undefined : [...values]);
  return {
    query,
    transaction: (work, limits = {}) => transaction(pool, work, limits),
    exclusively: (name, work) => exclusively(locks, `${options.schema}.${name}`, work),
    ping: async () => {
      await query('select 1');
    },
    close: async () => {
      await Promise.all([pool.end(), locks.end()]);
    },
  };
}

function openPool(options: PostgresOptions, max: number, log: Logger): pg.Pool {
  const pool = new pg.Pool({
    connectionString: options.url,
    max,
    connectionTimeoutMillis: 3_000,
    statement_timeout: options.statementTimeoutMs,
    // The server's own limit never comes through a network that went silent.
    query_timeout: options.statementTimeoutMs + NETWORK_MARGIN_MS,
    keepAlive: true,
    // A host that is gone keeps its locks until the server notices.
    idle_in_transaction_session_timeout: 30_000,
    options: `-c search_path=${options.schema} -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3`,
    types,
  });
  // Without a listener an idle connection that dies takes the process with it.
  pool.on('error', (error) => log.warn('idle postgres connection lost', { error }));
  // Nor does anybody listen to one that is ended in the very read in which it became ready; its first query says so.
  pool.on('connect', (client) =>
    client.on('error', (error) => log.debug('postgres connection lost', { error })),
  );
  return pool;
}

/** Brings the schema up to date; waits when another process is at it. */
export async function migrate(
  options: Pick<PostgresOptions, 'url' | 'schema'>,
  log: Logger,
): Promise<string[]> {
  const done = await runner({
    databaseUrl: options.url,
    dir: new URL('./migrations', import.meta.url).pathname,
    direction: 'up',
    schema: options.schema,
    createSchema: true,
    migrationsTable: 'migrations',
    advisoryLockMode: 'wait',
    logger: {
      info: () => undefined,
      warn: (message) => log.warn(message),
      error: (message) => log.error(message),
    },
  });
  return done.map((migration) => migration.name);
}

/** Whether an error says that Postgres is away or cannot serve, and not that a statement or its data was wrong. */
export function isPostgresOutage(error: unknown): boolean {
  const code = codeOf(error);
  return error instanceof Error && !(typeof code === 'string' && /^(22|23|40|42)/.test(code));
}

async function transaction<Result>(
  pool: pg.Pool,
  work: (sql: Sql) => Promise<Result>,
  limits: TransactionOptions,
): Promise<Result> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await withClient(pool, (client, markBroken) =>
        transactionOnce(client, markBroken, { work, ...limits }),
      );
    } catch (error) {
      if (!RETRIED_CODES.has(codeOf(error)) || tries >= TRANSACTION_TRIES) throw error;
    }
  }
}

async function transactionOnce<Result>(
  client: pg.PoolClient,
  markBroken: MarkBroken,
  { work, statementTimeoutMs }: TransactionOptions & { work: (sql: Sql) => Promise<Result> },
): Promise<Result> {
  // The client's own limit is above the server's, as it is for the pool.
  const patience =
    statementTimeoutMs === undefined ? {} : { query_timeout: statementTimeoutMs + NETWORK_MARGIN_MS };
  try {
    await client.query('begin');
    if (statementTimeoutMs !== undefined)
      await client.query(`set local statement_timeout = ${Math.ceil(statementTimeoutMs)}`);
    const result = await work({
      query: (text, values) =>
        client.query({ text, ...patience, ...(values === undefined ? {} : { values: [...values] }) }),
    });
    await client.query('commit');
    return result;
  } catch (error) {
    // A connection that cannot roll back is in an unknown state and leaves the pool.
    await client.query('rollback').catch(markBroken);
    throw error;
  }
}

function exclusively<Result>(
  pool: pg.Pool,
  name: string,
  work: () => Promise<Result>,
): Promise<Result | undefined> {
  return withClient(pool, async (client, markBroken) => {
    const locked = await client.query<{ locked: boolean }>(
      'select pg_try_advisory_lock(hashtextextended($1, 0)) as locked',
      [name],
    );
    if (locked.rows[0]?.locked !== true) return undefined;
    try {
      return await work();
    } finally {
      // A lock that cannot be given back ends with its connection.
      await client.query('select pg_advisory_unlock(hashtextextended($1, 0))', [name]).catch(markBroken);
    }
  });
}

type MarkBroken = (error: Error) => void;

/** A connection of its own for some work; one that breaks in between leaves the pool. */
async function withClient<Result>(
  pool: pg.Pool,
  work: (client: pg.PoolClient, markBroken: MarkBroken) => Promise<Result>,
): Promise<Result> {
  const client = await pool.connect();
  let broken: Error | undefined;
  const markBroken: MarkBroken = (error) => {
    broken ??= error;
  };
  // The pool listens to idle clients only: one that dies between two statements of its owner would take the process with it.
  client.on('error', markBroken);
  try {
    return await work(client, markBroken);
  } finally {
    client.off('error', markBroken);
    client.release(broken);
  }
}

function codeOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null ? Reflect.get(error, 'code') : undefined;
}
