// Whether Redis is away, asked when a command has failed: an answer that came too late, or an error of whatever else was at work, is
// no reason to leave it.

import { isRedisOutage, type Redis } from './redis.ts';

/** Whether Redis, or the breaker before it, says itself that it does not serve. The one before Postgres says nothing of Redis. */
function isTelling(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error.name === 'BreakerOpen') return Reflect.get(error, 'breaker') === 'redis';
  return error.name === 'ReplyError';
}

/** Whether Redis takes a write. A ping tells nothing of that: a replica answers it, and so does a server that has no memory left. */
export async function takesWrites(redis: Pick<Redis, 'command' | 'prefix'>): Promise<boolean> {
  return redis
    .command((client) => client.set(`${redis.prefix}:writable`, '1', 'PX', 1_000))
    .then(
      () => true,
      () => false,
    );
}

export function createIsRedisAway(redis: Pick<Redis, 'ping'>): (error: unknown) => Promise<boolean> {
  return async (error) => {
    if (!isRedisOutage(error)) return false;
    if (isTelling(error)) return true;
    return redis.ping().then(
      () => false,
      () => true,
    );
  };
}
