// What is given up after its time: single rows of the ledger, whose sums stay, texts of tasks and their events. Nothing here changes
// what anybody was charged, and nothing that is under way is touched.

import { ERASE_ENDED_TASKS } from './erase.ts';
import type { Postgres, Sql } from './postgres.ts';
import { ATTEMPTS_OF_ROW, CALLS_OF_ROW } from './usage.ts';

export type DroppedMonths = {
  /** First days of the months whose rows are gone now, as YYYY-MM-DD. */
  readonly dropped: readonly string[];
  /** Months that were left for the next time: an attempt of them is still open, or somebody was reading or writing. */
  readonly kept: readonly string[];
};

export type Retention = ReturnType<typeof createRetention>;

const TASKS_PER_BATCH = 500;
const EVENTS_PER_BATCH = 5_000;
/** A month in the zone that has the longest. */
const LONGEST_WINDOW_MS = 32 * 86_400_000;
/** How long traffic on the ledger may wait behind the lock that a drop asks for. */
const LOCK_FOR_MS = 1_000;

export function createRetention(postgres: Postgres) {
  return {
    /**
     * Rolls up and drops the months of the ledger and of the attempts that ended before `olderThan`, one transaction each; never one that
     * a limit's window, a late adjustment or an open attempt may still reach. Safe to repeat and to run twice at once.
     */
    dropOldPartitions: (olderThan: Date): Promise<DroppedMonths> => dropOldPartitions(postgres, olderThan),

    /** Removes prompts and answers of tasks and direct calls that ended before `olderThan`. Answers how many. */
    async dropOldTexts(olderThan: Date): Promise<{ readonly tasks: number; readonly calls: number }> {
      const tasks = await inBatches(TASKS_PER_BATCH, async () => {
        const { rows } = await postgres.query<{ tasks: bigint }>(
          `with ended as (
             select task_id, tenant_id from tasks where ended_at < $1 and not input ? 'erasedAt' limit $2 for update skip locked
           ), ${ERASE_ENDED_TASKS} select count(*) as tasks from erased_tasks`,
          [olderThan, TASKS_PER_BATCH],
        );
        return Number(rows[0]?.tasks ?? 0);
      });
      const calls = await inBatches(TASKS_PER_BATCH, async () => {
        const { rowCount } = await postgres.query(
          `update call_results set text = '' where call_key in (
             select call_key from call_results where task_id is null and text <> '' and created_at < $1 limit $2)`,
          [olderThan, TASKS_PER_BATCH],
        );
        return rowCount ?? 0;
      });
      return { tasks, calls };
    },

    /** Removes warnings of windows that are over, and what was noted of limits of tasks that have ended. */
    async dropOldNotes(olderThan: Date): Promise<void> {
      await postgres.query("delete from budget_thresholds where interval_key <> 'all' and at < $1", [
        new Date(Math.min(olderThan.getTime(), Date.now() - LONGEST_WINDOW_MS)),
      ]);
      const ended = `(select task_id from tasks where ended_at < $1)`;
      await postgres.query(`delete from budget_refusals where scope = 'task' and scope_id in ${ended}`, [
        olderThan,
      ]);
      await postgres.query(
        `delete from budgets where updated_at < $1 and (scope = 'task' and scope_id in ${ended}
           or scope = 'share' and regexp_replace(scope_id, ':[^:]*$', '') in ${ended})`,
        [olderThan],
      );
    },

    /**
     * Removes events that are older than `olderThan` of tasks that have ended. The one that ends a stream stays, without its body: a
     * reader that comes later is told that the task is over.
     */
    async dropOldEvents(olderThan: Date): Promise<number> {
      return inBatches(EVENTS_PER_BATCH, async () => {
        const { rowCount } = await postgres.query(
          `delete from events where (task_id, id) in (
             select e.task_id, e.id from events e join tasks t on t.task_id = e.task_id
             where e.at < $1 and e.type <> 'stream_end' and t.ended_at < $1 order by e.at limit $2)`,
          [olderThan, EVENTS_PER_BATCH],
        );
        return rowCount ?? 0;
      });
    },
  };
}

/** Repeats `work`, which answers how many it did of at most `size`, until nothing is left. */
async function inBatches(size: number, work: () => Promise<number>): Promise<number> {
  for (let all = 0; ; ) {
    const done = await work();
    all += done;
    if (done < size) return all;
  }
}

type Month = {
  readonly from: Date;
  readonly until: Date;
  readonly ledger?: string;
  readonly attempts?: string;
};

async function dropOldPartitions(postgres: Postgres, olderThan: Date): Promise<DroppedMonths> {
  const outcomes: { month: string; isDropped: boolean }[] = [];
  for (const month of await oldMonths(postgres, olderThan)) {
    const isDropped = await postgres.transaction((sql) => dropMonth(sql, month));
    outcomes.push({ month: month.from.toISOString().slice(0, 10), isDropped });
  }
  return {
    dropped: outcomes.flatMap(({ month, isDropped }) => (isDropped ? [month] : [])),
    kept: outcomes.flatMap(({ month, isDropped }) => (isDropped ? [] : [month])),
  };
}

