// Rows of tasks: written when a task is accepted, kept true until it ended. Lists and sums come from here, never from Temporal's
// visibility store.

import type { Limit, Scope } from '../task/budget.ts';
import type { Degradation } from '../task/degradation.ts';
import type { EventDraft } from '../task/event.ts';
import type { FailureDetails } from '../task/failure.ts';
import type { TaskInput } from '../task/input.ts';
import type { EndedStatus, TaskStatus } from '../task/status.ts';
import type { UsageTotals } from '../task/usage.ts';
import { withdrawApprovals } from './approvals.ts';
import { writeMilestones } from './milestones.ts';
import { removeOwnLimits, setOwnLimits } from './own-limits.ts';
import type { Postgres, Sql } from './postgres.ts';
import { createQueueCap, type QueueCap } from './queue-cap.ts';
import { waitingOn } from './waiting-tasks.ts';

export type TaskStep = {
  readonly stepId: string;
  readonly callKey?: string;
  readonly status: string;
  readonly model?: string;
};

/** `kind`: what sort of limit it is (`rate`, `held`, …); `reason` names it for a reader. */
export type TaskWait = { readonly reason: string; readonly until?: string; readonly kind?: string };

export type TaskRow = {
  readonly taskId: string;
  readonly runId: string | undefined;
  readonly tenantId: string;
  readonly userId: string;
  readonly sessionId: string | undefined;
  readonly status: TaskStatus;
  readonly phase: string;
  readonly strategy: string;
  readonly priority: string;
  readonly tier: string | undefined;
  readonly model: string | undefined;
  readonly createdAt: Date;
  readonly startedAt: Date | undefined;
  readonly endedAt: Date | undefined;
  readonly resultText: string | undefined;
  readonly steps: readonly TaskStep[];
  readonly error:
    | { readonly type: string; readonly message: string; readonly details: FailureDetails | undefined }
    | undefined;
  readonly waiting: TaskWait | undefined;
  readonly degradation: Degradation | undefined;
  readonly usage: UsageTotals;
  readonly nanoUsd: bigint;
};

export type Conversation = Pick<TaskInput, 'messages' | 'temperature' | 'reasoningEffort' | 'responseFormat'>;

export type NewTask = {
  readonly taskId: string;
  readonly runId: string | undefined;
  readonly input: TaskInput;
  readonly strategy: string;
  readonly model: string | undefined;
  /** What was down when it began, and what it was given for it. */
  readonly degradation?: Degradation | undefined;
  /** Limits the task brought with it, or the defaults times its priority's multiplier. */
  readonly limits: readonly Limit[];
};

export type TaskEnd = {
  readonly status: EndedStatus;
  readonly resultText?: string;
  readonly steps?: readonly TaskStep[];
  readonly error?: TaskRow['error'];
};

export type TaskFilter = {
  readonly tenantId?: string | undefined;
  readonly userId?: string | undefined;
  readonly sessionId?: string | undefined;
  readonly status?: TaskStatus | undefined;
  /** Only tasks after this one in the listing's order. */
  readonly after?: { readonly createdAt: Date; readonly taskId: string } | undefined;
  readonly limit: number;
};

