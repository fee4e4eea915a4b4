// Client processes that keep Redis busy. Every job runs through the same processes, each with one connection, the same number of
// commands in flight, and no batching: what differs between two figures is the command alone.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createCalendars } from '../src/stores/calendars.ts';
import { createHydrate, type HydrateOptions, type HydrateRequest } from '../src/stores/hydrate.ts';
import type { BindingLimit, LimitWindow, Payer } from '../src/task/budget.ts';
import { scopesOf } from '../src/task/budget.ts';
import type { Batch } from './event-load.ts';
import { type BenchStores, median, spread } from './harness.ts';

/** Whose holds they are, and how many limits each of their scopes has. */
export type Shape = {
  readonly tenant: string;
  readonly payers: number;
  /** 3: tenant, user and task; 4: a session as well. */
  readonly scopes: 3 | 4;
  /** Of each scope. Even numbers: half in USD and half in tokens, one pair for each window. */
  readonly limits: 1 | 2 | 4 | 8;
  /** Whether the ledger has charges of this tenant, which its counters are then read from. */
  readonly hasCharges?: boolean;
};

export type Job =
  | { readonly kind: 'incr' }
  | { readonly kind: 'hold'; readonly shape: Shape }
  /** A hold and its release, counted as one. */
  | { readonly kind: 'holdAndRelease'; readonly shape: Shape }
  /** A permit of a provider; 4: and of its model. Each is limited in requests and in tokens. */
  | { readonly kind: 'permit'; readonly buckets: 2 | 4 }
  /** One event as an entry of a stream. */
  | { readonly kind: 'xadd'; readonly batch: Batch }
  /** A batch of events, published. */
  | { readonly kind: 'publish'; readonly batch: Batch };

export type Order = { readonly job: Job; readonly ms: number; readonly inFlight: number };
export type Report = { readonly done: number; readonly ms: number; readonly cpuMicros: number };

export type Figures = {
  /** Operations a second, a value for each round. */
  readonly rates: readonly number[];
  /** Time that Redis' own process computed for one operation, in microseconds. */
  readonly redisMicros: readonly number[];
  /** The same of the client processes. */
  readonly clientMicros: readonly number[];
};

export type Load = AsyncDisposable & {
  /** Runs the jobs by turns, so that whatever else the machine does meets all of them. */
  measure(jobs: readonly Job[], rounds: { count: number; ms: number }): Promise<readonly Figures[]>;
};

const WINDOWS: readonly LimitWindow[] = ['month', 'day', 'week', 'hour'];
const NO_BOUND = 9_000_000_000_000_000n;
const WARM_UP_MS = 1_000;

export function payerOf(shape: Shape, n: number): Payer {
  const number = n % shape.payers;
  return {
    tenantId: shape.tenant,
    userId: `user-${number % Math.ceil(shape.payers / 10)}`,
    ...(shape.scopes === 4 && { sessionId: `session-${number % Math.ceil(shape.payers / 5)}` }),
    taskId: `task-${number}`,
  };
}

export function limitsOf(shape: Shape, payer: Payer): readonly BindingLimit[] {
  const units = shape.limits === 1 ? (['usd'] as const) : (['usd', 'tokens'] as const);
  const windows = WINDOWS.slice(0, Math.ceil(shape.limits / units.length));
  return scopesOf(payer).flatMap((scope) =>
    windows.flatMap((window) =>
      units.map((unit) => ({ scope, unit, window, amount: NO_BOUND, hard: true, warnAt: 0.8 })),
    ),
  );
}

