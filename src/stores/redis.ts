// The connection to Redis and the way scripts run on it. Redis is a gate that can be rebuilt from Postgres: nothing here may be
// the only copy of anything. Only stores use it.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Redis as Client } from 'ioredis';
import type { Logger } from '../log.ts';

export type Redis = {
  /** Prefix of every key, without a colon at its end. */
  readonly prefix: string;
  /** Identity of the server process that answers now. Another one may hold an old snapshot, which must not be trusted. */
  runId(): Promise<string>;
  /** The server's clock, in milliseconds: worker clocks differ. */
  nowMs(): Promise<number>;
  /** How long this process has been connected without a break, in milliseconds; 0 while it is not. */
  connectedForMs(): number;
  run(
    script: Script | StoredFunction,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown>;
  /** Plain commands. */
  command<Result>(work: (client: Client) => Promise<Result>): Promise<Result>;
  /** Resolves once the server answers. */
  ready(timeoutMs: number): Promise<void>;
  /** A second connection for blocking reads; the caller closes it. */
  duplicate(): Client;
  ping(): Promise<void>;
  close(): Promise<void>;
};

export type Script = { readonly lua: string; readonly sha: string };

/** A function that Redis keeps: its name, the library that brings it, and whether its texts are answered as the bytes that they are. */
export type StoredFunction = {
  readonly name: string;
  readonly library: string;
  readonly answersBytes: boolean;
};

export type RedisOptions = {
  readonly url: string;
  readonly keyPrefix: string;
  readonly commandTimeoutMs: number;
  readonly policyChecked: boolean;
};

/** Reads `scripts/<name>.lua`, after those it builds on. */
export function loadScript(...names: readonly string[]): Script {
  const lua = names
    .map((name) => readFileSync(new URL(`./scripts/${name}.lua`, import.meta.url), 'utf8'))
    .join('\n');
  return { lua, sha: createHash('sha1').update(lua).digest('hex') };
}

/**
 * Makes functions of KEYS and ARGV of `scripts/<name>.lua`, over the texts that they share: one library, which Redis reads once and not
 * anew at every call. It is named after its text, so that processes of two releases can share a server.
 * @param answeringBytes those whose texts are answered as the bytes that they are
 * @param freeing those that free memory: they also run where Redis has no more of it
 */
export function loadLibrary<Name extends string>(
  shared: readonly string[],
  names: readonly Name[],
  { answeringBytes = [], freeing = [] }: { answeringBytes?: readonly Name[]; freeing?: readonly Name[] } = {},
): Readonly<Record<Name, StoredFunction>> {
  const { lua, sha } = loadScript(...shared);
  const bodies = names.map((name) => ({ name, lua: loadScript(name).lua }));
  const version = createHash('sha1')
    .update([sha, ...bodies.map((body) => body.lua), ...freeing].join())
    .digest('hex')
    .slice(0, 12);
  const nameOf = (name: string) => `weir_${version}_${name.replaceAll('-', '_')}`;
  const functions = bodies.map((body) => {
    const flags = freeing.includes(body.name) ? `'allow-oom'` : '';
    const callback = `function(KEYS, ARGV)\n${body.lua}\nend`;
    return `redis.register_function{function_name='${nameOf(body.name)}', callback=${callback}, flags={${flags}}}`;
  });
  const library = `#!lua name=weir_${version}\n${[lua, ...functions].join('\n')}`;
  const entries = names.map((name) => {
    const stored = { name: nameOf(name), library, answersBytes: answeringBytes.includes(name) };
    return [name, stored] as const;
  });
  return Object.fromEntries(entries) as Record<Name, StoredFunction>; // an entry for each name
}

/**
 * Opens the connection that callers wait for. No offline queue and no resending: a command that was under way when the connection
 * broke fails at once, since it carries the run id of a server that may be another one now.
 */
export function createRedis(options: RedisOptions, log: Logger): Redis {
  const client = new Client(options.url, {
    commandTimeout: options.commandTimeoutMs,
    connectTimeout: 3_000,
    // With 1 a command under way is dropped without an answer when the first reconnection succeeds, and hangs until its timeout.
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    retryStrategy: (times) => Math.min(50 * times, 500),
  });
  let runId: Promise<string> | undefined;
  let readyAt: number | undefined;
  client.on('error', (error) => log.debug('redis connection error', { error }));
  client.on('ready', () => {
    readyAt = performance.now();
  });
  client.on('close', () => {
    runId = undefined;
    readyAt = undefined;
  });

  return {
    command: (work) => work(client),
    ready: (timeoutMs) => ready(client, timeoutMs),
    prefix: options.keyPrefix,
    runId: () => {
      runId ??= readRunId(client).catch((error: unknown) => {
        runId = undefined;
        throw error;
      });
      return runId;
    },
    nowMs: async () => {
      const [seconds, micros] = await client.time();
      return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000);
    },
    connectedForMs: () => (readyAt === undefined ? 0 : performance.now() - readyAt),
    run: (script, keys, args) => runScript(client, script, keys, args),
    duplicate: () => duplicate(client, options.keyPrefix, log),
    ping: async () => {
      await client.ping();
    },
    close: async () => {
      client.disconnect();
    },
  };
}