export type Tasks = ReturnType<typeof createTasks>;

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: a table of the store's methods; cut, it would hide what the store can do
export function createTasks(postgres: Postgres, maxQueued?: number) {
  const cap = createQueueCap(postgres, maxQueued);
  return {
    /** Before the workflow starts: a task that was accepted can be read. */
    queue: (task: NewTask): Promise<Queued> => queue(postgres, cap, task),

    /** Tasks that a tenant may have without an end; undefined: any number. */
    maxQueued,

    /** Whether a task that began, started by a plain client, is one too many of its tenant. The same answer when asked again. */
    isOverCap: (task: { readonly tenantId: string; readonly taskId: string }) =>
      cap.isOver(task.tenantId, task.taskId),

    /** Takes back a row whose workflow could not be started. */
    async unqueue(taskId: string): Promise<void> {
      await postgres.query("delete from tasks where task_id = $1 and run_id is null and status = 'queued'", [
        taskId,
      ]);
    },

    /** First thing of a run; also for tasks started by a plain client. Idempotent per run: true the first time. */
    begin: (task: NewTask & { readonly runId: string }, events: readonly EventDraft[]) =>
      begin(postgres, task, events),

    /** Closes the row once; a second call changes nothing and writes no events. */
    end: (task: { taskId: string; runId: string }, end: TaskEnd, events: readonly EventDraft[]) =>
      endTask(postgres, task, end, events),

    /** What the task is doing or waiting for, as its readers see it. No effect on an ended task. */
    async note(
      taskId: string,
      runId: string,
      state: { status: TaskStatus; phase: string; waiting?: TaskRow['waiting'] },
    ): Promise<void> {
      await postgres.query(
        'update tasks set status = $3, phase = $4, waiting = $5 where task_id = $1 and run_id = $2 and ended_at is null',
        [
          taskId,
          runId,
          state.status,
          state.phase,
          state.waiting === undefined ? null : JSON.stringify(state.waiting),
        ],
      );
    },

    /** What a call of the task says; undefined when there is no such task. */
    async findMessages(taskId: string): Promise<Conversation | undefined> {
      const { rows } = await postgres.query<{ input: TaskInput }>(
        'select input from tasks where task_id = $1',
        [taskId],
      );
      return rows[0]?.input;
    },

    async get(taskId: string): Promise<TaskRow | undefined> {
      return (await select(postgres, 't.task_id = $1', [taskId], 1))[0];
    },

    /** Newest first. */
    list(filter: TaskFilter): Promise<readonly TaskRow[]> {
      return select(
        postgres,
        `($1::text is null or t.tenant_id = $1) and ($2::text is null or t.user_id = $2) and ($3::text is null or t.session_id = $3)
         and ($4::text is null or t.status = $4)
         and ($5::timestamptz is null or (t.created_at, t.task_id) < ($5, $6))`,
        [
          filter.tenantId ?? null,
          filter.userId ?? null,
          filter.sessionId ?? null,
          filter.status ?? null,
          filter.after?.createdAt ?? null,
          filter.after?.taskId ?? null,
        ],
        filter.limit,
      );
    },

    /** Tasks of a scope that are parked on a budget, oldest first: whom to wake when its limits change. */
    waitingOn: (tenantId: string, scope: Scope) => waitingOn(postgres, tenantId, scope),

    async waitingCount(): Promise<number> {
      const { rows } = await postgres.query<{ count: number }>(
        "select count(*)::int as count from tasks where ended_at is null and status = 'waiting'",
      );
      return rows[0]?.count ?? 0;
    },

    /** Some tasks without an end that are older than a moment, for the reconciler; by chance, so that all get their turn. */
    async open(
      olderThanMs: number,
      limit: number,
    ): Promise<readonly { taskId: string; runId: string | undefined; tenantId: string }[]> {
      const { rows } = await postgres.query<{ task_id: string; run_id: string | null; tenant_id: string }>(
        `select task_id, run_id, tenant_id from tasks
         where ended_at is null and created_at < now() - make_interval(secs => $1 / 1000.0) order by random() limit $2`,
        [olderThanMs, limit],
      );
      return rows.map((row) => ({
        taskId: row.task_id,
        runId: row.run_id ?? undefined,
        tenantId: row.tenant_id,
      }));
    },
  };
}

/** `taken`: a task of this id has not ended. `full`: its tenant has as many tasks without an end as it may have. */
export type Queued = 'queued' | 'taken' | 'full';

/** Limits of a run that has ended go with it; those that somebody sets from now on stay. */
function queue(postgres: Postgres, cap: QueueCap, task: NewTask): Promise<Queued> {
  return postgres.transaction(async (sql) => {
    if (!(await cap.hasRoom(sql, task.input.tenantId))) return 'full';
    const before = await lockRun(sql, task.taskId);
    const { rowCount } = await insertRow(sql, task, 'queued', 'where tasks.ended_at is not null');
    if (rowCount !== 1) return 'taken';
    if (before !== undefined) await removeOwnLimits(sql, before.tenantId, task.taskId);
    return 'queued';
  });
}

/** The row of a run before this one, locked; undefined when the id was never used. */
async function lockRun(
  sql: Sql,
  taskId: string,
): Promise<{ readonly runId: string | null; readonly tenantId: string } | undefined> {
  const { rows } = await sql.query<{ runId: string | null; tenantId: string }>(
    'select run_id as "runId", tenant_id as "tenantId" from tasks where task_id = $1 for update',
    [taskId],
  );
  return rows[0];
}

/**
 * A row of the same run stays as it is. A row of another run (an id used again, a reset, a queued row) is taken over; its epoch stays,
 * so that sequence numbers go on.
 */
function begin(
  postgres: Postgres,
  task: NewTask & { readonly runId: string },
  events: readonly EventDraft[],
): Promise<boolean> {
  return postgres.transaction(async (sql) => {
    const before = await lockRun(sql, task.taskId);
    const { rowCount } = await insertRow(
      sql,
      task,
      'running',
      'where tasks.run_id is distinct from excluded.run_id',
    );
    if (rowCount !== 1) return false;
    const isQueued = before === undefined || before.runId === null;
    if (!isQueued) await removeOwnLimits(sql, before.tenantId, task.taskId);
    await setOwnLimits(sql, { tenantId: task.input.tenantId, taskId: task.taskId, limits: task.limits });
    // What somebody granted to an earlier run of the id was for that run.
    await sql.query('delete from budget_grants where tenant_id = $1 and task_id = $2', [
      task.input.tenantId,
      task.taskId,
    ]);
    await writeMilestones(
      sql,
      { taskId: task.taskId, runId: task.runId, tenantId: task.input.tenantId },
      events,
    );
    return true;
  });
}

