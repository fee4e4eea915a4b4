// Many calls while everything around them breaks: workers are killed and stores fail at seeded moments of the run, and at the end the
// ledger is held against what the providers saw.

import { setTimeout as delay } from 'node:timers/promises';
import { type Comparison, compareCharges, isUnheard } from '../../dev/oracle/compare.ts';
import { seededChance } from '../../dev/simulated-provider/duration.ts';
import { TaskExistsError } from '../../src/client/task-client.ts';
import { loadConfig } from '../../src/config.ts';
import { PRIORITIES } from '../../src/task/input.ts';
import { idle } from './chaos-counters.ts';
import { eventually } from './eventually.ts';
import type { Fleet } from './fleet.ts';
import { type KilledWorkers, startKilledWorkers } from './kill-workers.ts';

/** The run's own seed, or the one that is to be run again. */
export const SEED = Number(process.env['WEIR_FAULT_SEED'] ?? Date.now() % 1_000_000);

export type StormOptions = {
  readonly seed: number;
  readonly calls: number;
  readonly kills: number;
  readonly workers: number;
  /** Tasks submitted a second, as long as Temporal takes them. */
  readonly perSecond: number;
  /** What happens to servers; one at a time, in an order and at moments of the seed's. */
  readonly outages?: readonly (() => Promise<void>)[];
  /** How long a kill waits for its worker to have a request under way. */
  readonly patienceMs?: number;
  /** How long tasks may take to end once all were submitted. */
  readonly drainMs?: number;
};

export type StormReport = Comparison & {
  readonly completed: number;
  readonly cutRequests: number;
  readonly seconds: number;
  readonly holdsZeroAfterSeconds: number;
  readonly counters: number;
};

/** Streams of 0.2 to 2 seconds. */
const PACE = {
  firstTokenMs: { kind: 'uniform', minMs: 50, maxMs: 400 },
  chunkDelayMs: { kind: 'uniform', minMs: 10, maxMs: 90 },
  tokensPerChunk: 4,
} as const;
const PATIENCE_MS = 5_000;
/** Twice in a row, calls that lost their worker wait for leases, heartbeats and sticky queues to run out. */
const DRAIN_MS = 600_000;

/** Limits that every call of the storm must pass, on all scopes and of several windows, and that none of it reaches. */
const ROOMY_LIMITS = `
rates:
  providers: {simulated: {rpm: unlimited, tpm: unlimited, maxParallel: unlimited}}
  tiers: {small: {rpm: unlimited, tpm: unlimited}}
budgets:
  tenant: [{unit: usd, window: month, amount: "900.00"}, {unit: tokens, window: hour, amount: 900000000}]
  user: [{unit: usd, window: day, amount: "90.00"}, {unit: usd, window: total, amount: "900.00"}]
  session: [{unit: tokens, window: total, amount: 90000000}]
  task: [{unit: usd, window: total, amount: "1.00"}]
`;

/** What a fleet needs for a storm. Nothing mends counters by the way: what is wrong must be seen at the end. */
export const STORM_FLEET = {
  config: { 'limits.yaml': ROOMY_LIMITS },
  env: { WEIR_BUDGET_DRIFT_INTERVAL: '24h' },
} as const;

/** Shorter than the defaults, so that a lost attempt is noticed in three seconds; the long runs use the defaults. */
export const IMPATIENT = {
  WEIR_CALL_HEARTBEAT_TIMEOUT: '3s',
  WEIR_CALL_LEASE: '3s',
  WEIR_CALL_LEASE_RENEWAL: '750ms',
} as const;

/** Submits, breaks, waits until every task has ended and nothing is held, and compares. */
export async function storm(fleet: Fleet, options: StormOptions): Promise<StormReport> {
  const startedAt = performance.now();
  const chance = seededChance(options.seed);
  await using workers = await startKilledWorkers(fleet, { workers: options.workers, provider: PACE });
  const kills = inOrder(killEvents(options, workers, chance), options.calls);
  const outages = inOrder(outageEvents(options, chance), options.calls);
  const taskIds = Array.from({ length: options.calls }, (_, n) => `storm-${options.seed}-${n}`);
  for (const [n, taskId] of taskIds.entries()) {
    await Promise.all([kills(n), outages(n)]);
    await submit(fleet, taskId, n);
    await delay((1_000 / options.perSecond) * (0.5 + chance()));
  }
  const completed = await allEnded(fleet, taskIds, options.drainMs ?? DRAIN_MS);
  const { seconds: holdsZeroAfterSeconds, counters } = await idle(fleet.test);
  const comparison = compareCharges({
    requests: workers.requests(),
    rows: await fleet.test.stores.accounts.rows({ taskIds }),
    pricesOf: priceList(fleet.configDir),
    mayBeEstimated: workers.mayBeLost,
    mayBeUnsent: (row) => workers.mayBeLost(row.attemptKey) || isUnheard(row),
    answeredTasks: taskIds,
  });
  return {
    ...comparison,
    faults: [...comparison.faults, ...workers.crashes()],
    completed,
    cutRequests: workers.cutRequests(),
    seconds: Math.round((performance.now() - startedAt) / 1_000),
    holdsZeroAfterSeconds,
    counters,
  };
}

