// Which tasks are parked on a budget: whom to wake when its limits change.

import { BUDGET_WORDS, type Scope, type ScopeKind } from '../task/budget.ts';
import type { Sql } from './postgres.ts';

const TASK_COLUMNS = {
  tenant: 'tenant_id',
  user: 'user_id',
  session: 'session_id',
  task: 'task_id',
} as const satisfies Record<ScopeKind, string>;

/** Everybody who is parked on a budget, of any tenant: whom a change of the configured limits may concern. */
export async function parkedOnBudgets(sql: Sql): Promise<readonly string[]> {
  const { rows } = await sql.query<{ task_id: string }>(
    `select task_id from tasks
     where ended_at is null and status = 'waiting' and position($1 in waiting->>'reason') > 0 order by created_at`,
    [BUDGET_WORDS],
  );
  return rows.map((row) => row.task_id);
}

/** Every wait for a budget names it (`toBudgetName`), the wait for somebody's approval too. */
export async function waitingOn(sql: Sql, tenantId: string, scope: Scope): Promise<readonly string[]> {
  // A share is a part of its task, whose own wait it is.
  if (scope.kind === 'share') return [];
  const { rows } = await sql.query<{ task_id: string }>(
    `select task_id from tasks
     where ended_at is null and status = 'waiting' and tenant_id = $1 and ${TASK_COLUMNS[scope.kind]} = $2
       and position($3 in waiting->>'reason') > 0
     order by created_at`,
    [tenantId, scope.id, BUDGET_WORDS],
  );
  return rows.map((row) => row.task_id);
}