function insertRow(sql: Sql, task: NewTask, status: 'queued' | 'running', condition: string) {
  const { input } = task;
  return sql.query(
    `insert into tasks (task_id, run_id, tenant_id, user_id, session_id, status, phase, strategy, priority, tier, model, input, degradation,
       started_at)
     values ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10, $11, $12, case when $6 = 'running' then now() end)
     on conflict (task_id) do update set run_id = excluded.run_id, tenant_id = excluded.tenant_id, user_id = excluded.user_id,
       session_id = excluded.session_id, status = excluded.status, phase = excluded.phase, strategy = excluded.strategy,
       priority = excluded.priority, tier = excluded.tier, model = excluded.model, input = excluded.input, waiting = null,
       degradation = excluded.degradation, steps = '[]', result_text = null, error = null, started_at = excluded.started_at, ended_at = null,
       created_at = case when tasks.ended_at is null then tasks.created_at else now() end
     ${condition}`,
    [
      task.taskId,
      task.runId ?? null,
      input.tenantId,
      input.userId,
      input.sessionId ?? null,
      status,
      task.strategy,
      input.priority,
      input.tier ?? null,
      task.model ?? null,
      JSON.stringify(input),
      task.degradation === undefined ? null : JSON.stringify(task.degradation),
    ],
  );
}

function endTask(
  postgres: Postgres,
  task: { taskId: string; runId: string },
  end: TaskEnd,
  events: readonly EventDraft[],
): Promise<boolean> {
  return postgres.transaction(async (sql) => {
    const { rows } = await sql.query<{ tenant_id: string }>(
      `update tasks set status = $3, phase = $3, waiting = null, result_text = $4, steps = $5, error = $6, ended_at = now(),
         run_id = coalesce(run_id, $2)
       where task_id = $1 and (run_id = $2 or run_id is null) and ended_at is null returning tenant_id`,
      [
        task.taskId,
        task.runId,
        end.status,
        end.resultText ?? null,
        JSON.stringify(end.steps ?? []),
        end.error === undefined ? null : JSON.stringify(end.error),
      ],
    );
    const row = rows[0];
    if (row === undefined) return false;
    const withdrawn = await withdrawApprovals(sql, task.taskId);
    await writeMilestones(sql, { ...task, tenantId: row.tenant_id }, [...withdrawn, ...events]);
    return true;
  });
}

type SelectedRow = {
  task_id: string;
  run_id: string | null;
  tenant_id: string;
  user_id: string;
  session_id: string | null;
  status: TaskStatus;
  phase: string;
  strategy: string;
  priority: string;
  tier: string | null;
  model: string | null;
  created_at: Date;
  started_at: Date | null;
  ended_at: Date | null;
  result_text: string | null;
  steps: TaskStep[];
  error: TaskRow['error'] | null;
  waiting: TaskRow['waiting'] | null;
  degradation: Degradation | null;
  input_tokens: bigint;
  cached_tokens: bigint;
  write_tokens: bigint;
  output_tokens: bigint;
  reasoning_tokens: bigint;
  nano: bigint;
};

/** What a task's sums are made of, in the ledger and in what dropped months left behind. */
const BOOKED =
  'input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd';

async function select(
  sql: Sql,
  condition: string,
  values: readonly unknown[],
  limit: number,
): Promise<readonly TaskRow[]> {
  const { rows } = await sql.query<SelectedRow>(
    `select t.*, l.* from tasks t cross join lateral (
       select coalesce(sum(input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens), 0) as input_tokens,
         coalesce(sum(cache_read_tokens), 0) as cached_tokens,
         coalesce(sum(cache_write_5m_tokens + cache_write_1h_tokens), 0) as write_tokens,
         coalesce(sum(output_tokens), 0) as output_tokens, coalesce(sum(reasoning_tokens), 0) as reasoning_tokens,
         coalesce(sum(cost_nano_usd), 0) as nano
       from (
         select ${BOOKED} from ledger where ledger.task_id = t.task_id and ledger.tenant_id = t.tenant_id
         union all select ${BOOKED} from ledger_rollups r where r.task_id = t.task_id and r.tenant_id = t.tenant_id and r.task_id <> ''
       ) as booked) l
     where ${condition} order by t.created_at desc, t.task_id desc limit ${limit}`,
    values,
  );
  return rows.map(toTaskRow);
}

function toTaskRow(row: SelectedRow): TaskRow {
  return {
    taskId: row.task_id,
    runId: row.run_id ?? undefined,
    tenantId: row.tenant_id,
    userId: row.user_id,
    sessionId: row.session_id ?? undefined,
    status: row.status,
    phase: row.phase,
    strategy: row.strategy,
    priority: row.priority,
    tier: row.tier ?? undefined,
    model: row.model ?? undefined,
    createdAt: row.created_at,
    startedAt: row.started_at ?? undefined,
    endedAt: row.ended_at ?? undefined,
    resultText: row.result_text ?? undefined,
    steps: row.steps,
    error: row.error ?? undefined,
    degradation: row.degradation ?? undefined,
    waiting: row.waiting ?? undefined,
    usage: {
      inputTokens: Number(row.input_tokens),
      cachedInputTokens: Number(row.cached_tokens),
      cacheWriteTokens: Number(row.write_tokens),
      outputTokens: Number(row.output_tokens),
      reasoningTokens: Number(row.reasoning_tokens),
    },
    nanoUsd: row.nano,
  };
}
