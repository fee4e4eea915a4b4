// Whether Redis is away, asked when a command has failed: an answer that came too late, or an error of whatever else was at work, is
// no reason to leave it.

import { isRedisOutage, type Redis } from './redis.ts';

/** Errors by which Redis, or the breaker before it, says itself that it does not serve. */
const TELLING: ReadonlySet<string> = new Set(['ReplyError', 'BreakerOpen']);

export function createIsRedisAway(redis: Pick<Redis, 'ping'>): (error: unknown) => Promise<boolean> {
  return async (error) => {
    if (!isRedisOutage(error)) return false;
    if (error instanceof Error && TELLING.has(error.name)) return true;
    return redis.ping().then(
      () => false,
      () => true,
    );
  };
}
