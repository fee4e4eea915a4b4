// The processes of a run: each has the real gate, hydration and governed call of its own, on the run's servers.

import { FREE_ENTRY } from '../../src/calls/breaker-machine.ts';
import type { CallDependencies, CallSettings } from '../../src/calls/call.ts';
import { createDeltaRoom } from '../../src/calls/delta-room.ts';
import { createCalls } from '../../src/calls/govern.ts';
import { pause } from '../../src/calls/pause.ts';
import { createSpendBreaker, type SpendBreaker } from '../../src/calls/spend-breaker.ts';
import type { Logger } from '../../src/log.ts';
import { createBudgetGate } from '../../src/stores/budget-gate.ts';
import type { Calendars } from '../../src/stores/calendars.ts';
import type { Events } from '../../src/stores/events.ts';
import { createGate, type HoldRequest } from '../../src/stores/gate.ts';
import { createHydrate } from '../../src/stores/hydrate.ts';
import type { Postgres } from '../../src/stores/postgres.ts';
import { createRates } from '../../src/stores/rates.ts';
import type { ScopeSums } from '../../src/stores/scope-sums.ts';
import type { PriceEntry } from '../../src/task/price.ts';
import type { Book } from './book.ts';
import { countWords, createProvider, INPUT_NANO, INPUT_TOKENS, OUTPUT_NANO } from './provider.ts';
import type { RedisServer } from './redis-in-world.ts';
import { ledgerOf, limitsOf, rowsOf, type Tables } from './tables.ts';
import { type Process, StoreAway, type World } from './world.ts';

export const MODEL = 'simulated/small';
export const LEASE_MS = 2_000;

const SETTINGS: CallSettings = {
  firstTokenMs: 60_000,
  chunkGapMs: 60_000,
  attemptMs: 60_000,
  inlineWaitMs: 250,
  leaseMs: LEASE_MS,
  leaseRenewalMs: 600,
  attemptsPerCandidate: 3,
  attemptsPerCall: 6,
  shortHintMs: 5_000,
  estimatePolicy: 'charge_estimate',
  rateControl: false,
  backpressure: { threshold: 0.8, maxDelayMs: 400, table: [{ at: 0.8, ms: 100 }] },
  deltaIntervalMs: 50,
  deltaBytes: 2_048,
  deltaFlushMs: 500,
  drainCapMs: 1_000,
  unknownPrice: 'refuse',
  ceiling: { input: 1n, output: 1n },
};

const PER_PRICE = 1_000_000n;

const PRICE: PriceEntry = {
  validFromMs: 0,
  input: INPUT_NANO * PER_PRICE,
  cachedInput: INPUT_NANO * PER_PRICE,
  cacheWrite5m: INPUT_NANO * PER_PRICE,
  cacheWrite1h: INPUT_NANO * PER_PRICE,
  output: OUTPUT_NANO * PER_PRICE,
  above: [],
};

export type Worker = {
  readonly process: Process;
  readonly dependencies: CallDependencies;
  readonly calls: ReturnType<typeof createCalls>;
  readonly spendBreaker: SpendBreaker;
};

export type WorkerParts = {
  readonly world: World;
  readonly tables: Tables;
  readonly book: Book;
  readonly server: RedisServer;
  readonly calendars: Calendars;
  readonly rateControl: boolean;
};

/** Most runs have no rates: they would only make them longer. */
const NO_RATES = new Proxy({}, { get: () => async () => undefined }) as CallDependencies['rates'];

/** Nothing of a run is measured, whatever there is to measure. */
const UNMEASURED = new Proxy({}, { get: () => () => undefined }) as CallDependencies['meter'];

const SILENT: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => SILENT,
  isDebugEnabled: false,
};

export function createWorker(parts: WorkerParts, process: Process): Worker {
  const { world, tables, book, server, calendars } = parts;
  const redis = server.connect(process);
  const ledger = ledgerOf(world, tables, process);
  const plain = createGate(redis, { leaseMs: LEASE_MS, markerTtlMs: 3_600_000, calendars });
  const gate = {
    ...plain,
    hold: (request: HoldRequest) => book.holds(request, () => plain.hold(request)),
  };
  const hydrate = createHydrate(redis, {
    leaseMs: LEASE_MS,
    readSums: ({ scope, intervals }) =>
      world.op(process, 'postgres', `sums of ${scope.kind} ${scope.id}`, () =>
        tables.sums(scope, intervals),
      ) as Promise<ScopeSums>,
  });
  const spendBreaker = createSpendBreaker({
    enabled: false,
    intervalMs: 5_000,
    timeoutMs: 1_000,
    failureThreshold: 2,
  });
  const dependencies: CallDependencies = {
    models: createProvider(world, book, process),
    catalog: {
      priceHash: 'hash',
      modelOf: (id) => (id === MODEL ? { maxOutputTokens: 100, prices: [PRICE] } : undefined),
    },
    tokens: {
      upperBound: () => 2 * INPUT_TOKENS,
      closerBound: async () => INPUT_TOKENS + 2,
      count: async (text) => countWords(text),
    },
    gate: createBudgetGate({
      postgres: {} as Postgres, // only moves of the gate ask it, and there are none here
      redis: gate,
      postgresGate: rowsOf(world, tables, process),
      hydrate,
      ledger,
      isRedisAway: async () => false,
      leaseMs: LEASE_MS,
      options: { store: 'redis', redisDown: 'closed', onMoved: () => undefined },
    }),
    ledger,
    limits: limitsOf(world, tables, process),
    thresholds: { cross: async () => false },
    spendBreaker,
    rates: parts.rateControl
      ? createRates(redis, {
          leaseMs: LEASE_MS,
          rules: { provider: () => ({ rpm: 600, maxParallel: 2 }) },
          callers: () => 1,
        })
      : NO_RATES,
    learntRates: { heard: async () => undefined, throttled: async () => undefined },
    // Calls of a run have no task row and so no events; whoever asks for them finds nothing.
    events: {} as Events,
    deltaRoom: createDeltaRoom(),
    breakerOf: () => ({ enter: async () => FREE_ENTRY }),
    messagesOf: async () => undefined,
    isOutage: (error) => error instanceof StoreAway && error.store === 'postgres',
    pause,
    settings: { ...SETTINGS, rateControl: parts.rateControl },
    meter: UNMEASURED,
    log: SILENT,
  };
  return { process, dependencies, calls: createCalls(dependencies), spendBreaker };
}
