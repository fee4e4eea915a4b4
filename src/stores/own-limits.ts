// A task's own limits: written when its run begins, gone with it when its id is used again. Each belongs into the transaction that changes
// the task's row.

import type { Limit } from '../task/budget.ts';
import { ALWAYS } from '../task/window.ts';
import { bounds, settledSums } from './accounts.ts';
import { tellLimitsChanged, toStored } from './limits.ts';
import type { Sql } from './postgres.ts';

export type OwnTaskLimits = {
  readonly tenantId: string;
  readonly taskId: string;
  readonly limits: readonly Limit[];
};

/**
 * A task's limits are its run's: an id that is used again starts on top of what its runs before have spent, which stays in the ledger
 * under the same id. Somebody's change of a queued task's limits stays.
 */
export async function setOwnLimits(sql: Sql, { tenantId, taskId, limits }: OwnTaskLimits): Promise<void> {
  const spent = await spentBefore(sql, tenantId, taskId);
  const isFirst = spent.nano === 0n && spent.tokens === 0n;
  const stored = limits.map((limit) =>
    toStored({ ...limit, amount: limit.amount + (limit.unit === 'usd' ? spent.nano : spent.tokens) }),
  );
  await sql.query(
    `insert into budgets (tenant_id, scope, scope_id, limits) values ($1, 'task', $2, $3)
     on conflict (tenant_id, scope, scope_id) ${isFirst ? 'do nothing' : 'do update set limits = excluded.limits, updated_at = now()'}`,
    [tenantId, taskId, JSON.stringify(stored)],
  );
}

/** What earlier runs have settled, and what they have under way: that settles on top of the new run's spend. */
async function spentBefore(
  sql: Sql,
  tenantId: string,
  taskId: string,
): Promise<{ nano: bigint; tokens: bigint }> {
  const settled = await sql.query<{ nano: bigint; tokens: bigint }>(
    settledSums('task', ALWAYS, ['$3', '$4']),
    [tenantId, taskId, ...bounds(ALWAYS)],
  );
  const held = await sql.query<{ nano: bigint; tokens: bigint }>(
    `select coalesce(sum(estimate_nano_usd), 0) as nano, coalesce(sum(estimate_tokens), 0) as tokens
     from attempts where state = 'started' and tenant_id = $1 and task_id = $2`,
    [tenantId, taskId],
  );
  const [before, open] = [settled.rows[0], held.rows[0]];
  return {
    nano: (before?.nano ?? 0n) + (open?.nano ?? 0n),
    tokens: (before?.tokens ?? 0n) + (open?.tokens ?? 0n),
  };
}

/** Those of a run that is over. Processes forget what they remember of refusals. */
export async function removeOwnLimits(sql: Sql, tenantId: string, taskId: string): Promise<void> {
  const { rowCount } = await sql.query(
    "delete from budgets where tenant_id = $1 and scope = 'task' and scope_id = $2",
    [tenantId, taskId],
  );
  if (rowCount === 1) await tellLimitsChanged(sql, tenantId);
}
