// Removes what a tenant's or a user's tasks were asked and what was answered, wherever it is kept. The ledger, the attempts and the
// roll-ups are not touched: who was charged what stays.

import { eventKeys } from './keys.ts';
import type { Postgres, Sql } from './postgres.ts';
import type { Redis } from './redis.ts';

export type ErasedTexts = {
  /** Tasks whose texts are gone now; those that were erased before are not counted again. */
  readonly tasks: number;
  /** Events of theirs that had a text. */
  readonly events: number;
  /** Answers of calls that belong to no task. */
  readonly calls: number;
  /** Tasks that are still under way: their texts stay, and must be erased again when they have ended. */
  readonly running: number;
};

export type Erase = ReturnType<typeof createErase>;

const BATCH = 200;

/** What an erased input keeps: nothing that somebody wrote freely. */
const KEPT_OF_INPUT = [
  'tenantId',
  'userId',
  'sessionId',
  'strategy',
  'tier',
  'model',
  'maxOutputTokens',
  'temperature',
  'reasoningEffort',
  'tools',
  'budget',
  'approval',
  'priority',
  'deadline',
  'abort',
];

/** What an approval keeps of the limit that was to be passed: it is audited, and holds figures and ids alone. */
const KEPT_OF_REFUSAL = [
  'type',
  'scope',
  'id',
  'unit',
  'window',
  'limit',
  'settled',
  'held',
  'needed',
  'resetsAt',
];

/** Of a body of an event: where it belongs, and figures that the ledger has too. */
const KEPT_OF_BODY = `jsonb_strip_nulls(jsonb_build_object(
  'stepId', body->'stepId', 'callKey', body->'callKey', 'attempt', body->'attempt',
  'data', nullif(jsonb_strip_nulls(jsonb_build_object('status', body#>'{data,status}', 'model', body#>'{data,model}',
    'usage', body#>'{data,usage}', 'costUsd', body#>'{data,costUsd}')), '{}')))`;

/**
 * Common table expressions that remove the texts of the tasks in one named `ended (task_id, tenant_id)`. They go on as
 * `erased_tasks` and `erased_events`.
 */
export const ERASE_ENDED_TASKS = `
  erased_tasks as (
    update tasks t set result_text = null, waiting = null,
      input = (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(t.input) where key in (${names(KEPT_OF_INPUT)}))
        || jsonb_build_object('erasedAt', now()),
      error = case when t.error is not null then jsonb_build_object('type', t.error->'type', 'message', 'its texts were removed') end
    from ended where t.task_id = ended.task_id returning t.task_id),
  erased_events as (
    update events e set body = ${KEPT_OF_BODY} from ended where e.task_id = ended.task_id and body <> ${KEPT_OF_BODY} returning e.id),
  erased_results as (
    update call_results c set text = '' from ended
    where c.tenant_id = ended.tenant_id and c.task_id = ended.task_id and c.text <> '' returning c.call_key),
  erased_approvals as (
    update approvals a set comment = null,
      details = (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(a.details) where key in (${names(KEPT_OF_REFUSAL)}))
    from ended where a.task_id = ended.task_id returning a.approval_id)`;

function names(fields: readonly string[]): string {
  return fields.map((field) => `'${field}'`).join(', ');
}

export function createErase(postgres: Postgres, redis: Redis) {
  return {
    /**
     * Erases the texts of all tasks of a tenant, or of one of its users, that have ended. Safe to repeat: what a broken attempt left is
     * found again.
     */
    async eraseTexts(tenantId: string, { userId }: { readonly userId?: string | undefined } = {}) {
      const whose: Whose = [tenantId, userId ?? null];
      const erased = { tasks: 0, events: 0, calls: 0 };
      for (;;) {
        const ended = await findEnded(postgres, whose);
        // Redis first: a task that is marked as erased is not looked at again.
        await forgetStreams(redis, ended);
        const done = await eraseTasks(postgres, whose, ended);
        erased.tasks += done.tasks;
        erased.events += done.events;
        if (ended.length < BATCH || done.tasks === 0) break;
      }
      for (let done = BATCH; done === BATCH; erased.calls += done) done = await eraseDirect(postgres, whose);
      return { ...erased, running: await countLeft(postgres, whose) } satisfies ErasedTexts;
    },
  };
}

type Whose = readonly [tenantId: string, userId: string | null];
type Ended = { readonly taskId: string; readonly callKeys: readonly string[] };

/**
 * A task has ended for good when no attempt of it can settle any more (a call that was let go on brings its answer later) and all its
 * events are out (one on its way to Redis carries its text there).
 */
const HAS_ENDED = `t.tenant_id = $1 and ($2::text is null or t.user_id = $2) and t.ended_at is not null and not t.input ? 'erasedAt'
  and not exists (select from attempts a where a.state = 'started' and a.tenant_id = t.tenant_id and a.task_id = t.task_id)
  and not exists (select from events e where e.task_id = t.task_id and e.seq is null and e.epoch is null)`;

async function findEnded(sql: Sql, whose: Whose): Promise<readonly Ended[]> {
  const { rows } = await sql.query<Ended>(
    `select t.task_id as "taskId", array(
       select call_key from ledger l where l.task_id = t.task_id and l.tenant_id = t.tenant_id
       union select e.body->>'callKey' from events e where e.task_id = t.task_id and e.body ? 'callKey') as "callKeys"
     from tasks t where ${HAS_ENDED} limit ${BATCH}`,
    whose,
  );
  return rows;
}

/** The counter of a stream stays: it holds no text, and with it readers keep their places. */
async function forgetStreams(redis: Redis, tasks: readonly Ended[]): Promise<void> {
  for (const { taskId, callKeys } of tasks) {
    const keys = eventKeys(redis.prefix, taskId);
    await redis.command((client) => client.del(keys.ring, ...callKeys.map(keys.text)));
    // Readers that have not come that far find what they miss elsewhere.
    await redis.command((client) => client.xtrim(keys.live, 'MAXLEN', 0));
  }
}

/** Asks again whether they have ended: an id may have been used again meanwhile. */
async function eraseTasks(sql: Sql, whose: Whose, ended: readonly Ended[]) {
  if (ended.length === 0) return { tasks: 0, events: 0 };
  const { rows } = await sql.query<{ tasks: bigint; events: bigint }>(
    `with ended as (select task_id, tenant_id from tasks t where ${HAS_ENDED} and t.task_id = any($3) for update of t),
     ${ERASE_ENDED_TASKS}
     select (select count(*) from erased_tasks) as tasks, (select count(*) from erased_events) as events`,
    [...whose, ended.map(({ taskId }) => taskId)],
  );
  return { tasks: Number(rows[0]?.tasks ?? 0), events: Number(rows[0]?.events ?? 0) };
}

/** Answers of calls without a task; the ledger says whose they are. */
async function eraseDirect(sql: Sql, whose: Whose): Promise<number> {
  const { rowCount } = await sql.query(
    `update call_results set text = '' where call_key in (
       select c.call_key from call_results c where c.tenant_id = $1 and c.task_id is null and c.text <> ''
         and ($2::text is null or exists (select from ledger l where l.call_key = c.call_key and l.user_id = $2)) limit ${BATCH})`,
    whose,
  );
  return rowCount ?? 0;
}

async function countLeft(sql: Sql, whose: Whose): Promise<number> {
  const { rows } = await sql.query<{ count: bigint }>(
    `select count(*) as count from tasks t
     where t.tenant_id = $1 and ($2::text is null or t.user_id = $2) and not t.input ? 'erasedAt'`,
    whose,
  );
  return Number(rows[0]?.count ?? 0);
}
