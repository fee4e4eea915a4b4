// Redis alone for one test: a key prefix of its own on the run's real server, removed at the end.

import { randomBytes } from 'node:crypto';
import { inject } from 'vitest';
import { createRedis, type Redis } from '../../src/stores/redis.ts';
import { QUIET } from './stores.ts';

export type TestRedis = AsyncDisposable & {
  readonly redis: Redis;
  readonly prefix: string;
  /** A connection of another process to the same keys. */
  connect(): Promise<Redis>;
};

export async function openTestRedis(): Promise<TestRedis> {
  const prefix = `t_${randomBytes(6).toString('hex')}`;
  const opened: Redis[] = [];
  const connect = async () => {
    const url = inject('servers').redis;
    const redis = createRedis(
      { url, keyPrefix: prefix, commandTimeoutMs: 5_000, policyChecked: false },
      QUIET,
    );
    opened.push(redis);
    await redis.ready(10_000);
    return redis;
  };
  const redis = await connect();
  return {
    redis,
    prefix,
    connect,
    async [Symbol.asyncDispose]() {
      await redis.command(async (client) => {
        for await (const keys of client.scanStream({ match: `${prefix}:*`, count: 500 }))
          if (keys.length > 0) await client.del(...(keys as string[]));
      });
      await Promise.all(opened.map((connection) => connection.close()));
    },
  };
}
