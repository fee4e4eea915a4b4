// Raises a task's own limits by an amount, once per key: whoever repeats a raise finds it made.

import type { Limit } from '../task/budget.ts';
import { formatUsd, MAX_LIMIT_NANO_USD } from '../task/money.ts';
import { tellLimitsChanged, toStored } from './limits.ts';
import type { MilestoneTask } from './milestones.ts';
import type { Sql } from './postgres.ts';

export type BudgetRaiseRow = {
  readonly task: Pick<MilestoneTask, 'taskId' | 'tenantId'>;
  readonly nanoUsd?: bigint;
  readonly tokens?: number;
  readonly by: string;
  /** A raise of this key is made once, however often it is asked for. */
  readonly changeKey: string;
};

/** Limits after a raise, amounts in nano-USD or tokens; `nothing`: the task has no limit of a unit that was to be raised. */
export type RaisedLimits =
  | { readonly kind: 'raised'; readonly limits: readonly Limit[] }
  | { readonly kind: 'nothing'; readonly unit: Limit['unit'] }
  | { readonly kind: 'too_much'; readonly unit: Limit['unit'] };

/** Adds to every limit of a task's own that has the unit, tells who did, and wakes what remembers refusals. One transaction. */
export async function raiseLimits(
  sql: Sql,
  defaults: readonly Limit[],
  { task: { taskId, tenantId }, nanoUsd, tokens, by, changeKey }: BudgetRaiseRow,
): Promise<RaisedLimits> {
  // Two raises of one task come one after the other, also where it has no row of limits yet.
  await sql.query('select 1 from tasks where task_id = $1 for update', [taskId]);
  const { rows } = await sql.query<{ limits: (Omit<Limit, 'amount'> & { amount: string })[] }>(
    "select limits from budgets where tenant_id = $1 and scope = 'task' and scope_id = $2 for update",
    [tenantId, taskId],
  );
  const own = rows[0]?.limits.map((limit) => ({ ...limit, amount: BigInt(limit.amount) })) ?? defaults;
  const added = { usd: nanoUsd ?? 0n, tokens: BigInt(tokens ?? 0) };
  const { rows: made } = await sql.query<{ id: bigint }>(
    'select id from budget_changes where change_key = $1',
    [changeKey],
  );
  if (made.length > 0) return { kind: 'raised', limits: own };
  for (const unit of ['usd', 'tokens'] as const) {
    const raised = own.filter((limit) => limit.unit === unit);
    if (added[unit] > 0n && raised.length === 0) return { kind: 'nothing', unit };
    // What every store and client can count exactly, for tokens as for nano-USD.
    if (raised.some((limit) => limit.amount + added[unit] > MAX_LIMIT_NANO_USD))
      return { kind: 'too_much', unit };
  }
  const limits = own.map((limit) => ({ ...limit, amount: limit.amount + added[limit.unit] }));
  await sql.query(
    `insert into budgets (tenant_id, scope, scope_id, limits) values ($1, 'task', $2, $3)
     on conflict (tenant_id, scope, scope_id) do update set limits = excluded.limits, updated_at = now()`,
    [tenantId, taskId, JSON.stringify(limits.map(toStored))],
  );
  const details = {
    ...(nanoUsd === undefined ? {} : { usd: formatUsd(nanoUsd) }),
    ...(tokens === undefined ? {} : { tokens }),
    limits: limits.map(toStored),
  };
  await sql.query(
    `insert into budget_changes (tenant_id, scope, scope_id, change, details, changed_by, change_key)
     values ($1, 'task', $2, 'raised', $3, $4, $5)`,
    [tenantId, taskId, JSON.stringify(details), by, changeKey],
  );
  await tellLimitsChanged(sql, tenantId);
  return { kind: 'raised', limits };
}
