// Every store of one process, on top of its two connections. Opening and closing those is up to who composes the process.

import { createAccounts } from './accounts.ts';
import { createEvents, type EventOptions } from './events.ts';
import { createGate } from './gate.ts';
import { createHydrate } from './hydrate.ts';
import { createLedger } from './ledger.ts';
import type { DefaultLimits } from './limits.ts';
import { createLimits } from './limits.ts';
import type { Postgres } from './postgres.ts';
import { createRates, type ProviderRate } from './rates.ts';
import type { Redis } from './redis.ts';
import { createTasks } from './tasks.ts';

export type StoreOptions = {
  readonly leaseMs: number;
  /** Longest attempt; markers of ended attempts outlive it by an hour. */
  readonly attemptMs: number;
  readonly defaultLimits: DefaultLimits;
  readonly rateOf: (provider: string) => ProviderRate;
  readonly events: EventOptions;
};

export type Stores = ReturnType<typeof createStores>;

const HOUR_MS = 3_600_000;

export function createStores(postgres: Postgres, redis: Redis, options: StoreOptions) {
  return {
    accounts: createAccounts(postgres),
    events: createEvents(postgres, redis, options.events),
    gate: createGate(redis, { leaseMs: options.leaseMs, markerTtlMs: options.attemptMs + HOUR_MS }),
    hydrate: createHydrate(redis, postgres, { leaseMs: options.leaseMs }),
    ledger: createLedger(postgres),
    limits: createLimits(postgres, options.defaultLimits),
    rates: createRates(redis, { leaseMs: options.leaseMs, limitOf: options.rateOf }),
    tasks: createTasks(postgres),
  };
}
