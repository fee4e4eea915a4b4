// Publishers and persisters of a fault run: processes of their own, that can be killed and are started again.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createEventLog, type EventLogState } from '../../src/stores/event-log.ts';
import { parseTaskInput } from '../../src/task/input.ts';
import { RUN } from './event-chaos-plan.ts';
import type { ChaosOrder, ChaosReport } from './event-chaos-process.ts';
import { eventually } from './eventually.ts';
import type { Servers, TestStores } from './stores.ts';

export type ChaosProcess = {
  readonly name: string;
  /** SIGKILL, and started again at once; resolves when the new one has told of itself. */
  restart(): Promise<void>;
  /** Of the present life. */
  readonly report: ChaosReport | undefined;
  /** Over all lives, in MiB. */
  readonly peakMb: number;
  finish(): Promise<void>;
  stop(): Promise<void>;
};

export type EventChaos = AsyncDisposable & {
  readonly publishers: readonly ChaosProcess[];
  readonly persisters: readonly ChaosProcess[];
  readonly taskIds: readonly string[];
  state(): Promise<EventLogState>;
  /** Every task comes to its end; resolves when the publishers are done. */
  finish(): Promise<void>;
  /** Resolves when every milestone has its number, with the time it took. Milliseconds. */
  stored(): Promise<number>;
};

export type EventChaosOptions = {
  readonly servers: Servers;
  readonly taskIds: readonly string[];
  readonly publishers: number;
  readonly persisters: number;
  /** Events, over all publishers. */
  readonly perSecond: number;
};

const PATIENCE_MS = 120_000;

/** Begins the tasks and starts the processes. */
export async function openEventChaos(test: TestStores, options: EventChaosOptions): Promise<EventChaos> {
  const { servers, taskIds } = options;
  await beginTasks(test, taskIds);
  const order = (name: string): ChaosOrder => ({
    ...{ postgres: servers.postgres, redis: servers.redis, schema: test.schema, prefix: test.prefix, name },
    taskIds: [],
    perSecond: 0,
  });
  const start = (kind: 'publisher' | 'persister', own: ChaosOrder) =>
    startProcess(new URL(`./event-chaos-${kind}.ts`, import.meta.url).pathname, own);
  const persisters = await Promise.all(
    Array.from({ length: options.persisters }, (_, n) => start('persister', order(`persister-${n}`))),
  );
  const publishers = await Promise.all(
    Array.from({ length: options.publishers }, (_, n) =>
      start('publisher', {
        ...order(`publisher-${n}`),
        taskIds: taskIds.filter((__, index) => index % options.publishers === n),
        perSecond: options.perSecond / options.publishers,
      }),
    ),
  );
  const eventLog = createEventLog(test.postgres, test.redis, { batchSize: 500, onRefused: () => undefined });
  return {
    publishers,
    persisters,
    taskIds,
    state: eventLog.state,
    finish: async () => {
      await Promise.all(publishers.map((publisher) => publisher.finish()));
    },
    stored: () => stored(test, eventLog.state),
    async [Symbol.asyncDispose]() {
      await Promise.all([...publishers, ...persisters].map((one) => one.stop()));
    },
  };
}

async function beginTasks({ stores }: TestStores, taskIds: readonly string[]): Promise<void> {
  const parsed = parseTaskInput({ userId: 'ada', query: 'why' });
  if (parsed.kind === 'invalid') throw new Error('the input of the test is invalid');
  const { input } = parsed;
  const queue = taskIds.values();
  const lane = async () => {
    for (const taskId of queue)
      await stores.tasks.begin(
        { taskId, runId: RUN, input, strategy: 'simple', model: 'simulated/small', limits: [] },
        [{ id: `${RUN}:begin`, type: 'task_started' }],
      );
  };
  await Promise.all(Array.from({ length: 8 }, lane));
}

async function stored(test: TestStores, state: () => Promise<EventLogState>): Promise<number> {
  const since = performance.now();
  await eventually(async () => {
    const { rows } = await test.postgres.query<{ open: number }>(
      'select count(*)::int as open from events where seq is null',
    );
    const { backlog } = await state();
    if (rows[0]?.open !== 0 || backlog !== 0)
      throw new Error(`${rows[0]?.open} milestones have no number, ${backlog} entries are in the log`);
  }, PATIENCE_MS);
  return Math.round(performance.now() - since);
}

async function startProcess(path: string, order: ChaosOrder): Promise<ChaosProcess> {
  let life = begin(path, order);
  let peak = 0;
  let isOver = false;
  const watch = () => {
    const own = life;
    own.child.on('message', (message) => {
      own.report = message as ChaosReport; // what event-chaos-process.ts sends
      peak = Math.max(peak, own.report.rss);
    });
  };
  const told = async () => {
    const own = life;
    await eventually(() => {
      if (own.child.exitCode !== null && !isOver)
        throw new Error(`${order.name} ended with ${own.child.exitCode}: ${own.output()}`);
      if (own.report === undefined) throw new Error(`${order.name} says nothing: ${own.output()}`);
    }, PATIENCE_MS);
  };
  watch();
  await told();
  return {
    name: order.name,
    get report() {
      return life.report;
    },
    get peakMb() {
      return Math.round(peak / 1_048_576);
    },
    async restart() {
      await end(life.child);
      life = begin(path, order);
      watch();
      await told();
    },
    async finish() {
      isOver = true;
      const { child, output } = life;
      const exited = child.exitCode === null ? once(child, 'exit') : undefined;
      child.send('finish');
      await exited;
      if (child.exitCode !== 0) throw new Error(`${order.name} ended with ${child.exitCode}: ${output()}`);
    },
    stop: () => end(life.child),
  };
}

type Life = { readonly child: ChildProcess; readonly output: () => string; report: ChaosReport | undefined };

function begin(path: string, order: ChaosOrder): Life {
  const child = fork(path, [JSON.stringify(order)], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    execArgv: [],
  });
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-4_000);
  };
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  return { child, output: () => output, report: undefined };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}
