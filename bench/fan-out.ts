// Claim: one gateway process delivers 100 events a second to each of 1,000 readers with at most 150 ms from publishing to reading (99 of
// 100) on at most half a core; 50 readers that never read are closed, cost no more memory than their bounds, and slow nobody; gathering
// the events of 50 ms delivers at least 8 times as many as sending each as it comes. `--profile` leaves processor profiles in the folder;
// `--drops` cuts 1,000 readers off 20 times each instead, and looks at what they have in the end.

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { compareDropped } from './fan-out-drops.ts';
import {
  type Child,
  type Gateway,
  publishEvenly,
  type StreamedTask,
  startChild,
  startGateway,
  startTask,
} from './fan-out-fleet.ts';
import type { ReadersOrder, ReadersProgress, ReadersReport } from './fan-out-readers.ts';
import { median, openBenchStores, type Servers, withServers } from './harness.ts';

const { values } = parseArgs({
  options: {
    readers: { type: 'string', default: '1000' },
    seconds: { type: 'string', default: '20' },
    rounds: { type: 'string', default: '3' },
    only: { type: 'string' },
    profile: { type: 'string' },
    drops: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
const READERS = Number(values.readers);
const SECONDS = Number(values.seconds);
const ROUNDS = Number(values.rounds);
const PER_SECOND = 100;
const SAMPLES = 20;
const STALLED = 50;
/** Events that a ring holds. */
const RING = 512;
const SMALL_BYTES = 40;
const LARGE_BYTES = 1_000;
/** Events between publisher and readers at saturation: enough that nobody waits for the publisher, and few enough to be read soon. */
const WINDOW = { each: 100, gathered: 4_000 } as const;
const NO_BOUND = 1_073_741_824;
const BACKLOG_MB = 262_144 / 1_048_576;
const RSS_EVERY_MS = 1_000;
/** No reader gets anything for so long: nothing is under way. */
const QUIET_MS = 100;
/** Then it is too late. */
const LATEST_MS = 30_000;

type Call = Awaited<ReturnType<StreamedTask['startCall']>>;

type Stage = { readonly gateway: Gateway; readonly readers: Child<ReadersOrder> };

type Figures = {
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

/** A delta of so many bytes that says when it was published, in milliseconds since 1970. */
function publisherOf(call: Call, bytes: number): () => Promise<boolean> {
  const filling = 'x'.repeat(Math.max(0, bytes - 18));
  return () => call.publish(`@${(performance.timeOrigin + performance.now()).toFixed(3)}${filling}`);
}

async function progressOf(readers: Child<ReadersOrder>): Promise<ReadersProgress> {
  return (await readers.ask({ kind: 'progress' })) as ReadersProgress; // what they answer to this
}

/**
 * Waits until the sampled readers have so many events and nothing comes to anybody any more, and tells since when. Bounded: a reader that
 * lost something never has all, and the table says so.
 */
async function untilRead({ readers }: Stage, published: number): Promise<number> {
  const until = performance.now() + LATEST_MS;
  let before = -1;
  let since = performance.now();
  while (performance.now() < until) {
    const { events, bytes } = await progressOf(readers);
    if (bytes !== before) since = performance.now();
    else if (events >= published && performance.now() - since >= QUIET_MS) break;
    before = bytes;
    await sleep(5);
  }
  return since;
}

/** What the readers got and the gateway spent while `publish` ran, and until all of it was read. */
async function measure(stage: Stage, call: Call, publish: () => Promise<void>): Promise<Figures> {
  const { gateway, readers } = stage;
  const report = async () => (await readers.ask({ kind: 'report' })) as ReadersReport; // what they answer to this
  const [before, readersBefore] = [await gateway.cost(), await report()];
  const startedAt = performance.now();
  const publishedBefore = call.published();
  const watching = watchRss(gateway);
  await publish();
  const rssMb = await watching.stop();
  const published = call.published() - publishedBefore;
  const ms = (await untilRead(stage, published)) - startedAt;
  const [after, got] = [await gateway.cost(), await report()];
  const sorted = [...got.latencies].sort((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  const cpuMicros = after.cpuMicros - before.cpuMicros;
  return {
    p50: at(0.5),
    p99: at(0.99),
    most: at(1),
    gatewayCore: cpuMicros / 1_000 / ms,
    readersCore: (got.cpuMicros - readersBefore.cpuMicros) / 1_000 / ms,
    microsPerPiece: cpuMicros / got.pieces,
    deliveries: (published * got.open * 1_000) / ms,
    rssMb,
    closed: after.closed,
    isWhole: got.leastBytes === got.mostBytes && got.open === READERS,
  };
}

/** The most memory that the gateway has had from now on. */
function watchRss(gateway: Gateway) {
  const stopping = new AbortController();
  let most = 0;
  const watched = (async () => {
    while (!stopping.signal.aborted) {
      most = Math.max(most, (await gateway.cost()).rssBytes);
      await sleep(RSS_EVERY_MS, undefined, { signal: stopping.signal }).catch(
        () => undefined /* told to stop */,
      );
    }
  })();
  return {
    async stop(): Promise<number> {
      stopping.abort();
      await watched;
      return most / 1_048_576;
    },
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
  'all got all',
];

function rowOf(name: string, figures: Figures): string[] {
  return [
    name,
    ...[figures.p50, figures.p99, figures.most].map((ms) => ms.toFixed(0)),
    `${(100 * figures.gatewayCore).toFixed(0)} %`,
    figures.microsPerPiece.toFixed(1),
    `${(100 * figures.readersCore).toFixed(0)} %`,
    figures.deliveries.toFixed(0),
    figures.rssMb.toFixed(0),
    String(figures.closed),
    figures.isWhole ? 'yes' : 'no',
  ];
}

/** Opens all readers; the first second is not measured: they are told what was before, each in pieces of its own, until they are live. */
async function openLive(stage: Stage, task: StreamedTask, call: Call): Promise<void> {
  await stage.readers.ask({ kind: 'open', path: task.path, readers: READERS, samples: SAMPLES });
  await publishEvenly(publisherOf(call, SMALL_BYTES), { seconds: 1, perSecond: PER_SECOND });
  await untilRead(stage, PER_SECOND);
}

/** All readers at one even rate, with events of so many bytes. They find a full ring. */
async function openEven(stage: Stage, task: StreamedTask, bytes: number) {
  const call = await task.startCall('answer');
  for (let count = 0; count < RING; count += 1) await call.publish('x'.repeat(bytes));
  await openLive(stage, task, call);
  const publish = publisherOf(call, bytes);
  return (seconds: number) =>
    measure(stage, call, () => publishEvenly(publish, { seconds, perSecond: PER_SECOND }));
}

/** 1,000 readers at an even rate; then the same with larger events, alone and beside readers that never read. */
async function steady(servers: Servers): Promise<void> {
  await using bench = await openBenchStores(servers);
  await using gateway = await startGateway(servers, bench.name, { coalesceMs: 50, profile: values.profile });
  await using readers = await startChild<ReadersOrder>('./fan-out-readers.ts', gateway.port);
  const stage = { gateway, readers };
  const small: Figures[] = [];
  const ofSmall = await openEven(stage, await startTask(bench, 'small'), SMALL_BYTES);
  for (let round = 0; round < ROUNDS; round += 1) small.push(await ofSmall(SECONDS));
  const p99 = median(small.map((figures) => figures.p99));
  const core = median(small.map((figures) => figures.gatewayCore));
  heading(
    `${READERS} readers of one task, ${PER_SECOND} events a second: p99 ${p99.toFixed(0)} ms, ${(100 * core).toFixed(0)} % of a core`,
  );
  say('"us a piece": processor time of the gateway for each time that a reader got something');
  table(
    COLUMNS,
    small.map((figures) => rowOf(`events of ${SMALL_BYTES} bytes of text`, figures)),
  );
  await readers.ask({ kind: 'close' });

  const task = await startTask(bench, 'large');
  const ofLarge = await openEven(stage, task, LARGE_BYTES);
  const alone = await ofLarge(2 * SECONDS);
  await readers.ask({ kind: 'stall', path: task.path, readers: STALLED });
  const beside = await ofLarge(3 * SECONDS);
  const change = (100 * beside.p99) / alone.p99 - 100;
  heading(
    `beside ${STALLED} readers that never read: ${beside.closed} of them closed, p99 of the others ${change.toFixed(0)} %, ` +
      `${(beside.rssMb - alone.rssMb).toFixed(1)} MB more; ${STALLED} bounds are ${(STALLED * BACKLOG_MB).toFixed(1)} MB`,
  );
  say('the system takes some megabytes for each of them before the gateway has to keep anything');
  table(COLUMNS, [rowOf(`${LARGE_BYTES} bytes`, alone), rowOf(`${LARGE_BYTES} bytes, beside them`, beside)]);
}

/** As many events as the readers take, gathered and not. */
async function saturated(servers: Servers): Promise<void> {
  await using bench = await openBenchStores(servers);
  const each: Figures[] = [];
  const gathered: Figures[] = [];
  for (let round = 0; round < ROUNDS; round += 1)
    for (const coalesceMs of [0, 50]) {
      // No reader is to be closed: all are as slow as the machine.
      await using gateway = await startGateway(servers, bench.name, { coalesceMs, backlogBytes: NO_BOUND });
      await using readers = await startChild<ReadersOrder>('./fan-out-readers.ts', gateway.port);
      const stage = { gateway, readers };
      const task = await startTask(bench, `saturated-${coalesceMs}-${round}`);
      const call = await task.startCall('answer');
      await openLive(stage, task, call);
      const window = coalesceMs === 0 ? WINDOW.each : WINDOW.gathered;
      const figures = await measure(stage, call, () => publishAsRead(readers, call, window));
      (coalesceMs === 0 ? each : gathered).push(figures);
    }
  const rate = (figures: readonly Figures[]) => median(figures.map((one) => one.deliveries));
  heading(`deliveries at saturation: gathered ${(rate(gathered) / rate(each)).toFixed(1)}x`);
  table(COLUMNS, [
    ...each.map((figures) => rowOf('each as it comes', figures)),
    ...gathered.map((figures) => rowOf('gathered for 50 ms', figures)),
  ]);
}

/** Keeps so many events between publisher and readers. */
async function publishAsRead(readers: Child<ReadersOrder>, call: Call, window: number): Promise<void> {
  const publish = publisherOf(call, SMALL_BYTES);
  const until = performance.now() + SECONDS * 500;
  const from = call.published();
  while (performance.now() < until) {
    const { events } = await progressOf(readers);
    const room = Math.floor(window - (call.published() - from - events));
    if (room <= 0) await sleep(1);
    else await Promise.all(Array.from({ length: Math.min(room, window / 4) }, publish));
  }
}

await withServers(async (servers) => {
  if (values.drops)
    return compareDropped(servers, { readers: READERS, seconds: 3 * SECONDS, profile: values.profile });
  if (values.only !== 'saturated') await steady(servers);
  if (values.only !== 'steady') await saturated(servers);
});
