// Writes the numbers that publishing gave into the rows of milestones. Safe to repeat, to run twice at once, and to come late: a number
// of an epoch that is over is not taken, and a row that has one keeps it.

import type { Sql } from './postgres.ts';

export type EventNumber = {
  readonly taskId: string;
  readonly id: string;
  readonly epoch: number;
  readonly seq: number;
};

/**
 * Answers the tasks whose rows somebody else holds just now: their numbers must be written later. The lock on the task is what a new
 * epoch takes first (event-epoch.ts): without it a number could be written after the new epoch had counted what there is. It is not
 * waited for, so that one process that is held up in a transaction keeps no other task from its numbers. Rows are looked up by their key:
 * by the index of those without a number, which the planner would take, all of a task's are read for each.
 */
export async function writeNumbers(sql: Sql, numbers: readonly EventNumber[]): Promise<ReadonlySet<string>> {
  if (numbers.length === 0) return new Set();
  const taskIds = [...new Set(numbers.map((number) => number.taskId))];
  const { rows } = await sql.query<{ task_id: string }>(
    `with free as materialized (
       select task_id, epoch from tasks where task_id = any($1) for share skip locked),
     written as (
       update events e set seq = n.seq, epoch = n.epoch
       from unnest($2::text[], $3::text[], $4::integer[], $5::bigint[]) as n (task_id, id, epoch, seq)
         join free on free.task_id = n.task_id and free.epoch = n.epoch
       where e.task_id = n.task_id and e.id = n.id and coalesce(e.seq, e.epoch) is null)
     select task_id from tasks where task_id = any($1) and task_id not in (select task_id from free)`,
    [
      taskIds,
      numbers.map((number) => number.taskId),
      numbers.map((number) => number.id),
      numbers.map((number) => number.epoch),
      numbers.map((number) => number.seq),
    ],
  );
  return new Set(rows.map((row) => row.task_id));
}
