// All milestones of a task as its readers know them. A row gets its number from the persister, a moment after readers have seen it: until
// then Redis' word counts, so that a reader that comes late waits for no persister.

import type { EventType, TaskEvent } from '../task/event.ts';
import type { Standing } from './event-standing.ts';
import type { Postgres } from './postgres.ts';

type Row = {
  id: string;
  type: EventType;
  at: Date;
  body: Record<string, unknown>;
  seq: bigint | null;
  epoch: number | null;
};

const PAGE = 500;

/** Where the first row of the task `$1` is that has no number yet: those behind it may get other ones, and lack what comes before them. */
export const FIRST_OPEN = `coalesce((select min(ordinal) from events where task_id = $1 and seq is null and epoch is null), ${2n ** 63n - 1n})`;

/**
 * Milestones with a higher number, oldest first.
 * @param standing Redis' part, read before this; undefined: Redis has none, and nobody says what comes before the rows behind one that has
 *   no number: these are left out, the end of the run among them
 */
export async function readHistory(
  postgres: Postgres,
  taskId: string,
  { afterSeq, standing }: { readonly afterSeq: number; readonly standing: Standing | undefined },
): Promise<readonly TaskEvent[]> {
  const given = new Map(standing?.milestones.map(({ id, seq }) => [id, seq]));
  const rows = await numberedRows(postgres, taskId, { afterSeq, hasGaps: standing !== undefined });
  const known = new Set(rows.map(({ id }) => id));
  const unnumbered = [...given].flatMap(([id, seq]) => (known.has(id) || seq <= afterSeq ? [] : [id]));
  if (unnumbered.length > 0) {
    const more = await postgres.query<Row>(
      'select id, type, at, body, seq, epoch from events where task_id = $1 and id = any($2::text[])',
      [taskId, unnumbered],
    );
    rows.push(...more.rows);
  }
  return rows
    .map(({ id, type, at, body, seq, epoch }): TaskEvent => {
      // A number of an older epoch is about to be replaced by this one.
      const now = given.get(id);
      const number =
        now === undefined
          ? { seq: Number(seq), epoch: epoch ?? 0 }
          : { seq: now, epoch: standing?.epoch ?? 0 };
      return { ...body, taskId, ...number, type, at: at.toISOString() };
    })
    .sort((left, right) => left.seq - right.seq);
}

/** Of the present run alone: the last numbers of a run before may reach their rows after its successor's beginning was looked up. */
async function numberedRows(
  postgres: Postgres,
  taskId: string,
  { afterSeq, hasGaps }: { readonly afterSeq: number; readonly hasGaps: boolean },
): Promise<Row[]> {
  const all: Row[] = [];
  for (;;) {
    const { rows } = await postgres.query<Row>(
      `select id, type, at, body, seq, epoch from events where task_id = $1 and seq > $2
         and run_id = (select run_id from tasks where task_id = $1) and ($4 or ordinal < ${FIRST_OPEN})
       order by seq limit $3`,
      [taskId, Number(all.at(-1)?.seq ?? afterSeq), PAGE, hasGaps],
    );
    all.push(...rows);
    if (rows.length < PAGE) return all;
  }
}
