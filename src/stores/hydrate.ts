// Rebuilds counters of a scope in Redis from Postgres: after a flush, a restart, when a limit meets a scope for the first time, or when
// a window turned. One rebuild per scope and process at a time.

import { randomBytes } from 'node:crypto';
import type { Scope } from '../task/budget.ts';
import { type Interval, toIntervalKey } from '../task/window.ts';
import { holdFunctions } from './hold-functions.ts';
import { budgetKeys, nameOfScope } from './keys.ts';
import type { Redis } from './redis.ts';
import type { ScopeSums } from './scope-sums.ts';

/** How long a rebuild may take before another one may begin; longer than a statement may, or two would overtake each other for ever. */
const FENCE_MS = 10_000;
const BUSY_POLL_MS = 20;

export type HydrateRequest = {
  readonly tenantId: string;
  readonly scope: Scope;
  readonly intervals: readonly Interval[];
  readonly generation: bigint;
};

export type Hydrate = (request: HydrateRequest) => Promise<void>;

export type HydrateOptions = {
  readonly leaseMs: number;
  /** Settled sums and attempts under way, of one moment. */
  readonly readSums: (request: Omit<HydrateRequest, 'generation'>) => Promise<ScopeSums>;
};

/** Resolves when the intervals are hydrated under the given generation and the present Redis. Throws when a store is down. */
export function createHydrate(redis: Redis, options: HydrateOptions): Hydrate {
  // Two calls of one process that miss the same counters share one rebuild instead of invalidating each other's.
  const underWay = new Map<string, Promise<void>>();
  return (request) => {
    const name = JSON.stringify([
      request.tenantId,
      request.scope.kind,
      request.scope.id,
      request.generation.toString(),
      ...request.intervals.map(toIntervalKey),
    ]);
    const running = underWay.get(name);
    if (running !== undefined) return running;
    const started = rebuild(redis, options, request).finally(() => underWay.delete(name));
    underWay.set(name, started);
    return started;
  };
}

async function rebuild(redis: Redis, options: HydrateOptions, request: HydrateRequest): Promise<void> {
  const keys = budgetKeys(redis.prefix, request.tenantId);
  const scopeKey = keys.scope(request.scope.kind, request.scope.id);
  const intervalKeys = request.intervals.map(toIntervalKey);
  for (;;) {
    // As long as a scope has room for.
    const token = randomBytes(12).toString('base64url');
    const wanted = `${request.generation}:${await redis.runId()}`;
    const begun = await redis.run(
      holdFunctions['hydrate-begin'],
      [scopeKey],
      [token, wanted, FENCE_MS, ...intervalKeys],
    );
    if (begun === 'READY') return;
    if (begun === 'BUSY') {
      await new Promise((resolve) => setTimeout(resolve, BUSY_POLL_MS));
      continue;
    }
    const sums = await options.readSums(request).catch(async (error: unknown) => {
      // Who comes next need not wait for the fence of a rebuild that failed.
      await redis.run(holdFunctions['hydrate-stop'], [scopeKey], [token]);
      throw error;
    });
    const counted = sums.settled.flatMap(({ nanoUsd, tokens }, index) => [
      intervalKeys[index] ?? '',
      nanoUsd.toString(),
      tokens.toString(),
    ]);
    const started = sums.started.map(({ scopes, ...attempt }) => ({
      ...attempt,
      scopes: scopes.map(([kind, id]) => nameOfScope({ kind, id })).join('\n'),
      count: scopes.length,
    }));
    const written = await redis.run(
      holdFunctions['hydrate-write'],
      [keys.holds, keys.leases, scopeKey],
      [token, wanted, options.leaseMs, intervalKeys.length, ...counted, JSON.stringify(started)],
    );
    if (written === 'OK') return;
  }
}
