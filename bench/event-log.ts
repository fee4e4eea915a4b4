// Claim: milestones get into Postgres, number and all, at twenty times the rate of single inserts, or faster: 500 by one statement, and
// their numbers by another, against one statement for each row. Each is committed before the next, on one connection, to a disk that is
// waited for, as in production. Then the same where commits wait for no disk, as in the development stack: what is left is work.

import { heading, say, table } from '../dev/demo/terminal.ts';
import { type EventNumber, writeNumbers } from '../src/stores/event-numbers.ts';
import { writeMilestones } from '../src/stores/milestones.ts';
import type { EventDraft } from '../src/task/event.ts';
import { type BenchStores, median, openBenchStores, spread, withServers } from './harness.ts';

const BATCH = 500;
const TASKS = 50;
const PREPARED = 20_000;
const ROUNDS = 11;
const ROUND_MS = 400;
const COLUMNS = ['written', 'against the first', 'rows a second (least to most)'];

/** `once` writes some rows, and answers how many; 0: what was prepared for the round is used up. */
type Write = { readonly prepare?: () => Promise<void>; readonly once: () => Promise<number> };

for (const durable of [true, false])
  await withServers(
    async (servers) => {
      await using bench = await openBenchStores(servers);
      heading(`== commits wait for ${durable ? 'the disk' : 'no disk'}`);
      await compare(bench);
    },
    { durable },
  );

async function compare(bench: BenchStores): Promise<void> {
  await bench.postgres.query(
    `insert into tasks (task_id, run_id, tenant_id, user_id, status, phase, strategy, priority, input, epoch)
     select 'task-' || n, 'run', 'bench', 'user', 'running', 'running', 'simple', 'normal', '{}', 1 from generate_series(0, $1) as n`,
    [TASKS - 1],
  );
  const { insertOne, insertBatch, numberOne, numberBatch } = createStage(bench);
  const [single, batched, one, numbers] = await measure([insertOne, insertBatch, numberOne, numberBatch]);
  heading(`event log against single inserts: ${ratio(batched, single).toFixed(1)}x`);
  say(
    `${BATCH} milestones of a task by one insert and their numbers by one update, against one insert for each`,
  );
  table(COLUMNS, [
    row('one insert for each', single, single),
    row(`insert, numbers of ${BATCH}`, batched, single),
  ]);
  heading(`numbers alone: ${ratio(numbers, one).toFixed(1)}x`);
  say(`what the persister does: ${BATCH} milestones of ${TASKS} tasks, against one update for each`);
  table(COLUMNS, [row('one update for each', one, one), row(`numbers of ${BATCH}`, numbers, one)]);
}

function createStage({ postgres }: BenchStores) {
  let made = 0;
  /** Numbers of one task; every task goes on where it was. */
  const next = (count: number, tasks: number): EventNumber[] =>
    Array.from({ length: count }, (_, n) => {
      made += 1;
      const taskId = `task-${tasks === 1 ? Math.floor(made / BATCH) % TASKS : n % tasks}`;
      return { taskId, id: `01234567-89ab-cdef-0123-456789abcdef:${made}`, epoch: 1, seq: made };
    });
  const insert = async (all: readonly EventNumber[]) => {
    for (const [taskId, some] of Map.groupBy(all, (one) => one.taskId))
      await writeMilestones(postgres, { taskId, runId: 'run', tenantId: 'bench' }, some.map(draftOf));
  };
  const waiting: EventNumber[] = [];
  /** Milestones without a number, for a round. */
  const prepare = async () => {
    const more = next(Math.max(0, PREPARED - waiting.length), TASKS);
    await insert(more);
    waiting.push(...more);
  };
  const number = async (count: number) => {
    const some = waiting.splice(0, count);
    await writeNumbers(postgres, some);
    return some.length;
  };
  return {
    insertOne: {
      once: async () => {
        const [one] = next(1, 1);
        if (one === undefined) return 0;
        const { id: _, type, ...body } = draftOf(one);
        await postgres.query(
          `insert into events (task_id, run_id, tenant_id, id, type, body, seq, epoch)
           values ($1, 'run', 'bench', $2, $3, $4, $5, $6) on conflict do nothing`,
          [one.taskId, one.id, type, JSON.stringify(body), one.seq, one.epoch],
        );
        return 1;
      },
    },
    insertBatch: {
      once: async () => {
        const some = next(BATCH, 1).map((one, _, [first]) => ({
          ...one,
          taskId: first?.taskId ?? one.taskId,
        }));
        await insert(some);
        await writeNumbers(postgres, some);
        return BATCH;
      },
    },
    numberOne: { prepare, once: () => number(1) },
    numberBatch: { prepare, once: () => number(BATCH) },
  };
}

function draftOf({ id }: EventNumber): EventDraft {
  const callKey = 'task:01234567-89ab-cdef-0123-456789abcdef:answer:1';
  const data = { name: 'search', durationMs: 120 };
  return { id, type: 'tool_completed', stepId: 'answer', callKey, attempt: `${callKey}#0.1.1.0`, data };
}

/** Rows a second of each, a value for each round; they take turns. */
async function measure(writes: readonly Write[]): Promise<readonly (readonly number[])[]> {
  const rates = writes.map((): number[] => []);
  // The first round warms up.
  for (let round = 0; round <= ROUNDS; round += 1)
    for (const [index, { prepare, once }] of writes.entries()) {
      await prepare?.();
      const from = performance.now();
      let rows = 0;
      for (let written = 1; written > 0 && performance.now() - from < ROUND_MS; rows += written)
        written = await once();
      if (round > 0) rates[index]?.push((1_000 * rows) / (performance.now() - from));
    }
  return rates;
}

function row(name: string, rates: readonly number[] = [], base: readonly number[] = []): string[] {
  return [name, `${ratio(rates, base).toFixed(1)}x`, spread(rates)];
}

function ratio(rates: readonly number[] = [], base: readonly number[] = []): number {
  return median(rates.map((rate, round) => rate / (base[round] ?? Number.NaN)));
}