/** Starts the processes. More than one, since one Node process cannot fill a Redis; no more than fit beside it on the machine. */
export async function startLoad(
  bench: BenchStores,
  options: { processes: number; inFlight: number },
): Promise<Load> {
  const children = Array.from({ length: options.processes }, (_, index) =>
    fork(new URL('./load-process.ts', import.meta.url), [bench.servers.redis, bench.name, String(index)]),
  );
  await Promise.all(children.map((child) => once(child, 'message')));
  const run = async (job: Job, ms: number) => {
    const before = await redisCpuMicros(bench);
    const reports = await Promise.all(
      children.map((child) => ask(child, { job, ms, inFlight: options.inFlight })),
    );
    const used = (await redisCpuMicros(bench)) - before;
    const done = reports.reduce((sum, report) => sum + report.done, 0);
    const rate = reports.reduce((sum, report) => sum + (1_000 * report.done) / report.ms, 0);
    const clients = reports.reduce((sum, report) => sum + report.cpuMicros, 0);
    return { rate, redisMicros: used / done, clientMicros: clients / done };
  };
  return {
    async measure(jobs, rounds) {
      for (const job of jobs) if ('shape' in job) await hydrate(bench, job.shape);
      for (const job of jobs) await run(job, WARM_UP_MS);
      const figures = jobs.map(() => ({
        rates: [] as number[],
        redisMicros: [] as number[],
        clientMicros: [] as number[],
      }));
      for (let round = 0; round < rounds.count; round += 1)
        for (const [index, job] of jobs.entries()) {
          const { rate, redisMicros, clientMicros } = await run(job, rounds.ms);
          figures[index]?.rates.push(rate);
          figures[index]?.redisMicros.push(redisMicros);
          figures[index]?.clientMicros.push(clientMicros);
        }
      return figures;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(
        children.map(async (child) => {
          child.disconnect();
          if (child.exitCode === null) await once(child, 'exit');
        }),
      );
    },
  };
}

/** Columns of a table of figures, and a row of it. */
export const COLUMNS = [
  'operation',
  'against the first',
  'a second (least to most)',
  'Redis, us each',
  'clients, us each',
];

export function rowOf(name: string, base: Figures | undefined, figures: Figures | undefined): string[] {
  return [
    name,
    `${ratio(base, figures).toFixed(3)}x`,
    spread(figures?.rates ?? []),
    spread(figures?.redisMicros ?? [], 1),
    spread(figures?.clientMicros ?? [], 1),
  ];
}

/** How fast `job` is against `base`, round by round, and then the median of that. */
export function ratio(base: Figures | undefined, job: Figures | undefined): number {
  const rates = job?.rates ?? [];
  return median(rates.map((rate, round) => rate / (base?.rates[round] ?? Number.NaN)));
}

async function ask(child: ChildProcess, order: Order): Promise<Report> {
  child.send(order);
  const gone = new AbortController();
  try {
    const answer = await Promise.race([
      once(child, 'message', { signal: gone.signal }),
      once(child, 'exit', { signal: gone.signal }).then(([code]) => {
        throw new Error(`a client process ended with ${code}`);
      }),
    ]);
    return answer[0] as Report;
  } finally {
    gone.abort();
  }
}

/** Counters of every scope and window that the holds will ask for, by the scripts that make them in production. */
async function hydrate(bench: BenchStores, shape: Shape): Promise<void> {
  await bench.stores.ledger.gate(shape.tenant);
  const rebuild =
    shape.hasCharges === true ? bench.stores.hydrate : createHydrate(bench.redis, NOTHING_BOOKED);
  const requests = new Map<string, HydrateRequest>();
  for (let n = 0; n < shape.payers; n += 1)
    for (const { scope, ...limit } of limitsOf(shape, payerOf(shape, n))) {
      const name = `${scope.kind} ${scope.id}`;
      const interval = CALENDARS.intervalOf(limit, Date.now());
      const intervals = requests.get(name)?.intervals ?? [];
      const all = intervals.includes(interval) ? intervals : [...intervals, interval];
      requests.set(name, { tenantId: shape.tenant, scope, intervals: all, generation: 1n });
    }
  const queue = requests.values();
  const lane = async () => {
    for (const request of queue) await rebuild(request);
  };
  await Promise.all(Array.from({ length: 20 }, lane));
}

const CALENDARS = createCalendars({ zone: 'UTC', weekStart: 'monday' });

/** True of a tenant without charges, and a hundred thousand scopes are ready sooner than by as many queries. */
const NOTHING_BOOKED: HydrateOptions = {
  leaseMs: 60_000,
  readSums: async ({ intervals }) => ({
    started: [],
    settled: intervals.map(() => ({ nanoUsd: 0n, tokens: 0n })),
  }),
};

export const ESTIMATE = { nanoUsd: 1_000_000n, tokens: 1_500, inputTokens: 500, maxOutputTokens: 1_000 };

async function redisCpuMicros({ redis }: BenchStores): Promise<number> {
  const info = await redis.command((client) => client.info('cpu'));
  const seconds = ['used_cpu_sys', 'used_cpu_user'].map((name) =>
    Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(info)?.[1]),
  );
  return seconds.reduce((sum, value) => sum + value * 1e6, 0);
}
