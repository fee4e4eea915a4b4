// Epochs of a task's events. A new one begins where the counter in Redis cannot be proven continuous: Redis lost it, another server
// answers, or another run of the task begins. From then on Postgres takes no number of an older epoch (event-numbers.ts), so that what a
// new epoch begins from cannot change behind it.

import { setTimeout as pause } from 'node:timers/promises';
import type { EventType } from '../task/event.ts';
import { TURN_TYPES, type Turn, turnOf } from './call-turns.ts';
import { eventFunctions } from './event-functions.ts';
import { eventKeys } from './keys.ts';
import type { MilestoneTask } from './milestones.ts';
import type { Postgres, Sql } from './postgres.ts';
import type { Redis } from './redis.ts';

/** Milestones of calls that are looked at. */
const TURNS = 500;

export const TTL_MS = 24 * 3_600_000;
export const TTL_AFTER_END_MS = 10 * 60_000;
/**
 * Between raising an epoch in Postgres and its beginning in Redis lies one round trip; whoever raised it may have died there. One that is
 * only slow is not overtaken: what it then made visible would be told again in an epoch that nobody needed.
 */
const BEGINNING_MS = 100;

export type Missed = {
  readonly task: MilestoneTask;
  /** The server that is to count. */
  readonly server: string;
  /** What that server counts for now: 0 and nothing where it has no counter. */
  readonly seenEpoch: number;
  readonly seenRun: string;
  /** The epoch for whose beginning the caller has waited already. */
  readonly waitedAt: number | undefined;
};

/** `again`: publish again, the task is in this epoch. The others as `Published` has them. */
export type Settled =
  | { readonly kind: 'again'; readonly epoch: number }
  | { readonly kind: 'over' }
  | { readonly kind: 'left' };

export function createEpochs(postgres: Postgres, redis: Redis) {
  return {
    /**
     * Finds out why a counter was not the expected one, and begins a new epoch where that is needed. Of publishers that miss at once
     * one raises the epoch, since each names the epoch that it found; the others wait for it.
     */
    async settle(missed: Missed): Promise<Settled> {
      const { task, seenEpoch, seenRun } = missed;
      const { rows } = await postgres.query<{ epoch: number; run_id: string | null; is_told: boolean }>(
        `select epoch, run_id, exists (select from events e where e.task_id = t.task_id and e.run_id = t.run_id
           and e.type = 'stream_end' and e.seq is not null) as is_told
         from tasks t where task_id = $1`,
        [task.taskId],
      );
      const [found] = rows;
      if (found === undefined) return { kind: 'over' };
      // Until the newer run has begun to count, it will settle what this one left; once it was told to its end, nobody will any more.
      if (found.run_id !== task.runId)
        return { kind: seenRun === found.run_id || found.is_told ? 'over' : 'left' };
      const { epoch } = found;
      if (epoch === seenEpoch && seenRun === task.runId) return { kind: 'again', epoch };
      if (epoch > seenEpoch && missed.waitedAt !== epoch) {
        await pause(BEGINNING_MS);
        return { kind: 'again', epoch };
      }
      return { kind: 'again', epoch: (await beginEpoch(postgres, redis, { missed, epoch })) ?? epoch };
    },
  };
}

/** Undefined when somebody else began one. */
async function beginEpoch(
  postgres: Postgres,
  redis: Redis,
  { missed: { task, server, seenEpoch }, epoch: from }: { missed: Missed; epoch: number },
): Promise<number | undefined> {
  // Above what Redis has, also where Postgres is an older copy of itself.
  const epoch = Math.max(from, seenEpoch) + 1;
  const raise = { ...task, from, epoch };
  const raised =
    (from === 0 ? await raiseFirst(postgres, raise) : undefined) ??
    (await postgres.transaction((sql) => raiseNext(sql, raise)));
  if (raised === undefined) return undefined;
  const keys = eventKeys(redis.prefix, task.taskId);
  const ttlMs = raised.ended ? TTL_AFTER_END_MS : TTL_MS;
  const { seq, ended, pending } = raised;
  const args = [server, task.runId, epoch, seq.toString(), ttlMs, ended ? 1 : 0, pending ? 1 : 0];
  await redis.run(eventFunctions['begin-epoch'], [keys.ring, keys.meta], [...args, ...raised.calls]);
  return epoch;
}

type Raise = MilestoneTask & { readonly from: number; readonly epoch: number };
type Raised = {
  readonly seq: bigint;
  readonly ended: boolean;
  /** Milestones have no number that were visible before, or should have been. */
  readonly pending: boolean;
  /** Names and values of what Redis has to know of calls. */
  readonly calls: readonly (string | number)[];
};

