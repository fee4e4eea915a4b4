// Limits of scopes: the rows that somebody set, the configured defaults where nobody did, and the last refusal of each scope.

import type { BindingLimit, Limit, Payer, Scope, ScopeKind } from '../task/budget.ts';
import { scopesOf } from '../task/budget.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import type { Sql } from './postgres.ts';

/** What a row of `budgets` holds: amounts as integer text, since JSON numbers end at 2^53. */
type StoredLimit = Omit<Limit, 'amount'> & { readonly amount: string };

export type DefaultLimits = Readonly<Record<ScopeKind, readonly Limit[]>>;

export type Limits = ReturnType<typeof createLimits>;

export function createLimits(sql: Sql, defaults: DefaultLimits) {
  const defaultsOf = (kind: Scope['kind']): readonly Limit[] => (kind === 'share' ? [] : defaults[kind]);
  return {
    /** All limits that bind a payer's calls, defaults included, in the order of the scopes. One query. */
    async binding(payer: Payer): Promise<readonly BindingLimit[]> {
      const scopes = scopesOf(payer);
      const { rows } = await sql.query<{ scope: Scope['kind']; scope_id: string; limits: StoredLimit[] }>(
        'select scope, scope_id, limits from budgets where tenant_id = $1 and (scope, scope_id) in (select * from unnest($2::text[], $3::text[]))',
        [payer.tenantId, scopes.map((scope) => scope.kind), scopes.map((scope) => scope.id)],
      );
      return scopes.flatMap((scope) => {
        const row = rows.find(
          (candidate) => candidate.scope === scope.kind && candidate.scope_id === scope.id,
        );
        const limits = row === undefined ? defaultsOf(scope.kind) : row.limits.map(fromStored);
        return limits.map((limit) => ({ ...limit, scope }));
      });
    },

    /** The limits somebody set on a scope, or undefined when the defaults hold. */
    async get(tenantId: string, scope: Scope): Promise<readonly Limit[] | undefined> {
      const { rows } = await sql.query<{ limits: StoredLimit[] }>(
        'select limits from budgets where tenant_id = $1 and scope = $2 and scope_id = $3',
        [tenantId, scope.kind, scope.id],
      );
      return rows[0]?.limits.map(fromStored);
    },

    /** Replaces all limits of a scope. An empty list means that nothing binds it. */
    async set(tenantId: string, scope: Scope, limits: readonly Limit[]): Promise<void> {
      await sql.query(
        `insert into budgets (tenant_id, scope, scope_id, limits) values ($1, $2, $3, $4)
         on conflict (tenant_id, scope, scope_id) do update set limits = excluded.limits, updated_at = now()`,
        [tenantId, scope.kind, scope.id, JSON.stringify(limits.map(toStored))],
      );
    },

    /** Goes back to the defaults; answers whether there was something to remove. */
    async remove(tenantId: string, scope: Scope): Promise<boolean> {
      const { rowCount } = await sql.query(
        'delete from budgets where tenant_id = $1 and scope = $2 and scope_id = $3',
        [tenantId, scope.kind, scope.id],
      );
      return rowCount === 1;
    },

    defaultsOf,

    async noteRefusal(tenantId: string, details: BudgetExceededDetails): Promise<void> {
      await sql.query(
        `insert into budget_refusals (tenant_id, scope, scope_id, details) values ($1, $2, $3, $4)
         on conflict (tenant_id, scope, scope_id) do update set details = excluded.details, at = now()`,
        [tenantId, details.scope, details.id, JSON.stringify(details)],
      );
    },

    async lastRefusal(
      tenantId: string,
      scope: Scope,
    ): Promise<{ details: BudgetExceededDetails; at: Date } | undefined> {
      const { rows } = await sql.query<{ details: BudgetExceededDetails; at: Date }>(
        'select details, at from budget_refusals where tenant_id = $1 and scope = $2 and scope_id = $3',
        [tenantId, scope.kind, scope.id],
      );
      return rows[0];
    },
  };
}

/** As `budgets.limits` holds it; the task store writes a task's own limits in the transaction of its row. */
export function toStored(limit: Limit): StoredLimit {
  return { ...limit, amount: limit.amount.toString() };
}

function fromStored(limit: StoredLimit): Limit {
  return { ...limit, amount: BigInt(limit.amount) };
}
