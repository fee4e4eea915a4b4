// Work that belongs to nobody in particular: the reaper of holds, the return of budgets to Redis, the sweeper of events, the reconciler of
// tasks, partitions, gauges.
// Workers and gateways all run it; a lock in Postgres lets one at a time do each job.

import type { CallDependencies } from './calls/call.ts';
import { pause } from './calls/pause.ts';
import { type OwnerLife, reap } from './calls/reaper.ts';
import type { TaskExecution } from './client/task-client.ts';
import { type CountQueuesParts, countQueues } from './count-queues.ts';
import type { Logger } from './log.ts';
import type { Metrics } from './metrics.ts';
import { reconcile } from './reconcile.ts';
import { createDriftCheck, type DriftCheck } from './stores/drift.ts';
import type { Postgres } from './stores/postgres.ts';
import type { Redis } from './stores/redis.ts';
import { takesWrites } from './stores/redis-away.ts';
import type { Stores } from './stores/stores.ts';

export type HousekeepingOptions = {
  readonly postgres: Pick<Postgres, 'exclusively' | 'transaction'>;
  readonly redis: Redis;
  readonly stores: Stores;
  readonly calls: CallDependencies;
  readonly lifeOf: OwnerLife;
  readonly describe: (taskId: string, runId: string | undefined) => Promise<TaskExecution | undefined>;
  /** What waits in Temporal's queues. */
  readonly describeQueues: CountQueuesParts['describeQueues'];
  readonly priorityQueues: boolean;
  readonly queueCountIntervalMs: number;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly reaperIntervalMs: number;
  /** How long budgets stay in Postgres at least once they are held there. */
  readonly returnAfterMs: number;
  readonly sweepAfterMs: number;
  readonly reconcileIntervalMs: number;
  readonly driftIntervalMs: number;
  readonly retention: { readonly ledgerMs: number; readonly textsMs: number; readonly eventsMs: number };
};

export type Housekeeping = AsyncDisposable;

const PARTITION_INTERVAL_MS = 3_600_000;
const RETENTION_INTERVAL_MS = 3_600_000;
const DRIFT_LOOK_MS = 200;
const LEARNT_INTERVAL_MS = 2_000;
/** A reader that is further behind catches up from rings and Postgres. */
const KEEP_LIVE_MS = 60_000;

/** Runs every job at its interval until disposed. A job that fails is logged and comes again. */
export function startHousekeeping(options: HousekeepingOptions): Housekeeping {
  const { stores, log } = options;
  const drift = createDriftCheck(options.redis, options.postgres, {
    gate: stores.ledger.gate,
    pause,
    lookEveryMs: DRIFT_LOOK_MS,
  });
  const stopping = new AbortController();
  const jobs: readonly [string, number, () => Promise<unknown>][] = [
    ['reaper', options.reaperIntervalMs, () => reap(options.calls, options.lifeOf)],
    ['gates', options.reaperIntervalMs, () => returnGates(options)],
    ['sweeper', options.sweepAfterMs, () => stores.events.sweep(options.sweepAfterMs)],
    // On its own: where Redis is full of them, nothing can be swept until it has run.
    ['live-feeds', options.sweepAfterMs, () => stores.events.trimLive(KEEP_LIVE_MS)],
    [
      'reconciler',
      options.reconcileIntervalMs,
      () => reconcile(stores, options.describe, options.reconcileIntervalMs),
    ],
    ['queues', options.queueCountIntervalMs, () => countQueues({ ...options, ...stores })],
    ['drift', options.driftIntervalMs, () => checkDrift(drift, options)],
    ...retentionJobs(stores, options.retention),
    ['partitions', PARTITION_INTERVAL_MS, () => stores.ledger.ensurePartitions()],
    ['processes', PARTITION_INTERVAL_MS, () => stores.processes.forgetDead()],
  ];
  const running = jobs.map(([name, everyMs, job]) =>
    repeat(stopping.signal, everyMs, log, name, () =>
      options.postgres.exclusively(`housekeeping.${name}`, job),
    ),
  );
  // Gauges tell of the whole system, so that every process may show them without a lock.
  running.push(
    repeat(stopping.signal, options.reaperIntervalMs, log, 'gauges', () =>
      setGauges(stores, options.metrics),
    ),
  );
  running.push(
    repeat(stopping.signal, options.reaperIntervalMs, log, 'event-log', async () =>
      options.metrics.eventLog.state(await stores.eventLog.state()),
    ),
  );
  // Without a lock, too: each process may be the one that saw the other Redis first.
  running.push(repeat(stopping.signal, LEARNT_INTERVAL_MS, log, 'learnt-rates', () => keepLearnt(options)));
  return {
    async [Symbol.asyncDispose]() {
      stopping.abort(new Error('stopping'));
      await Promise.all(running);
    },
  };
}

