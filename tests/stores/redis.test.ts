// The connection to Redis, against a server of the test's own that is frozen, killed and started again.

import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Server } from '../../dev/stack/server.ts';
import { holdFunctions } from '../../src/stores/hold-functions.ts';
import {
  checkRedis,
  createRedis,
  isRedisOutage,
  loadScript,
  type Redis,
  type RedisOptions,
} from '../../src/stores/redis.ts';
import { takesWrites } from '../../src/stores/redis-away.ts';
import { eventually } from '../support/eventually.ts';
import { type OwnRedis, openOwnRedis } from '../support/own-redis.ts';
import { QUIET } from '../support/stores.ts';

const COMMAND_TIMEOUT_MS = 300;

let own: OwnRedis;
let server: Server;

function optionsOf(change: Partial<RedisOptions> = {}): RedisOptions {
  return {
    url: server.address,
    keyPrefix: 'test',
    commandTimeoutMs: COMMAND_TIMEOUT_MS,
    policyChecked: false,
    ...change,
  };
}

async function open(change: Partial<RedisOptions> = {}): Promise<Redis & AsyncDisposable> {
  const redis = createRedis(optionsOf(change), QUIET);
  await redis.ready(10_000);
  return { ...redis, [Symbol.asyncDispose]: () => redis.close() };
}

async function restart(): Promise<void> {
  server.child.kill();
  await server.child.exited;
  server = await own.start();
}

beforeAll(async () => {
  own = await openOwnRedis();
  server = await own.start();
});

afterAll(async () => {
  await own?.[Symbol.asyncDispose]();
});

describe('createRedis', () => {
  it('tells the server apart by its run id, and its clock', async () => {
    await using redis = await open();
    const info = await redis.command((client) => client.info('server'));
    expect(info).toContain(`run_id:${await redis.runId()}`);
    expect(Math.abs((await redis.nowMs()) - Date.now())).toBeLessThan(5_000);
  });

  it('sees another run id after a restart, and counts its connection from there', async () => {
    await using redis = await open();
    const before = await redis.runId();
    await eventually(() => expect(redis.connectedForMs()).toBeGreaterThan(50));
    server.child.kill();
    await server.child.exited;
    await eventually(() => expect(redis.connectedForMs()).toBe(0));
    await expect(redis.runId()).rejects.toSatisfy(isRedisOutage);
    const back = performance.now();
    server = await own.start();
    await redis.ready(10_000);
    expect(await redis.runId()).not.toBe(before);
    expect(redis.connectedForMs()).toBeLessThan(performance.now() - back);
  });

  it('runs a script on a server that has lost it', async () => {
    await using redis = await open();
    const script = { ...loadScript('rate-cool') };
    expect(await redis.run(script, ['test:bucket'], [50])).toBe(1);
    await restart();
    await redis.ready(10_000);
    expect(await redis.run(script, ['test:bucket'], [50])).toBe(1);
  });

  it('loads its functions into a server that does not have them, and again after a restart', async () => {
    await using redis = await open();
    const count = () => redis.run(holdFunctions.versions, ['test:scope'], ['1:run']);
    expect(await Promise.all([count(), count()])).toEqual([[''], ['']]);
    await restart();
    await redis.ready(10_000);
    expect(await count()).toEqual(['']);
  });

  it('does not take an error of a script for a lost one', async () => {
    await using redis = await open();
    const wrong = { lua: "return redis.error_reply('ERR wrong')", sha: '0'.repeat(40) };
    await expect(redis.run(wrong, [], [])).rejects.toThrow('wrong');
  });

  it('gives up a command that a frozen server does not answer', async () => {
    await using redis = await open();
    server.child.signal('SIGSTOP');
    const error: unknown = await redis.ping().catch((cause: unknown) => cause);
    server.child.signal('SIGCONT');
    expect(isRedisOutage(error)).toBe(true);
    await eventually(() => redis.ping());
  });

  it.each([
    ['has no memory left', ['maxmemory', '1'], ['maxmemory', '0']],
    ['misses its replicas', ['min-replicas-to-write', '1'], ['min-replicas-to-write', '0']],
  ] as const)('is as good as away while it %s, although it answers', async (_, broken, whole) => {
    await using redis = await open();
    expect(await takesWrites(redis)).toBe(true);
    await redis.command((client) => client.config('SET', ...broken));
    const refused = redis.run(holdFunctions.renew, ['h', 'l'], ['a#1', 'a', 1_000, 0]);
    await expect(refused).rejects.toSatisfy(isRedisOutage);
    await redis.ping();
    expect(await takesWrites(redis)).toBe(false);
    await redis.command((client) => client.config('SET', ...whole));
    expect(await takesWrites(redis)).toBe(true);
  });

  it('is as good as away while it cannot write its snapshot', () => {
    const message =
      'MISCONF Redis is configured to save RDB snapshots, but is currently unable to persist to disk.';
    expect(isRedisOutage(Object.assign(new Error(message), { name: 'ReplyError' }))).toBe(true);
  });

  it('fails a command that was under way when the connection broke, and sends it to no other server', async () => {
    await using redis = await open({ commandTimeoutMs: 60_000 });
    server.child.signal('SIGSTOP');
    const underWay = redis.command((client) => client.incr('test:counter')).catch((cause: unknown) => cause);
    await restart();
    expect(isRedisOutage(await underWay)).toBe(true);
    await redis.ready(10_000);
    expect(await redis.command((client) => client.get('test:counter'))).toBeNull();
  });

  // Longer than the test may take: what fails within it did not wait for an answer.
  it('fails at once while no server is there', async () => {
    await using redis = await open({ commandTimeoutMs: 60_000 });
    server.child.kill();
    await server.child.exited;
    await eventually(() => expect(redis.connectedForMs()).toBe(0));
    await expect(redis.ping()).rejects.toSatisfy(isRedisOutage);
    server = await own.start();
  });

  it('reads through a duplicate for longer than a command may take', async () => {
    await using redis = await open({ commandTimeoutMs: 100 });
    const reader = redis.duplicate();
    try {
      const asked = performance.now();
      expect(await reader.xread('BLOCK', 300, 'STREAMS', 'test:nothing', '0-0')).toBeNull();
      expect(performance.now() - asked).toBeGreaterThanOrEqual(290);
    } finally {
      reader.disconnect();
    }
  });
});

