// Servers that the user runs: their addresses are taken as they are, and asked once whether anybody is there, so that a
// wrong address is one message at start and not a worker that never gets ready.
import { readFileSync } from 'node:fs';
import pg from 'pg';
import { acceptsConnections } from './ready.ts';
import { StackError } from './stack-error.ts';

/** The value of a variable, or of the file that `<name>_FILE` names; an empty one counts as not set. */
export function given(environment: NodeJS.ProcessEnv, name: string): string | undefined {
  if (environment[name]) return environment[name];
  const file = environment[`${name}_FILE`];
  if (!file) return undefined;
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw new StackError(`${name}_FILE names ${file}, which cannot be read`, { cause: error });
  }
}

/** @throws StackError when nobody listens at TEMPORAL_ADDRESS */
export async function checkTemporal(address: string): Promise<void> {
  await check('TEMPORAL_ADDRESS', address, () => reach(`temporal://${address}`, 7233));
}

/** @throws StackError when nobody listens at REDIS_URL */
export async function checkRedis(url: string): Promise<void> {
  await check('REDIS_URL', withoutPassword(url), () => reach(url, 6379));
}

/** @throws StackError when DATABASE_URL cannot be queried */
export async function checkPostgres(url: string): Promise<void> {
  await check('DATABASE_URL', withoutPassword(url), async () => {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
    client.on('error', () => {
      // the connection was cut: the query below rejects, and that is what counts
    });
    try {
      await client.connect();
      await client.query('select 1');
    } finally {
      await client.end();
    }
  });
}

async function check(name: string, shown: string, probe: () => Promise<unknown>): Promise<void> {
  try {
    await probe();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StackError(
      `the server that ${name} names cannot be used (${shown}: ${reason}): start it, or unset ${name} to have one started`,
      { cause: error },
    );
  }
}

function reach(url: string, defaultPort: number): Promise<boolean> {
  const { hostname, port } = new URL(url);
  return acceptsConnections(port === '' ? defaultPort : Number(port), hostname.replace(/^\[|\]$/g, ''));
}

function withoutPassword(url: string): string {
  return url.replace(/\/\/[^@/]*@/, '//…@');
}
