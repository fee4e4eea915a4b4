// The real Redis with the real scripts, as one run sees it: under its own prefix, with the run's clock instead of the server's, and with
// servers that can lose everything, or come back as they were.

import { createHash } from 'node:crypto';
import type { Redis as Client } from 'ioredis';
import { holdFunctions } from '../../src/stores/hold-functions.ts';
import { type Redis, runScript, type Script, type StoredFunction } from '../../src/stores/redis.ts';
import { type Process, StoreAway, type World } from './world.ts';

/** Told of each step of a hold: its name, its arguments and its answer. */
export type OnScript = (
  name: HoldFunction,
  args: readonly string[],
  answer: unknown,
  process: Process,
) => void;

export type HoldFunction = keyof typeof holdFunctions;

const NAMES = new Map(
  Object.entries(holdFunctions).map(([key, { name }]) => [name, key as HoldFunction] as const),
);

/** Undefined for what is not about holds. */
function nameOf(script: Script | StoredFunction): HoldFunction | undefined {
  return 'library' in script ? NAMES.get(script.name) : undefined;
}

/** The script reads the time from the name of one more key, which it does not touch. */
function toTimed({ lua }: Script): Script {
  const timed = `${CLOCK} local run = table.remove(KEYS) ${lua.replaceAll("redis.call('TIME')", 'timeOf(run)')}`;
  return { lua: timed, sha: createHash('sha1').update(timed).digest('hex') };
}

const CLOCK =
  "local function timeOf(key) local s, us = string.match(key, '(%d+)%.(%d+)$') return { s, us } end";

const timedScripts = new Map<string, Script>();

function timedScript(script: Script): Script {
  const timed = timedScripts.get(script.sha) ?? toTimed(script);
  timedScripts.set(script.sha, timed);
  return timed;
}

/** The same for a library: each of its functions notes the key first. */
function toTimedLibrary(library: string): string {
  const [, ...lines] = library.replaceAll("redis.call('TIME')", 'timeOf(run)').split('\n');
  const text = [`${CLOCK} local run`, ...lines].join('\n');
  const noted = text.replaceAll('function(KEYS, ARGV)', 'function(KEYS, ARGV) run = table.remove(KEYS)');
  const version = createHash('sha1').update(noted).digest('hex').slice(0, 12);
  return `#!lua name=timed_${version}\n${noted.replaceAll(/'weir_([0-9a-f]+_\w+)'/g, "'timed_$1'")}`;
}

function toTimedFunction({ name, library, ...how }: StoredFunction): StoredFunction {
  const timed = timedLibraries.get(library) ?? toTimedLibrary(library);
  timedLibraries.set(library, timed);
  return { ...how, name: name.replace('weir_', 'timed_'), library: timed };
}

const timedLibraries = new Map<string, string>();

export type RedisServer = {
  readonly prefix: string;
  /** The view of one process. */
  connect(process: Process): Redis;
  /** A view without faults and without a process, for looking at the end. */
  readonly direct: Pick<Redis, 'command' | 'run' | 'runId'>;
  readonly number: () => number;
  flush(): Promise<void>;
  snapshot(): Promise<void>;
  /** Another server process: empty, or with the last snapshot. */
  restart(withSnapshot: boolean): Promise<void>;
  onScript: OnScript;
};

export function createRedisServer(world: World, client: Client, prefix: string): RedisServer {
  const keysSeen = new Set<string>();
  let saved: { key: string; dump: Buffer }[] = [];
  let number = 1;
  const runIdOf = (server: number) => `server${server}`;

  const runAt = async (
    script: Script | StoredFunction,
    keys: readonly string[],
    args: readonly (string | number)[],
  ) => {
    for (const key of keys) keysSeen.add(key);
    const ms = world.nowMs;
    const clock = `clock:${Math.floor(ms / 1000)}.${String((ms % 1000) * 1000).padStart(6, '0')}`;
    const timed = 'library' in script ? toTimedFunction(script) : timedScript(script);
    return runScript(client, timed, [...keys, clock], args);
  };
  const flush = async () => {
    if (keysSeen.size > 0) await client.del(...keysSeen);
  };

  const server: RedisServer = {
    prefix,
    onScript: () => undefined,
    number: () => number,
    flush,
    async snapshot() {
      const keys = [...keysSeen];
      const dumps = await Promise.all(keys.map((key) => client.dumpBuffer(key)));
      saved = keys.flatMap((key, index) => {
        const dump = dumps[index];
        return dump === null || dump === undefined ? [] : [{ key, dump }];
      });
    },
    async restart(withSnapshot) {
      number += 1;
      await flush();
      if (withSnapshot) await Promise.all(saved.map(({ key, dump }) => client.restore(key, 0, dump)));
    },
    direct: {
      command: (work) => work(client),
      run: runAt,
      runId: async () => runIdOf(number),
    },
    connect: (process) => ({
      prefix,
      // Known to the connection: asked once per connection, and forgotten with it.
      runId: async () => {
        process.runId ??= runIdOf(process.connection);
        return process.runId;
      },
      nowMs: async () => world.nowMs,
      connectedForMs: () => (process.connection === number ? world.nowMs - process.connectedAtMs : 0),
      run: (script, keys, args) => {
        const name = nameOf(script);
        return world.op(process, 'redis', `${name ?? 'script'} ${args[0]}`, async () => {
          const answer = await runAt(script, keys, args);
          if (name !== undefined) server.onScript(name, args.map(String), answer, process);
          return answer;
        });
      },
      command: <Result>(work: (to: Client) => Promise<Result>) =>
        world.op(process, 'redis', commandName(world, work), () => work(client)) as Promise<Result>,
      ready: async () => undefined,
      duplicate: () => {
        throw new StoreAway('redis');
      },
      ping: async () => undefined,
      close: async () => undefined,
    }),
  };
  return server;
}

function commandName(world: World, work: unknown): string {
  if (world.trace === undefined) return 'command';
  return /client\.(\w+)/.exec(String(work))?.[1] ?? 'command';
}