const RAISE = 'update tasks set epoch = $4 where task_id = $1 and run_id = $2 and epoch = $3';

/**
 * Of a task that never had one: no number was given, so that nothing has to be settled first, unless a run before was never published.
 * Undefined then, and when somebody else began one.
 */
async function raiseFirst(sql: Sql, { taskId, runId, from, epoch }: Raise): Promise<Raised | undefined> {
  const { rows } = await sql.query<{ seq: bigint }>(
    `${RAISE} and not exists (select from events where task_id = $1 and run_id <> $2 and seq is null and epoch is null)
     returning (select coalesce(max(seq), 0) from events where task_id = $1) as seq`,
    [taskId, runId, from, epoch],
  );
  return rows[0] === undefined ? undefined : { seq: rows[0].seq, ended: false, pending: false, calls: [] };
}

/**
 * The first statement locks the task's row, and a persister takes a lock on it too: numbers of older epochs are either there for the
 * statements that follow, each of which looks anew, or they are refused.
 */
async function raiseNext(sql: Sql, { taskId, runId, from, epoch }: Raise): Promise<Raised | undefined> {
  const { rowCount } = await sql.query(RAISE, [taskId, runId, from, epoch]);
  if (rowCount === 0) return undefined;
  await closeOlderRuns(sql, { taskId, runId, from });
  await reopenLater(sql, taskId, runId);
  const { rows } = await sql.query<Omit<Raised, 'calls'>>(
    `select coalesce(max(seq), 0) as seq,
       coalesce(bool_or(run_id = $2 and type = 'stream_end' and seq is not null), false) as ended,
       coalesce(bool_or(run_id = $2 and seq is null and epoch is null), false) as pending
     from events where task_id = $1`,
    [taskId, runId],
  );
  return rows[0] === undefined ? undefined : { ...rows[0], calls: await turnsOfCalls(sql, taskId, runId) };
}

/**
 * Text of an attempt that is over may be on its way yet, and Redis has forgotten that it is: of what was told of calls last, so much that
 * nothing older can be under way any more.
 */
async function turnsOfCalls(sql: Sql, taskId: string, runId: string): Promise<readonly (string | number)[]> {
  const { rows } = await sql.query<{ type: EventType; body: Record<string, unknown> }>(
    `select type, body from events where task_id = $1 and run_id = $2 and seq is not null and type = any($3)
     order by ordinal desc limit ${TURNS}`,
    [taskId, runId, TURN_TYPES],
  );
  const newest = new Map<string, Turn>();
  for (const { type, body } of rows) {
    const turn = turnOf(type, body);
    if (turn !== undefined && turn.order > (newest.get(turn.callKey)?.order ?? 0))
      newest.set(turn.callKey, turn);
  }
  return [...newest.values()].flatMap(({ kind, callKey, attempt, order }) => [
    ...[`order:${callKey}`, order],
    ...(kind === 'begins' ? [`attempt:${callKey}`, attempt] : []),
  ]);
}

/**
 * What a run before left without a number cannot be published any more. It is numbered here, behind what that run has and before all
 * of this one; what came after the end of its run stays out.
 */
async function closeOlderRuns(
  sql: Sql,
  { taskId, runId, from }: { taskId: string; runId: string; from: number },
): Promise<void> {
  await sql.query(
    `with open as (
       select id, ordinal, exists (select from events s where s.task_id = e.task_id and s.run_id = e.run_id
         and s.type = 'stream_end' and s.ordinal < e.ordinal) as is_late
       from events e where task_id = $1 and run_id <> $2 and seq is null and epoch is null),
     numbered as (
       select id, is_late, row_number() over (partition by is_late order by ordinal)
         + (select coalesce(max(seq), 0) from events where task_id = $1) as seq from open)
     update events e set seq = case when not is_late then n.seq end, epoch = case when is_late then -1 else $3 end
     from numbered n where e.task_id = $1 and e.id = n.id`,
    [taskId, runId, from],
  );
}

/**
 * Where persisters took a later milestone of the run and not the one before it, both are published again, in their order: readers begin
 * anew with the epoch.
 */
async function reopenLater(sql: Sql, taskId: string, runId: string): Promise<void> {
  await sql.query(
    `update events set seq = null, epoch = null where task_id = $1 and run_id = $2 and seq is not null
       and ordinal > (select min(ordinal) from events where task_id = $1 and run_id = $2 and seq is null and epoch is null)`,
    [taskId, runId],
  );
}