/** The first with functions. */
const OLDEST_MAJOR = 7;

/**
 * Waits until the server answers, at most `timeoutMs`, and refuses one that is too old, and one that may evict keys: a lost counter is a
 * passed limit.
 */
export async function checkRedis(redis: Redis, options: RedisOptions, timeoutMs = 10_000): Promise<void> {
  await redis.ready(timeoutMs);
  const info = await redis.command((client) => client.info('server'));
  const [, version, major] = /^redis_version:((\d+)\S*)/m.exec(info) ?? [];
  if (version !== undefined && Number(major) < OLDEST_MAJOR)
    throw new Error(
      `redis is version ${version}, expected ${OLDEST_MAJOR} or newer: it has to keep functions`,
    );
  if (options.policyChecked) return;
  const answer: unknown = await redis.command((client) => client.config('GET', 'maxmemory-policy'));
  const policy = Array.isArray(answer) ? answer[1] : undefined;
  if (policy !== 'noeviction')
    throw new Error(
      `redis evicts keys: maxmemory-policy is ${policy ?? 'hidden'}, expected noeviction ` +
        '(set it on the server, or redis.policyChecked: true where a managed service hides it)',
    );
}

/** Loading, a replica, out of memory, unable to write its snapshot, without its replicas, its master or its cluster, or in a script. */
const CANNOT_SERVE = /^(LOADING|READONLY|OOM|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|BUSY)\b/;

/** Whether an error says that Redis is away or cannot serve, and not that a command was wrong. */
export function isRedisOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return error.name !== 'ReplyError' || CANNOT_SERVE.test(error.message);
}

/** Runs a script or a function, which it loads where the server does not have it. */
export async function runScript(
  client: Client,
  script: Script | StoredFunction,
  keys: readonly string[],
  args: readonly (string | number)[],
): Promise<unknown> {
  if ('library' in script) return callFunction(client, script, keys, args);
  try {
    return await client.evalsha(script.sha, keys.length, ...keys, ...args);
  } catch (error) {
    // A server that was restarted has lost its scripts; nothing of this one ran.
    if (error instanceof Error && error.message.startsWith('NOSCRIPT'))
      return client.eval(script.lua, keys.length, ...keys, ...args);
    throw error;
  }
}

async function callFunction(
  client: Client,
  { name, library, answersBytes }: StoredFunction,
  keys: readonly string[],
  args: readonly (string | number)[],
): Promise<unknown> {
  const call = (): Promise<unknown> =>
    answersBytes
      ? client.callBuffer('FCALL', name, keys.length, ...keys, ...args)
      : client.fcall(name, keys.length, ...keys, ...args);
  try {
    return await call();
  } catch (error) {
    // A server without the library; nothing ran.
    if (!(error instanceof Error) || !error.message.startsWith('ERR Function not found')) throw error;
    await client.function('LOAD', library).catch((fault: unknown) => {
      // Another process was faster.
      if (!(fault instanceof Error) || !fault.message.includes('already exists')) throw fault;
    });
    return call();
  }
}

async function readRunId(client: Client): Promise<string> {
  const info = await client.info('server');
  const match = /^run_id:(\w+)/m.exec(info);
  if (match?.[1] === undefined) throw new Error('redis does not tell its run_id in INFO server');
  return match[1];
}

/** Whoever looks at the server's list of clients finds it by the name of its keys. */
function duplicate(client: Client, keyPrefix: string, log: Logger): Client {
  const copy = client.duplicate({
    connectionName: `${keyPrefix}:reader`,
    maxRetriesPerRequest: null,
    enableOfflineQueue: true,
    autoResendUnfulfilledCommands: true,
  });
  // A blocking read is expected to take longer than a command.
  delete copy.options.commandTimeout;
  copy.on('error', (error) => log.debug('redis connection error', { error }));
  return copy;
}

function ready(client: Client, timeoutMs: number): Promise<void> {
  if (client.status === 'ready') return Promise.resolve();
  return new Promise((resolve, reject) => {
    let last: unknown;
    const onError = (error: unknown) => {
      last = error;
    };
    const settle = (act: () => void) => {
      clearTimeout(timer);
      client.off('error', onError);
      client.off('ready', onReady);
      act();
    };
    const onReady = () => settle(resolve);
    const timer = setTimeout(
      () => settle(() => reject(new Error(`redis did not answer within ${timeoutMs} ms`, { cause: last }))),
      timeoutMs,
    );
    client.on('error', onError);
    client.on('ready', onReady);
  });
}
