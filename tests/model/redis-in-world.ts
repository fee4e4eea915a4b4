// The real Redis with the real scripts, as one run sees it: under its own prefix, with the run's clock instead of the server's, and with
// servers that can lose everything, or come back as they were.

import { createHash } from 'node:crypto';
import type { Redis as Client } from 'ioredis';
import { loadScript, type Redis, type Script } from '../../src/stores/redis.ts';
import { type Process, StoreAway, type World } from './world.ts';

/** Told of each script that ran: its name, its arguments and its answer. */
export type OnScript = (name: ScriptName, args: readonly string[], answer: unknown, process: Process) => void;

const SCRIPTS = {
  hold: loadScript('holds', 'hold'),
  markSent: loadScript('holds', 'mark-sent'),
  renew: loadScript('holds', 'renew'),
  take: loadScript('holds', 'take'),
  release: loadScript('holds', 'release'),
  adjust: loadScript('holds', 'adjust'),
  restore: loadScript('holds', 'restore'),
  hydrateBegin: loadScript('holds', 'hydrate-begin'),
  hydrateWrite: loadScript('holds', 'hydrate-write'),
  rateAdmit: loadScript('rate-admit'),
  rateGiveBack: loadScript('rate-give-back'),
  rateCool: loadScript('rate-cool'),
} as const;

export type ScriptName = keyof typeof SCRIPTS;

const NAMES = new Map(Object.entries(SCRIPTS).map(([name, { sha }]) => [sha, name as ScriptName]));

/** The script reads the time from the name of one more key, which it does not touch. */
function toTimed({ lua }: Script): Script {
  const clock =
    "local function runTime() local s, us = string.match(KEYS[#KEYS], '(%d+)%.(%d+)$') return { s, us } end";
  const timed = `${clock}\n${lua.replaceAll("redis.call('TIME')", 'runTime()')}`;
  return { lua: timed, sha: createHash('sha1').update(timed).digest('hex') };
}

const TIMED = new Map(Object.values(SCRIPTS).map((script) => [script.sha, toTimed(script)]));

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

  const runScript = async (script: Script, keys: readonly string[], args: readonly (string | number)[]) => {
    const timed = TIMED.get(script.sha);
    if (timed === undefined) throw new Error('a script that the model does not know');
    for (const key of keys) keysSeen.add(key);
    const ms = world.nowMs;
    const clock = `clock:${Math.floor(ms / 1000)}.${String((ms % 1000) * 1000).padStart(6, '0')}`;
    const all = [...keys, clock, ...args];
    try {
      return await client.evalsha(timed.sha, keys.length + 1, ...all);
    } catch (error) {
      if (error instanceof Error && error.message.startsWith('NOSCRIPT'))
        return client.eval(timed.lua, keys.length + 1, ...all);
      throw error;
    }
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
      run: runScript,
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
        const name = NAMES.get(script.sha);
        if (name === undefined) throw new Error('a script that the model does not know');
        return world.op(process, 'redis', `${name} ${args[0]}`, async () => {
          const answer = await runScript(script, keys, args);
          server.onScript(name, args.map(String), answer, process);
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
