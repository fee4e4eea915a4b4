// Approvals as rows: asked for once, decided once. A decision, the grant it makes and the record of who made it are one transaction;
// nothing here waits for anybody.

import { type ApprovalStatus, toApprovalName } from '../task/approval.ts';
import type { Limit } from '../task/budget.ts';
import type { EventDraft } from '../task/event.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import { formatUsd } from '../task/money.ts';
import { tellLimitsChanged } from './limits.ts';
import { type MilestoneTask, writeMilestones } from './milestones.ts';
import type { Postgres, Sql } from './postgres.ts';
import { type BudgetRaiseRow, type RaisedLimits, raiseLimits } from './raise-limits.ts';

export type NewApproval = {
  readonly approvalId: string;
  readonly task: MilestoneTask;
  readonly userId: string;
  readonly stepId: string;
  readonly callKey: string;
  /** The limit that the task asks to pass. */
  readonly exceeded: BudgetExceededDetails;
  readonly onTimeout: 'reject' | 'approve';
  readonly expiresAt: Date;
};

export type ApprovalRow = {
  readonly approvalId: string;
  readonly taskId: string;
  readonly runId: string;
  readonly tenantId: string;
  readonly userId: string;
  readonly exceeded: BudgetExceededDetails;
  readonly status: ApprovalStatus;
  readonly onTimeout: 'reject' | 'approve';
  readonly raiseNanoUsd: bigint | undefined;
  readonly comment: string | undefined;
  readonly decidedBy: string | undefined;
  readonly requestedAt: Date;
  readonly expiresAt: Date;
  readonly decidedAt: Date | undefined;
};

/** How an approval ends. `by` is a person's name, or the product's own for what time or the task's end decided. */
export type ApprovalEnd = {
  readonly approvalId: string;
  readonly status: Exclude<ApprovalStatus, 'pending'>;
  readonly raiseNanoUsd?: bigint;
  readonly comment?: string;
  readonly by: string;
};

export type ApprovalFilter = {
  readonly tenantId?: string | undefined;
  readonly taskId?: string | undefined;
  readonly status?: ApprovalStatus | undefined;
};

export type Approvals = ReturnType<typeof createApprovals>;

/** The most that one listing answers. */
const MAX_APPROVALS = 100;
/** In `decided_by` of what no person decided. */
const DECIDED_BY_WEIR = 'weir';

/** `defaultsOf` answers the limits of a scope that has none of its own. */
export function createApprovals(
  postgres: Postgres,
  limits: { readonly defaultsOf: (kind: 'task') => readonly Limit[] },
) {
  return {
    /**
     * Parks the task: approval, event and the task's row in one transaction. A repetition changes nothing.
     * @throws when the task has ended, since then nobody will read a decision
     */
    request: (approval: NewApproval): Promise<void> => postgres.transaction((sql) => request(sql, approval)),

    /**
     * Ends a pending approval; a raise becomes a grant for its task alone on the limit that bound it. Answers the row as it then
     * stands, decided by this or by an earlier call; undefined when there is none.
     */
    decide: (end: ApprovalEnd): Promise<ApprovalRow | undefined> =>
      postgres.transaction((sql) => decide(sql, end)),

    async get(approvalId: string): Promise<ApprovalRow | undefined> {
      return (await select(postgres, 'approval_id = $1', [approvalId]))[0];
    },

    /** Those that wait come oldest first, all others newest first. At most `MAX_APPROVALS`. */
    list: ({ tenantId, taskId, status }: ApprovalFilter = {}): Promise<readonly ApprovalRow[]> =>
      select(
        postgres,
        '($1::text is null or tenant_id = $1) and ($2::text is null or task_id = $2) and ($3::text is null or status = $3)',
        [tenantId ?? null, taskId ?? null, status ?? null],
        status === 'pending' ? 'asc' : 'desc',
      ),

    /** Adds to every limit of a task's own that has the unit, and records who did. */
    raise: (raise: BudgetRaiseRow): Promise<RaisedLimits> =>
      postgres.transaction((sql) => raiseLimits(sql, limits.defaultsOf('task'), raise)),
  };
}

async function request(sql: Sql, approval: NewApproval): Promise<void> {
  const { approvalId, task, exceeded, expiresAt } = approval;
  // The task's row comes first, as at its end: a task that ends meanwhile closes this approval, or it is not made.
  const { rowCount: isOpen } = await sql.query(
    'select 1 from tasks where task_id = $1 and run_id = $2 and ended_at is null for update',
    [task.taskId, task.runId],
  );
  if (isOpen !== 1) throw new Error(`task ${task.taskId} has ended and cannot ask for an approval`);
  const { rowCount: isNew } = await sql.query(
    `insert into approvals (approval_id, task_id, run_id, tenant_id, user_id, reason, details, on_timeout, expires_at)
     values ($1, $2, $3, $4, $5, 'budget', $6, $7, $8) on conflict do nothing`,
    [
      approvalId,
      task.taskId,
      task.runId,
      task.tenantId,
      approval.userId,
      JSON.stringify(exceeded),
      approval.onTimeout,
      expiresAt,
    ],
  );
  // A late repetition must not park a task that was decided about meanwhile.
  if (isNew !== 1) return;
  const waiting = { reason: toApprovalName(exceeded), until: expiresAt.toISOString() };
  await sql.query(
    "update tasks set status = 'waiting', phase = 'waiting', waiting = $3 where task_id = $1 and run_id = $2",
    [task.taskId, task.runId, JSON.stringify(waiting)],
  );
  const { stepId, callKey } = approval;
  const data = { approvalId, exceeded, expiresAt: expiresAt.toISOString(), onTimeout: approval.onTimeout };
  await writeMilestones(sql, task, [
    { id: `${approvalId}:requested`, type: 'approval_requested', stepId, callKey, data },
  ]);
}