describe('ready', () => {
  it('says how long it waited for a server that is not there, and why', async () => {
    const redis = createRedis(optionsOf({ url: 'redis://127.0.0.1:1' }), QUIET);
    try {
      await expect(redis.ready(150)).rejects.toMatchObject({
        message: 'redis did not answer within 150 ms',
        cause: expect.objectContaining({ code: 'ECONNREFUSED' }),
      });
    } finally {
      await redis.close();
    }
  });
});

describe('checkRedis', () => {
  it('refuses a server that may evict keys, unless somebody has checked that it does not', async () => {
    await using redis = await open();
    await expect(checkRedis(redis, optionsOf())).resolves.toBeUndefined();
    await redis.command((client) => client.config('SET', 'maxmemory-policy', 'allkeys-lru'));
    await expect(checkRedis(redis, optionsOf())).rejects.toThrow(
      'redis evicts keys: maxmemory-policy is allkeys-lru, expected noeviction',
    );
    await expect(checkRedis(redis, optionsOf({ policyChecked: true }))).resolves.toBeUndefined();
    await redis.command((client) => client.config('SET', 'maxmemory-policy', 'noeviction'));
  });

  it('refuses a server that is too old to keep functions', async () => {
    const info = 'loading:0\r\nredis_version:6.2.14\r\nrun_id:abc';
    // Answers whatever it is asked with what it is.
    const old = createServer((socket) => {
      socket.on('data', (data) => {
        const commands = data.toString().match(/^\*\d+\r$/gm) ?? [];
        for (const _ of commands) socket.write(`$${info.length}\r\n${info}\r\n`);
      });
    }).listen(0, '127.0.0.1');
    await once(old, 'listening');
    const { port } = old.address() as AddressInfo; // it listens on a port
    const options = { ...optionsOf(), url: `redis://127.0.0.1:${port}` };
    const redis = createRedis(options, QUIET);
    await expect(checkRedis(redis, options)).rejects.toThrow('redis is version 6.2.14, expected 7 or newer');
    await redis.close();
    old.close();
  });
});

describe('isRedisOutage', () => {
  const reply = (message: string) => Object.assign(new Error(message), { name: 'ReplyError' });

  it.each<[unknown, boolean]>([
    [reply('WRONGTYPE Operation against a key'), false],
    [reply('ERR syntax error'), false],
    [reply('LOADING Redis is loading the dataset in memory'), true],
    [reply("OOM command not allowed when used memory > 'maxmemory'"), true],
    [reply("READONLY You can't write against a read only replica"), true],
    [new Error('Command timed out'), true],
    [Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }), true],
    ['a text', false],
  ])('judges %s', (error, expected) => {
    expect(isRedisOutage(error)).toBe(expected);
  });
});
