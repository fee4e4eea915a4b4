// Whether Redis is away, asked when a command has failed: an answer that came too late, or an error of whatever else was at work, is
// no reason to leave it.

import { isRedisOutage, type Redis } from './redis.ts';

/** Whether Redis, or the breaker before it, says itself that it does not serve. The one before Postgres says nothing of Redis. */
function isTelling(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error.name === 'BreakerOpen') return Reflect.get(error, 'breaker') === 'redis';
  return error.name === 'ReplyError';
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
