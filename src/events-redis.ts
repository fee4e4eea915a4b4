// The Redis of events: that of budgets and rates, or one of its own that may fill up or go away without them. Whatever reads or writes
// events goes through the breaker of the one it uses.

import { guarded } from './calls/guarded.ts';
import type { Config } from './config.ts';
import type { Logger } from './log.ts';
import type { Closers } from './process.ts';
import type { ProcessBreakers } from './process-breakers.ts';
import { checkRedis, createRedis, type Redis } from './stores/redis.ts';
import { type MemoryWatch, watchMemory } from './stores/redis-memory.ts';

/** Above it deltas are no longer kept in rings: what is left belongs to milestones, budgets and rates. */
const MEMORY_SHARE = 0.7;
const LOOK_EVERY_MS = 5_000;

export type EventsRedis = {
  readonly redis: Redis;
  readonly memory: MemoryWatch;
  /** Past its breaker: a probe asks the server. Undefined where it is that of budgets. */
  readonly probe: (() => Promise<void>) | undefined;
};

/** @param shared the one of budgets, behind its breaker. @throws as `checkRedis` does */
export async function openEventsRedis(
  config: Config,
  shared: Redis,
  { breakers, closers, log }: { breakers: ProcessBreakers; closers: Closers; log: Logger },
): Promise<EventsRedis> {
  const { eventsUrl: url, ...options } = config.redis;
  let own: Redis | undefined;
  if (url !== undefined) {
    const opened = createRedis({ ...options, url }, log);
    closers.push(() => opened.close());
    await checkRedis(opened, { ...options, url });
    own = opened;
  }
  const redis =
    own === undefined ? shared : guarded(own, breakers.eventsRedis(), ['run', 'command', 'runId', 'nowMs']);
  const memory = watchMemory(redis, {
    share: MEMORY_SHARE,
    everyMs: LOOK_EVERY_MS,
    onChange: (isTight) =>
      isTight
        ? log.warn('redis is filling up: rings keep no streamed text', { above: MEMORY_SHARE })
        : log.info('redis has room again: rings keep streamed text', { below: MEMORY_SHARE }),
    onFailure: (error) => log.debug('the memory of redis was not told, asked again', { error }),
  });
  closers.push(async () => memory[Symbol.asyncDispose]());
  return { redis, memory, probe: own?.ping };
}
