// Claim: one gateway process delivers 100 events a second to each of 1,000 readers with at most 150 ms from publishing to reading (99 of
// 100) on at most half a core; 50 readers that never read are closed, cost no more memory than their bounds, and slow nobody; gathering
// the events of 50 ms delivers at least 8 times as many as sending each as it comes. `--profile` leaves processor profiles in the folder.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { parseTaskInput } from '../src/task/input.ts';
import type { GatewayCost, GatewayOrder } from './fan-out-gateway.ts';
import type { ReadersOrder, ReadersReport } from './fan-out-readers.ts';
import { type BenchStores, openBenchStores, type Servers, withServers } from './harness.ts';

const { values } = parseArgs({
  options: {
    readers: { type: 'string', default: '1000' },
    seconds: { type: 'string', default: '20' },
    profile: { type: 'string' },
    only: { type: 'string' },
  },
  allowPositionals: true,
});
const READERS = Number(values.readers);
const SECONDS = Number(values.seconds);
const EVENTS_PER_SECOND = 100;
const SAMPLES = 20;
const STALLED = 50;
const SMALL_BYTES = 40;
const LARGE_BYTES = 1_000;
const WINDOW = 2_000;
const TASK = { runId: 'run-1', tenantId: 'default' };

type Fleet = AsyncDisposable & {
  tell(order: ReadersOrder): Promise<unknown>;
  report(): Promise<ReadersReport>;
  /** Events that a sampled reader got since the last report. */
  progress(): Promise<number>;
  cost(): Promise<GatewayCost>;
};

type FleetOptions = { readonly coalesceMs: number; readonly backlogBytes?: number };

async function startFleet(servers: Servers, name: string, options: FleetOptions): Promise<Fleet> {
  const { profile } = values;
  const execArgv = profile === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', profile];
  const { coalesceMs, backlogBytes = '' } = options;
  const gateway = fork(
    new URL('./fan-out-gateway.ts', import.meta.url),
    [servers.postgres, servers.redis, name, String(coalesceMs), String(backlogBytes)],
    { execArgv },
  );
  const [port] = await once(gateway, 'message');
  const readers = fork(new URL('./fan-out-readers.ts', import.meta.url), [String(port)]);
  await once(readers, 'message');
  const ask = async (child: ChildProcess, order: GatewayOrder | ReadersOrder): Promise<unknown> => {
    const answer = once(child, 'message');
    child.send(order);
    return (await answer)[0];
  };
  return {
    tell: (order) => ask(readers, order),
    report: async () => (await ask(readers, { kind: 'report' })) as ReadersReport, // what it answers to this
    progress: async () => (await ask(readers, { kind: 'progress' })) as number, // what it answers to this
    cost: async () => (await ask(gateway, { kind: 'cost' })) as GatewayCost, // what it answers to this
    async [Symbol.asyncDispose]() {
      readers.disconnect();
      await once(readers, 'exit');
      gateway.send({ kind: 'stop' } satisfies GatewayOrder);
      await once(gateway, 'exit');
    },
  };
}

/** A task that runs, and the deltas of its only call, each with the time at which it was published. */
async function startTask({ stores }: BenchStores, taskId: string, textBytes: number) {
  const parsed = parseTaskInput({ userId: 'u1', query: 'q' });
  if (parsed.kind === 'invalid') throw new Error('the input of the bench is invalid');
  const callKey = `${taskId}:run-1:answer:1`;
  const task = { ...TASK, taskId };
  const row = { taskId, runId: 'run-1', input: parsed.input, strategy: 'simple', model: 'm', limits: [] };
  await stores.tasks.begin(row, [{ id: 'begin', type: 'task_started' }]);
  await stores.events.publishPending(task);
  const filling = 'x'.repeat(Math.max(0, textBytes - 18));
  let k = 0;
  return {
    path: `/api/v1/tasks/${taskId}/stream`,
    published: () => k,
    publish: (): Promise<boolean> => {
      const time = (performance.timeOrigin + performance.now()).toFixed(3);
      const text = `@${time}${filling}`;
      k += 1;
      const attemptKey = `${callKey}#0.1.1.0`;
      return stores.events.publishDelta(task, {
        callKey,
        stepId: 'answer',
        attemptKey,
        order: 1,
        k: k - 1,
        text,
      });
    },
  };
}

type Task = Awaited<ReturnType<typeof startTask>>;

/** Publishes evenly for so long. */
async function publishFor(task: Task, seconds: number): Promise<void> {
  const startedAt = performance.now();
  const underWay: Promise<boolean>[] = [];
  for (let count = 0; count < seconds * EVENTS_PER_SECOND; count += 1) {
    underWay.push(task.publish());
    const nextAt = startedAt + ((count + 1) * 1_000) / EVENTS_PER_SECOND;
    const waitMs = nextAt - performance.now();
    if (waitMs > 1) await sleep(waitMs);
  }
  await Promise.all(underWay);
}

type Phase = {
  readonly p50: number;
  readonly p99: number;
  readonly most: number;
  /** Shares of one core. */
  readonly gatewayCore: number;
  readonly readersCore: number;
  /** The gateway's, for each time that a reader got something. */
  readonly microsPerPiece: number;
  readonly deliveries: number;
  readonly rssMb: number;
  readonly closed: number;
  readonly isWhole: boolean;
};

