// The breakers of a worker or gateway, and what stands behind each. Settings are those of the moment in which they are asked for.

import { createBreakers } from './calls/breakers.ts';
import { isProviderFailure } from './calls/govern.ts';
import { isTemporalFailure } from './client/outage.ts';
import type { Config } from './config.ts';
import type { Logger } from './log.ts';
import type { Metrics } from './metrics.ts';
import { createFleetBreakers } from './stores/fleet-breakers.ts';
import { isPostgresOutage } from './stores/postgres.ts';
import { isRedisOutage, type Redis } from './stores/redis.ts';

export type ProcessBreakers = ReturnType<typeof createProcessBreakers>;

/** Tries that take longer hang. Each is above what the client itself gives up after; transactions of housekeeping take their time. */
const REDIS_HANGS_MS = 10_000;
const POSTGRES_HANGS_MS = 120_000;
const TEMPORAL_HANGS_MS = 30_000;

export function createProcessBreakers(config: Config, metrics: Metrics, log: Logger) {
  const all = createBreakers({ settingsOf: (kind) => config.breakers[kind], meter: metrics, log });
  const ofRedis = { isFailure: isRedisFailure, hangMs: REDIS_HANGS_MS };
  return {
    ...all,
    redis: all.store('redis', ofRedis),
    /** Made where events have a Redis of their own; with the settings of the other. */
    eventsRedis: () => all.store('redis', ofRedis, 'redis:events'),
    postgres: all.store('postgres', { isFailure: isPostgresOutage, hangMs: POSTGRES_HANGS_MS }),
    temporal: all.store('temporal', { isFailure: isTemporalFailure, hangMs: TEMPORAL_HANGS_MS }),
  };
}

/** Breakers of models, told and heard of through Redis, until disposed. */
export function openModelBreakers(breakers: ProcessBreakers, config: Config, redis: Redis) {
  return breakers.models({
    fleet: createFleetBreakers(redis),
    models: () =>
      Object.keys(config.models).filter(
        (model) => config.providers[model.slice(0, model.indexOf('/'))]?.available === true,
      ),
    isFailure: isProviderFailure,
    // The attempt's own limits end a provider that says nothing long before.
    hangMs: config.call.attemptMs,
    probeLeaseMs: config.call.leaseMs,
  });
}

/** A command that was wrong, or our own code around it, says nothing of the server. */
function isRedisFailure(error: unknown): boolean {
  const isProgramError =
    error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError;
  return !isProgramError && isRedisOutage(error);
}
