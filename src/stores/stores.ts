// Every store of one process, on top of its two connections. Opening and closing those is up to who composes the process.

import { createAccounts } from './accounts.ts';
import { createApprovals } from './approvals.ts';
import { type BudgetGateOptions, createBudgetGate } from './budget-gate.ts';
import { type CalendarSettings, createCalendars } from './calendars.ts';
import { createErase } from './erase.ts';
import { createEventLog, type EventLogOptions } from './event-log.ts';
import { createEvents, type EventOptions } from './events.ts';
import { createGate } from './gate.ts';
import { createHydrate } from './hydrate.ts';
import { createLearntRates, providerOf } from './learnt-rates.ts';
import { createLedger, type LostAttempts } from './ledger.ts';
import type { DefaultLimits } from './limits.ts';
import { createLimits } from './limits.ts';
import { LiveFeed, type LiveFeedOptions } from './live-feed.ts';
import type { Postgres } from './postgres.ts';
import { createPostgresGate } from './postgres-gate.ts';
import { createProcesses } from './processes.ts';
import { createQueueCounts } from './queue-counts.ts';
import { createRateReports } from './rate-report.ts';
import { createRates, type RateOptions } from './rates.ts';
import type { Redis } from './redis.ts';
import { createIsRedisAway } from './redis-away.ts';
import { createRerateRows } from './rerate-rows.ts';
import { createRetention } from './retention.ts';
import { readScopeSums } from './scope-sums.ts';
import { createShares } from './shares.ts';
import { createTasks } from './tasks.ts';
import { createThresholds } from './thresholds.ts';

export type StoreOptions = {
  readonly leaseMs: number;
  /** Longest attempt; markers of ended attempts outlive it by an hour. */
  readonly attemptMs: number;
  readonly defaultLimits: DefaultLimits;
  /** Left out: the platform pays for attempts that brought no answer. */
  readonly lostAttempts?: LostAttempts;
  /** Which gate admits, and what becomes of it when Redis is away; without it: Redis, and Postgres then. */
  readonly budget?: BudgetGateOptions;
  readonly calendar: CalendarSettings;
  /** Left out: nothing is limited. */
  readonly rates?: Pick<RateOptions, 'rules' | 'classes' | 'onBookingsLost'>;
  /** Models whose limits are reported and kept, as `provider/model`; left out: none. */
  readonly models?: () => readonly string[];
  readonly events: EventOptions;
  /** Left out: batches of 500. */
  readonly eventLog?: EventLogOptions;
  /** Left out: as shipped. */
  readonly liveFeed?: Omit<LiveFeedOptions, 'ringCapacity'>;
  /** Where events have a Redis of their own; left out: the same. */
  readonly eventsRedis?: Redis | undefined;
  /** Tasks that a tenant may have without an end; left out: any number. */
  readonly maxQueued?: number | undefined;
};

export type Stores = ReturnType<typeof createStores>;

const HOUR_MS = 3_600_000;

const DEFAULT_EVENT_LOG: EventLogOptions = { batchSize: 500, onRefused: () => undefined };

const DEFAULT_LIVE_FEED: Omit<LiveFeedOptions, 'ringCapacity'> = {
  coalesceMs: 50,
  backlogEvents: 1_000,
  backlogBytes: 262_144,
};

const DEFAULT_BUDGET: BudgetGateOptions = {
  store: 'redis',
  redisDown: 'postgres',
  onMoved: () => undefined,
};

export function createStores(postgres: Postgres, redis: Redis, options: StoreOptions) {
  const eventsRedis = options.eventsRedis ?? redis;
  const calendars = createCalendars(options.calendar);
  const limits = createLimits(postgres, options.defaultLimits, calendars);
  const ledger = createLedger(postgres, { lostAttempts: options.lostAttempts ?? 'platform' });
  const redisGate = createGate(redis, {
    leaseMs: options.leaseMs,
    markerTtlMs: options.attemptMs + HOUR_MS,
    calendars,
  });
  const hydrate = createHydrate(redis, {
    leaseMs: options.leaseMs,
    readSums: ({ tenantId, scope, intervals }) => readScopeSums(postgres, tenantId, scope, intervals),
  });
  const processes = createProcesses(postgres);
  const rates = createRates(redis, {
    leaseMs: options.leaseMs,
    ...options.rates,
    callers: processes.lastCount,
  });
  return {
    accounts: createAccounts(postgres),
    approvals: createApprovals(postgres, limits),
    erase: createErase(postgres, eventsRedis),
    events: createEvents(postgres, eventsRedis, options.events),
    eventLog: createEventLog(postgres, eventsRedis, options.eventLog ?? DEFAULT_EVENT_LOG),
    gate: createBudgetGate({
      postgres,
      redis: redisGate,
      postgresGate: createPostgresGate(postgres, { leaseMs: options.leaseMs, calendars }),
      hydrate,
      ledger,
      isRedisAway: createIsRedisAway(redis),
      leaseMs: options.leaseMs,
      options: options.budget ?? DEFAULT_BUDGET,
    }),
    hydrate,
    ledger,
    limits,
    liveFeed: new LiveFeed(eventsRedis, {
      ...(options.liveFeed ?? DEFAULT_LIVE_FEED),
      ringCapacity: options.events.ringCapacity,
    }),
    processes,
    redisGate,
    queueCounts: createQueueCounts(postgres),
    rates,
    learntRates: createLearntRates(redis, postgres, {
      configuredOf: (model) => ({
        model: options.rates?.rules?.model?.(model) ?? {},
        provider: options.rates?.rules?.provider?.(providerOf(model)) ?? {},
      }),
      bursts: options.rates?.classes,
      onUnheard: rates.cool,
    }),
    rateReports: createRateReports(redis, { ...options.rates, models: options.models }),
    rerateRows: createRerateRows(postgres),
    retention: createRetention(postgres),
    shares: createShares(postgres, limits),
    tasks: createTasks(postgres, options.maxQueued),
    thresholds: createThresholds(postgres),
  };
}
