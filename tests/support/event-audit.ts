// Whether the rows of milestones are what became visible: each once, in its order, under its number, and nothing else missing but deltas.

import type { EventType } from '../../src/task/event.ts';
import { nameOf, type Observed, type Observer } from './event-observer.ts';
import type { TestStores } from './stores.ts';

type Row = {
  readonly task_id: string;
  readonly type: EventType;
  readonly seq: number | null;
  readonly epoch: number | null;
  readonly step: string | undefined;
  readonly attempt: string | undefined;
};

/** Sentences; none when everything is right. */
export type Faults = string[];

/** All rows, task by task, in the order in which they were written. */
async function rowsOf({ postgres }: TestStores): Promise<ReadonlyMap<string, readonly Row[]>> {
  const { rows } = await postgres.query<Row & { seq: string | bigint | null }>(
    `select task_id, type, seq, epoch, body->>'stepId' as step, body->>'attempt' as attempt from events order by task_id, ordinal`,
  );
  const tasks = new Map<string, Row[]>();
  for (const row of rows) {
    const known = tasks.get(row.task_id) ?? [];
    known.push({ ...row, seq: row.seq === null ? null : Number(row.seq) });
    tasks.set(row.task_id, known);
  }
  return tasks;
}

/** @param epochs 1: Redis was never lost, so that each number was given once. More: a milestone may have been visible in several. */
export async function auditEvents(
  test: TestStores,
  observer: Observer,
  { taskIds, epochs }: { readonly taskIds: readonly string[]; readonly epochs: 'one' | 'many' },
): Promise<{ readonly faults: Faults; readonly milestones: number; readonly deltas: number }> {
  const rows = await rowsOf(test);
  const faults: Faults = epochs === 'one' ? [...observer.missed()] : [];
  let milestones = 0;
  let deltas = 0;
  for (const taskId of taskIds) {
    const [own, seen] = [rows.get(taskId) ?? [], observer.tasks.get(taskId) ?? []];
    milestones += own.length;
    deltas += seen.filter(({ type }) => type === 'call_delta').length;
    const found = [
      ...auditRows(own),
      ...auditCalls(own),
      ...(epochs === 'one' ? auditNumbers(own, seen) : []),
    ];
    faults.push(...found.map((fault) => `${taskId}: ${fault}`));
  }
  return { faults: faults.slice(0, 50), milestones, deltas };
}

function auditRows(rows: readonly Row[]): Faults {
  const faults: Faults = [];
  let last = 0;
  for (const row of rows) {
    if (row.seq === null) faults.push(`${label(row)} has no number (epoch ${row.epoch})`);
    else if (row.seq <= last)
      faults.push(`${label(row)} has ${row.seq}, and what was written before it ${last}`);
    last = row.seq ?? last;
  }
  if (rows.at(-1)?.type !== 'stream_end') faults.push('stream_end is not the last');
  if (rows.filter(({ type }) => type === 'stream_end').length !== 1) faults.push('not one stream_end');
  return faults;
}

/** Each call is answered once; every attempt before is void. */
function auditCalls(rows: readonly Row[]): Faults {
  const of = (type: EventType) => rows.filter((row) => row.type === type).map(({ attempt }) => attempt);
  const [started, completed, reset] = [of('call_started'), of('call_completed'), of('attempt_reset')];
  const ended = [...completed, ...reset].toSorted();
  const steps = new Set(rows.flatMap(({ step, type }) => (type === 'call_completed' ? [step] : [])));
  return [
    ...(ended.join() === started.toSorted().join() ? [] : ['not every attempt has ended once']),
    ...(steps.size === completed.length ? [] : ['a call was answered twice']),
    ...(new Set(started).size === started.length ? [] : ['an attempt began twice']),
  ];
}

function auditNumbers(rows: readonly Row[], seen: readonly Observed[]): Faults {
  const faults: Faults = [];
  for (const [index, event] of seen.entries())
    if (event.seq !== index + 1) {
      faults.push(`number ${event.seq} was visible as the ${index + 1}th`);
      break;
    }
  const told = seen
    .filter(({ type }) => type !== 'call_delta')
    .map(({ seq, epoch, name }) => `${epoch}-${seq} ${name}`);
  const stored = rows.map((row) => `${row.epoch}-${row.seq} ${label(row)}`);
  if (told.join('\n') !== stored.join('\n')) {
    const at = stored.findIndex((one, index) => one !== told[index]);
    faults.push(
      `stored ${stored[at] ?? 'nothing'} where ${told[at === -1 ? stored.length : at]} was visible`,
    );
  }
  return faults;
}

function label({ type, step, attempt }: Row): string {
  return nameOf({ type, ...(step == null ? {} : { stepId: step }), ...(attempt == null ? {} : { attempt }) });
}