/**
 * Budgets go back to Redis once it has served this process for a whole lease. Another process may still be cut off from it: then its next
 * call moves them again.
 */
async function returnGates({ redis, stores, calls, returnAfterMs, log }: HousekeepingOptions): Promise<void> {
  if (stores.gate.connectedForMs() < calls.settings.leaseMs) return;
  // Connected is not served: a server that loads its snapshot is asked again at the next interval.
  if (!(await takesWrites(redis))) return;
  const returned = await stores.gate.returnToRedis(returnAfterMs);
  if (returned > 0) log.info('budgets are held in redis again', { tenants: returned });
}

async function repeat(
  signal: AbortSignal,
  everyMs: number,
  log: Logger,
  name: string,
  job: () => Promise<unknown>,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await job();
    } catch (error) {
      log.warn('housekeeping failed, comes again', { job: name, error });
    }
    // Jittered, so that processes started together do not ask for the lock together.
    await pause(everyMs * (0.75 + Math.random() / 2), signal).catch(
      () => undefined /* stopped while waiting */,
    );
  }
}

/** What is older than it has to be kept. Sums of dropped months stay. */
function retentionJobs(
  { retention }: Stores,
  keep: HousekeepingOptions['retention'],
): readonly [string, number, () => Promise<unknown>][] {
  const before = (ms: number) => new Date(Date.now() - ms);
  return [
    ['ledger-retention', RETENTION_INTERVAL_MS, () => retention.dropOldPartitions(before(keep.ledgerMs))],
    ['text-retention', RETENTION_INTERVAL_MS, () => retention.dropOldTexts(before(keep.textsMs))],
    ['note-retention', RETENTION_INTERVAL_MS, () => retention.dropOldNotes(before(keep.textsMs))],
    ['event-retention', RETENTION_INTERVAL_MS, () => retention.dropOldEvents(before(keep.eventsMs))],
  ];
}

async function checkDrift(check: DriftCheck, { metrics, log }: HousekeepingOptions): Promise<void> {
  const { drifts } = await check.pass();
  for (const drift of drifts)
    log.error('a budget counter differed from the ledger and is rebuilt', {
      tenant: drift.tenantId,
      scope: `${drift.scope.kind} ${drift.scope.id}`,
      interval: drift.interval,
      settledNanoUsd: drift.settledNanoUsd.toString(),
      heldNanoUsd: drift.heldNanoUsd.toString(),
      settledTokens: drift.settledTokens.toString(),
      heldTokens: drift.heldTokens.toString(),
    });
  const off = drifts.reduce((sum, one) => sum + abs(one.settledNanoUsd) + abs(one.heldNanoUsd), 0n);
  metrics.drift(Number(off) / 1e9);
}

function abs(amount: bigint): bigint {
  return amount < 0n ? -amount : amount;
}

/** What was learnt of providers' limits outlives Redis, and the limits of now are shown. */
async function keepLearnt({ redis, stores, metrics }: HousekeepingOptions): Promise<void> {
  const { learntRates, rateReports } = stores;
  await learntRates.keep(rateReports.providers());
  if (redis.connectedForMs() > 0) metrics.rates(await rateReports.ofModels());
}

async function setGauges(stores: Stores, metrics: Metrics): Promise<void> {
  const holds = await stores.ledger.openHolds();
  metrics.holdsOpen.set(holds.count);
  metrics.oldestHoldSeconds.set(holds.oldestSeconds);
  metrics.queues(await stores.queueCounts.read());
  metrics.tasksWaiting.set({ reason: 'limit' }, await stores.tasks.waitingCount());
}