/**
 * Partitions by their bounds, oldest first. The youngest are left whatever was asked for: windows of limits reach back a month, in
 * any zone, and roll-ups know only days.
 */
async function oldMonths(sql: Sql, olderThan: Date): Promise<readonly Month[]> {
  const { rows } = await sql.query<{ from: Date; until: Date; names: Record<string, string> }>(
    `select "from", until, jsonb_object_agg(parent, name) as names from (
       select p.relname as parent, c.relname as name,
         substring(pg_get_expr(c.relpartbound, c.oid) from $$FROM \\('([^']+)'\\)$$)::timestamptz as "from",
         substring(pg_get_expr(c.relpartbound, c.oid) from $$TO \\('([^']+)'\\)$$)::timestamptz as until
       from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
       where p.oid in ('ledger'::regclass, 'attempts'::regclass)) as partitions
     where until <= least($1, now() - interval '32 days') group by 1, 2 order by 1`,
    [olderThan],
  );
  return rows.map(({ from, until, names }) => ({ ...names, from, until }));
}

/** False when the month must wait. */
async function dropMonth(sql: Sql, month: Month): Promise<boolean> {
  await sql.query(`set local lock_timeout = ${LOCK_FOR_MS}`);
  // The lock under which partitions are made: two that drop, or one that makes and one that drops, would wait for each other's tables.
  const { rows } = await sql.query<{ locked: boolean }>(
    "select pg_try_advisory_xact_lock(hashtext(current_schema() || '.ensure_partitions')) as locked",
  );
  if (rows[0]?.locked !== true) return false;
  try {
    return await rollUpAndDrop(sql, month);
  } catch (error) {
    if (!(error instanceof Error) || !GIVES_WAY.has(Reflect.get(error, 'code'))) throw error;
    // The transaction is aborted: its commit takes everything back.
    return false;
  }
}

/** Somebody holds the lock, or waits for one of ours, or another process has dropped the month meanwhile. */
const GIVES_WAY: ReadonlySet<unknown> = new Set(['55P03', '40P01', '42P01']);

async function rollUpAndDrop(sql: Sql, { from, until, ledger, attempts }: Month): Promise<boolean> {
  const tables = [ledger, attempts].flatMap((name) => (name === undefined ? [] : [quoted(name)]));
  // Keeps writers of this month out from here to the commit, so that no row comes in after it was summed up. Readers go on.
  await sql.query(`lock table ${tables.join(', ')} in share mode`);
  if (attempts !== undefined && (await hasOpenAttempt(sql, attempts))) return false;
  if (ledger !== undefined) {
    await forgetDirectTexts(sql, ledger);
    for (let day = from; day < until; day = new Date(day.getTime() + DAY_MS)) await rollUp(sql, ledger, day);
  }
  // Only now is the whole table locked, and only for the moment of the drop: everybody waits behind this.
  await sql.query(`drop table ${tables.join(', ')}`);
  return true;
}

const DAY_MS = 86_400_000;

async function hasOpenAttempt(sql: Sql, attempts: string): Promise<boolean> {
  const { rows } = await sql.query<{ open: boolean }>(
    `select exists (select from ${quoted(attempts)} where state = 'started') as open`,
  );
  return rows[0]?.open === true;
}

/** Whose a direct call's answer is, only its row of the ledger tells: without it nobody could ask for its removal. */
async function forgetDirectTexts(sql: Sql, ledger: string): Promise<void> {
  await sql.query(
    `update call_results set text = '' where task_id is null and text <> ''
       and call_key in (select call_key from ${quoted(ledger)} where task_id is null)`,
  );
}

/** Sums of one day: a month in one statement could outlast the time that a statement is given. */
async function rollUp(sql: Sql, ledger: string, day: Date): Promise<void> {
  await sql.query(
    `insert into ledger_rollups as r (tenant_id, user_id, session_id, task_id, provider, model, day, calls, attempts,
       ${SUMMED.join(', ')}, billable_nano_usd)
     select tenant_id, user_id, coalesce(session_id, ''), coalesce(task_id, ''), provider, model, (held_at at time zone 'UTC')::date,
       sum(${CALLS_OF_ROW}), sum(${ATTEMPTS_OF_ROW}), ${SUMMED.map((name) => `sum(${name})`).join(', ')},
       coalesce(sum(cost_nano_usd) filter (where billable), 0)
     from ${quoted(ledger)} l where held_at >= $1 and held_at < $2 group by 1, 2, 3, 4, 5, 6, 7
     on conflict (tenant_id, user_id, session_id, task_id, provider, model, day) do update set
       ${[...SUMMED, 'calls', 'attempts', 'billable_nano_usd'].map((name) => `${name} = r.${name} + excluded.${name}`).join(', ')}`,
    [day, new Date(day.getTime() + DAY_MS)],
  );
}

const SUMMED = [
  'input_tokens',
  'cache_read_tokens',
  'cache_write_5m_tokens',
  'cache_write_1h_tokens',
  'output_tokens',
  'reasoning_tokens',
  'cost_nano_usd',
] as const;

/** A name from the catalogue as it stands in SQL. */
function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
