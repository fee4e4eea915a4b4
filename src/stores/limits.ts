// Limits of scopes: the rows that somebody set, the configured defaults where nobody did, what approvals added for one task, and the
// last refusal of each scope.

import type { BindingLimit, Limit, Payer, Scope, ScopeKind } from '../task/budget.ts';
import { scopesOf } from '../task/budget.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import type { Interval } from '../task/window.ts';
import type { Calendars } from './calendars.ts';
import { LIMITS_CHANGED } from './limit-changes.ts';
import type { Postgres, Sql } from './postgres.ts';

/** What a row of `budgets` holds: amounts as integer text, since JSON numbers end at 2^53. */
type StoredLimit = Omit<Limit, 'amount'> & { readonly amount: string };

export type DefaultLimits = Readonly<Record<ScopeKind, readonly Limit[]>>;

/** Limits that somebody set. */
export type OwnLimits = {
  readonly scope: Scope;
  readonly limits: readonly Limit[];
  readonly updatedAt: Date;
};

/** Who changed a limit, for the record that outlives it. */
export type ChangedBy = { readonly by: string };

export type Limits = ReturnType<typeof createLimits>;

export function createLimits(postgres: Postgres, defaults: DefaultLimits, calendars: Calendars) {
  const defaultsOf = (kind: Scope['kind']): readonly Limit[] => (kind === 'share' ? [] : defaults[kind]);
  return {
    /**
     * All limits that bind a payer's calls, defaults and grants included, in the order of the scopes. One query, in the transaction that
     * is given: a second connection for it could be one that the pool does not have.
     */
    binding: (payer: Payer, sql: Sql = postgres): Promise<readonly BindingLimit[]> =>
      binding(sql, defaultsOf, payer),

    /** The window of a limit that a moment lies in. */
    intervalOf: (limit: Pick<Limit, 'window' | 'zone'>, atMs: number): Interval =>
      calendars.intervalOf(limit, atMs),

    /** The limits somebody set on a scope, or undefined when the defaults hold. */
    async get(tenantId: string, scope: Scope): Promise<readonly Limit[] | undefined> {
      const { rows } = await postgres.query<{ limits: StoredLimit[] }>(
        'select limits from budgets where tenant_id = $1 and scope = $2 and scope_id = $3',
        [tenantId, scope.kind, scope.id],
      );
      return rows[0]?.limits.map(fromStored);
    },

    /** Scopes of a tenant whose limits somebody set, those of tasks left out unless asked for; changed last comes first. */
    list: (tenantId: string, filter: { scope?: ScopeKind | undefined; limit: number }) =>
      list(postgres, tenantId, filter),

    /** Replaces all limits of a scope. An empty list means that nothing binds it. */
    set: (tenantId: string, scope: Scope, limits: readonly Limit[], { by }: ChangedBy): Promise<void> =>
      postgres.transaction(async (sql) => {
        await sql.query(
          `insert into budgets (tenant_id, scope, scope_id, limits) values ($1, $2, $3, $4)
           on conflict (tenant_id, scope, scope_id) do update set limits = excluded.limits, updated_at = now()`,
          [tenantId, scope.kind, scope.id, JSON.stringify(limits.map(toStored))],
        );
        await noteChange(sql, tenantId, scope, { change: 'set', limits: limits.map(toStored), by });
      }),

    /** Goes back to the defaults; answers whether there was something to remove. */
    remove: (tenantId: string, scope: Scope, { by }: ChangedBy): Promise<boolean> =>
      postgres.transaction(async (sql) => {
        const { rowCount } = await sql.query(
          'delete from budgets where tenant_id = $1 and scope = $2 and scope_id = $3',
          [tenantId, scope.kind, scope.id],
        );
        if (rowCount === 1) await noteChange(sql, tenantId, scope, { change: 'removed', by });
        return rowCount === 1;
      }),

    defaultsOf,

    async noteRefusal(tenantId: string, details: BudgetExceededDetails): Promise<void> {
      await postgres.query(
        `insert into budget_refusals (tenant_id, scope, scope_id, details) values ($1, $2, $3, $4)
         on conflict (tenant_id, scope, scope_id) do update set details = excluded.details, at = now()`,
        [tenantId, details.scope, details.id, JSON.stringify(details)],
      );
    },

    async lastRefusal(
      tenantId: string,
      scope: Scope,
    ): Promise<{ details: BudgetExceededDetails; at: Date } | undefined> {
      const { rows } = await postgres.query<{ details: BudgetExceededDetails; at: Date }>(
        'select details, at from budget_refusals where tenant_id = $1 and scope = $2 and scope_id = $3',
        [tenantId, scope.kind, scope.id],
      );
      return rows[0];
    },
  };
}