/** The last calls come when nothing breaks any more: counters that were lost at the end are there again, and can be looked at. */
const SHARE_OF_STORM = 0.95;

/** `at` counts submitted tasks. */
type StormEvent = { readonly at: number; readonly happen: () => Promise<unknown> };

/** Spread over the run, each at a random place of its share; every fifth kill takes two workers at once. */
function killEvents(
  { kills, calls, workers: count, patienceMs = PATIENCE_MS }: StormOptions,
  workers: KilledWorkers,
  chance: () => number,
): StormEvent[] {
  const events: StormEvent[] = [];
  for (let n = 0; n < kills; n += 1) {
    const at = ((n + 0.1 + 0.8 * chance()) / kills) * SHARE_OF_STORM * calls;
    const first = Math.floor(chance() * count);
    const isTwin = n % 4 === 1 && n + 1 < kills && count > 1;
    const slots = isTwin ? [first, (first + 1) % count] : [first];
    if (isTwin) n += 1;
    events.push({ at, happen: () => Promise.all(slots.map((slot) => workers.kill(slot, patienceMs))) });
  }
  return events;
}

function outageEvents({ outages = [], calls }: StormOptions, chance: () => number): StormEvent[] {
  const drawn = outages.map((happen) => ({ happen, order: chance() })).sort((a, b) => a.order - b.order);
  return drawn.map(({ happen }, n) => ({
    at: ((n + 0.1 + 0.8 * chance()) / drawn.length) * SHARE_OF_STORM * calls,
    happen,
  }));
}

/**
 * One event after the other, beside the submission and at most one behind it: on a slow machine the submission waits, or the rest of the
 * kills would come when nothing is left to do. Answers what to call before each submission.
 */
function inOrder(events: readonly StormEvent[], calls: number): (n: number) => Promise<void> {
  const left = [...events];
  let last: Promise<unknown> = Promise.resolve();
  let before = last;
  return async (n) => {
    while (left[0] !== undefined && left[0].at <= n) {
      await before;
      before = last;
      last = last.then(left.shift()?.happen);
      // Whoever comes next is told of a failure; until then nobody has to be.
      last.catch(() => undefined);
    }
    if (n >= SHARE_OF_STORM * calls) await last;
  };
}

/** The id makes it safe to repeat: a start whose answer was lost is found. */
async function submit(fleet: Fleet, taskId: string, n: number): Promise<void> {
  const input = {
    tenantId: `tenant-${n % 3}`,
    userId: `user-${n % 7}`,
    sessionId: `session-${n % 11}`,
    priority: PRIORITIES[n % PRIORITIES.length],
    query: `Summarise note ${n}. Rivers carry water to the sea. Weirs hold it back and measure it.`,
  };
  await eventually(async () => {
    try {
      await fleet.tasks.start(input, taskId);
    } catch (error) {
      if (!(error instanceof TaskExistsError)) throw error;
    }
  }, 120_000);
}

/** First as Postgres sees it, which is cheap to ask; then each task's result, as its user gets it. Answers how many completed. */
async function allEnded(fleet: Fleet, taskIds: readonly string[], drainMs: number): Promise<number> {
  await eventually(async () => {
    const { rows } = await fleet.test.postgres.query<{ taskId: string }>(
      'select task_id as "taskId" from tasks where task_id = any($1) and ended_at is not null',
      [taskIds],
    );
    const ended = new Set(rows.map((row) => row.taskId));
    const open = taskIds.filter((taskId) => !ended.has(taskId));
    if (open.length > 0)
      throw new Error(`${open.length} tasks have not ended: ${open.slice(0, 5).join(', ')}`);
  }, drainMs);
  let completed = 0;
  for (const taskId of taskIds) {
    const result = await fleet.tasks.result(taskId);
    if (result.status === 'completed') completed += 1;
  }
  return completed;
}

export function priceList(configDir?: string) {
  const { models } = loadConfig({ env: {}, configDir });
  return (model: string) => models[model]?.prices ?? [];
}

/** A storm in one line. */
export function stormFigures({ seed, kills, calls }: StormOptions, report: StormReport) {
  const { faults, holdsZeroAfterSeconds, ...figures } = report;
  return {
    ...{ seed, kills, calls, ...figures },
    'holds 0 after': `${holdsZeroAfterSeconds.toFixed(1)} s`,
    faults: faults.length,
  };
}