/** What the readers got and the gateway spent while the task published. @param publish answers when all is published */
async function measure(fleet: Fleet, task: Task, publish: () => Promise<void>): Promise<Phase> {
  await publishFor(task, 2);
  await sleep(500);
  const [before, readersBefore] = [await fleet.cost(), await fleet.report()];
  const startedAt = performance.now();
  const publishedBefore = task.published();
  let rssBytes = before.rssBytes;
  const watching = new AbortController();
  const watched = (async () => {
    for (;;) {
      rssBytes = Math.max(rssBytes, (await fleet.cost()).rssBytes);
      await sleep(1_000, undefined, { signal: watching.signal });
    }
  })().catch(() => undefined /* told to end */);
  await publish();
  watching.abort();
  await watched;
  const published = task.published() - publishedBefore;
  while ((await fleet.progress()) < published) await sleep(10);
  const ms = performance.now() - startedAt;
  const [after, report] = [await fleet.cost(), await fleet.report()];
  const sorted = [...report.latencies].sort((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  const cpuMicros = after.cpuMicros - before.cpuMicros;
  return {
    p50: at(0.5),
    p99: at(0.99),
    most: at(1),
    gatewayCore: cpuMicros / 1_000 / ms,
    readersCore: (report.cpuMicros - readersBefore.cpuMicros) / 1_000 / ms,
    microsPerPiece: cpuMicros / report.pieces,
    deliveries: (published * report.open * 1_000) / ms,
    rssMb: rssBytes / 1_048_576,
    closed: after.closed,
    isWhole: report.leastBytes === report.mostBytes && report.open === READERS,
  };
}

const COLUMNS = [
  ...[
    '',
    'p50 ms',
    'p99 ms',
    'max ms',
    'gateway',
    'us a piece',
    'readers',
    'deliveries/s',
    'RSS MB',
    'closed',
  ],
  ...['all got all'],
];

function rowOf(name: string, phase: Phase): string[] {
  return [
    name,
    ...[phase.p50, phase.p99, phase.most].map((ms) => ms.toFixed(0)),
    `${(100 * phase.gatewayCore).toFixed(0)} %`,
    phase.microsPerPiece.toFixed(1),
    `${(100 * phase.readersCore).toFixed(0)} %`,
    phase.deliveries.toFixed(0),
    phase.rssMb.toFixed(0),
    String(phase.closed),
    phase.isWhole ? 'yes' : 'no',
  ];
}

/** 1,000 readers at an even rate; then the same with larger events, alone and beside readers that never read. */
async function steady(servers: Servers): Promise<void> {
  await using bench = await openBenchStores(servers);
  await using fleet = await startFleet(servers, bench.name, { coalesceMs: 50 });
  const open = async (taskId: string, textBytes: number) => {
    const task = await startTask(bench, taskId, textBytes);
    await fleet.tell({ kind: 'open', path: task.path, readers: READERS, samples: SAMPLES });
    return task;
  };
  const small = await open('small', SMALL_BYTES);
  const alone = await measure(fleet, small, () => publishFor(small, SECONDS));
  await fleet.tell({ kind: 'close' });
  const large = await open('large', LARGE_BYTES);
  const before = await measure(fleet, large, () => publishFor(large, SECONDS));
  await fleet.tell({ kind: 'stall', path: large.path, readers: STALLED });
  const beside = await measure(fleet, large, () => publishFor(large, 2 * SECONDS));
  heading(
    `${READERS} readers of one task, ${EVENTS_PER_SECOND} events a second: p99 ${alone.p99.toFixed(0)} ms, ` +
      `${(100 * alone.gatewayCore).toFixed(0)} % of a core`,
  );
  say(
    '"us a piece": processor time of the gateway for each time that a reader got something; "closed": since the gateway began',
  );
  table(COLUMNS, [
    rowOf(`events of ${SMALL_BYTES} bytes of text`, alone),
    rowOf(`${LARGE_BYTES} bytes`, before),
    rowOf(`${LARGE_BYTES} bytes, and ${STALLED} that never read`, beside),
  ]);
  say(
    `never read: ${beside.closed} of ${STALLED} closed; p99 of the others ${((100 * beside.p99) / before.p99 - 100).toFixed(0)} %; ` +
      `RSS grew by ${(beside.rssMb - before.rssMb).toFixed(1)} MB, ${STALLED} bounds are ${((STALLED * 262_144) / 1_048_576).toFixed(1)} MB`,
  );
}

/** As many events as the readers take, gathered and not. */
async function saturated(servers: Servers): Promise<void> {
  await using bench = await openBenchStores(servers);
  const rows: string[][] = [];
  const deliveries: number[] = [];
  for (const coalesceMs of [0, 50]) {
    // No reader is to be closed: all are as slow as the machine.
    await using fleet = await startFleet(servers, bench.name, { coalesceMs, backlogBytes: 1_073_741_824 });
    const task = await startTask(bench, `saturated-${coalesceMs}`, SMALL_BYTES);
    await fleet.tell({ kind: 'open', path: task.path, readers: READERS, samples: SAMPLES });
    const phase = await measure(fleet, task, () => publishAsTaken(fleet, task, SECONDS));
    rows.push(rowOf(coalesceMs === 0 ? 'each as it comes' : `gathered for ${coalesceMs} ms`, phase));
    deliveries.push(phase.deliveries);
  }
  const [each = Number.NaN, gathered = Number.NaN] = deliveries;
  heading(`deliveries at saturation: gathered ${(gathered / each).toFixed(1)}x`);
  table(COLUMNS, rows);
}

/** Keeps so many events between publisher and readers. */
async function publishAsTaken(fleet: Fleet, task: Task, seconds: number): Promise<void> {
  const until = performance.now() + seconds * 1_000;
  const from = task.published();
  while (performance.now() < until) {
    const room = WINDOW - (task.published() - from - (await fleet.progress()));
    await Promise.all(Array.from({ length: Math.max(0, Math.min(room, WINDOW / 4)) }, task.publish));
  }
}

await withServers(async (servers) => {
  if (values.only !== 'saturated') await steady(servers);
  if (values.only !== 'steady') await saturated(servers);
});