async function decide(sql: Sql, end: ApprovalEnd): Promise<ApprovalRow | undefined> {
  const { approvalId, status, raiseNanoUsd, comment, by } = end;
  // Single use: of two decisions only one finds it pending.
  const { rows } = await sql.query<SelectedRow>(
    `update approvals set status = $2, raise_amount = $3, comment = $4, decided_by = $5, decided_at = now()
     where approval_id = $1 and status = 'pending' returning *`,
    [approvalId, status, raiseNanoUsd ?? null, comment ?? null, by],
  );
  const row = rows[0];
  if (row === undefined) return (await select(sql, 'approval_id = $1', [approvalId]))[0];
  const approval = toApprovalRow(row);
  if (status === 'approved' && raiseNanoUsd !== undefined) await grant(sql, approval, raiseNanoUsd, by);
  await writeMilestones(sql, approval, [toDecidedEvent(approval)]);
  return approval;
}

/** Nobody is asked about a task that has ended, however it did. */
export async function withdrawApprovals(sql: Sql, taskId: string): Promise<readonly EventDraft[]> {
  const { rows } = await sql.query<{ approval_id: string }>(
    `update approvals set status = 'withdrawn', decided_by = $2, decided_at = now()
     where task_id = $1 and status = 'pending' returning approval_id`,
    [taskId, DECIDED_BY_WEIR],
  );
  return rows.map((row) => toDecidedEvent({ approvalId: row.approval_id, status: 'withdrawn' }));
}

/** An approval's end as its task's readers see it. */
function toDecidedEvent(
  approval: Pick<ApprovalRow, 'approvalId' | 'status'> &
    Partial<Pick<ApprovalRow, 'raiseNanoUsd' | 'comment' | 'decidedBy'>>,
) {
  const { approvalId, status, raiseNanoUsd, comment, decidedBy } = approval;
  return {
    id: `${approvalId}:decided`,
    type: 'approval_decided',
    data: {
      approvalId,
      status,
      ...(raiseNanoUsd === undefined ? {} : { raiseUsd: formatUsd(raiseNanoUsd) }),
      ...(comment === undefined ? {} : { comment }),
      by: decidedBy ?? DECIDED_BY_WEIR,
    },
  } as const;
}

async function grant(sql: Sql, approval: ApprovalRow, nanoUsd: bigint, by: string): Promise<void> {
  const { approvalId, taskId, tenantId, exceeded } = approval;
  const { scope, id, unit, window } = exceeded;
  await sql.query(
    `insert into budget_grants (tenant_id, task_id, scope, scope_id, unit, limit_window, approval_id, amount)
     values ($1, $2, $3, $4, $5, $6, $7, $8)`,
    [tenantId, taskId, scope, id, unit, window, approvalId, nanoUsd],
  );
  const details = { approvalId, taskId, unit, window, raiseUsd: formatUsd(nanoUsd) };
  await sql.query(
    `insert into budget_changes (tenant_id, scope, scope_id, change, details, changed_by, change_key)
     values ($1, $2, $3, 'granted', $4, $5, $6)`,
    [tenantId, scope, id, JSON.stringify(details), by, `approval:${approvalId}`],
  );
  await tellLimitsChanged(sql, tenantId);
}

type SelectedRow = {
  approval_id: string;
  task_id: string;
  run_id: string;
  tenant_id: string;
  user_id: string;
  details: BudgetExceededDetails;
  status: ApprovalStatus;
  on_timeout: 'reject' | 'approve';
  raise_amount: bigint | null;
  comment: string | null;
  decided_by: string | null;
  requested_at: Date;
  expires_at: Date;
  decided_at: Date | null;
};

async function select(
  sql: Sql,
  condition: string,
  values: readonly unknown[],
  order: 'asc' | 'desc' = 'desc',
): Promise<readonly ApprovalRow[]> {
  const { rows } = await sql.query<SelectedRow>(
    `select * from approvals where ${condition} order by requested_at ${order}, approval_id limit ${MAX_APPROVALS}`,
    values,
  );
  return rows.map(toApprovalRow);
}

function toApprovalRow(row: SelectedRow): ApprovalRow {
  return {
    approvalId: row.approval_id,
    taskId: row.task_id,
    runId: row.run_id,
    tenantId: row.tenant_id,
    userId: row.user_id,
    exceeded: row.details,
    status: row.status,
    onTimeout: row.on_timeout,
    raiseNanoUsd: row.raise_amount ?? undefined,
    comment: row.comment ?? undefined,
    decidedBy: row.decided_by ?? undefined,
    requestedAt: row.requested_at,
    expiresAt: row.expires_at,
    decidedAt: row.decided_at ?? undefined,
  };
}