async function binding(
  sql: Sql,
  defaultsOf: (kind: Scope['kind']) => readonly Limit[],
  payer: Payer,
): Promise<readonly BindingLimit[]> {
  const scopes = scopesOf(payer);
  const { rows } = await sql.query<{
    scope: Scope['kind'];
    scope_id: string;
    limits: StoredLimit[] | null;
    unit: Limit['unit'] | null;
    limit_window: string | null;
    granted: bigint | null;
  }>(
    `select scope, scope_id, limits, null as unit, null as limit_window, null::bigint as granted
     from budgets where tenant_id = $1 and (scope, scope_id) in (select * from unnest($2::text[], $3::text[]))
     union all
     select scope, scope_id, null, unit, limit_window, sum(amount)::bigint
     from budget_grants where tenant_id = $1 and task_id = $4 group by 1, 2, 4, 5`,
    [payer.tenantId, scopes.map(({ kind }) => kind), scopes.map(({ id }) => id), payer.taskId ?? null],
  );
  return scopes.flatMap((scope) => {
    const own = rows.filter((row) => row.scope === scope.kind && row.scope_id === scope.id);
    const set = own.find((row) => row.limits !== null)?.limits;
    const limits = set?.map(fromStored) ?? defaultsOf(scope.kind);
    return limits.map((limit) => {
      const grant = own.find((row) => row.unit === limit.unit && row.limit_window === limit.window);
      return { ...limit, amount: limit.amount + (grant?.granted ?? 0n), scope };
    });
  });
}

async function list(
  sql: Sql,
  tenantId: string,
  { scope, limit }: { scope?: ScopeKind | undefined; limit: number },
): Promise<readonly OwnLimits[]> {
  const { rows } = await sql.query<{
    scope: ScopeKind;
    scope_id: string;
    limits: StoredLimit[];
    updated_at: Date;
  }>(
    `select scope, scope_id, limits, updated_at from budgets
     where tenant_id = $1 and scope = any($2::text[]) order by updated_at desc, scope, scope_id limit $3`,
    [tenantId, scope === undefined ? ['tenant', 'user', 'session'] : [scope], limit],
  );
  return rows.map((row) => ({
    scope: { kind: row.scope, id: row.scope_id },
    limits: row.limits.map(fromStored),
    updatedAt: row.updated_at,
  }));
}

export type LimitChange =
  | { readonly change: 'set'; readonly limits: readonly StoredLimit[]; readonly by: string }
  | { readonly change: 'removed'; readonly by: string };

/** The record of a change, and a notice to every process that remembers refusals; both in the change's own transaction. */
async function noteChange(
  sql: Sql,
  tenantId: string,
  scope: Scope,
  { change, by, ...details }: LimitChange,
): Promise<void> {
  await sql.query(
    `insert into budget_changes (tenant_id, scope, scope_id, change, details, changed_by) values ($1, $2, $3, $4, $5, $6)`,
    [tenantId, scope.kind, scope.id, change, JSON.stringify(details), by],
  );
  await tellLimitsChanged(sql, tenantId);
}

/** Reaches every process that listens, when the transaction commits. */
export async function tellLimitsChanged(sql: Sql, tenantId: string): Promise<void> {
  await sql.query("select pg_notify(current_schema() || '.' || $1, $2)", [LIMITS_CHANGED, tenantId]);
}

/** As `budgets.limits` holds it; the task store writes a task's own limits in the transaction of its row. */
export function toStored(limit: Limit): StoredLimit {
  return { ...limit, amount: limit.amount.toString() };
}

function fromStored(limit: StoredLimit): Limit {
  return { ...limit, amount: BigInt(limit.amount) };
}
