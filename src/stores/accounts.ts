// What scopes have spent and what is under way, read from Postgres: exact, for `explain`, for `begin` and for reports. Holds are
// decided elsewhere (gate.ts).

import type { Scope } from '../task/budget.ts';
import { ALWAYS, type Interval } from '../task/window.ts';
import type { Postgres } from './postgres.ts';
import { readUsage, type UsageFilter, type UsageGroup, type UsageSummary } from './usage.ts';

export type Spent = { readonly nanoUsd: bigint; readonly tokens: bigint };

/** The column of `ledger` and `attempts` that names a scope. */
export const SCOPE_COLUMNS = {
  tenant: 'tenant_id',
  user: 'user_id',
  session: 'session_id',
  task: 'task_id',
  share: 'share_id',
} as const satisfies Record<Scope['kind'], string>;

export type Accounts = ReturnType<typeof createAccounts>;

/** Somebody waits for a report, but no call does. */
const REPORT_MS = 60_000;

export function createAccounts(postgres: Postgres) {
  return {
    /** What the ledger holds for a scope, by the moments of the holds; without an interval, all of it. */
    async settled(tenantId: string, scope: Scope, interval: Interval = ALWAYS): Promise<Spent> {
      const { rows } = await postgres.query<{ nano: bigint; tokens: bigint }>(
        settledSums(scope.kind, interval, ['$3', '$4']),
        [tenantId, scope.id, ...bounds(interval)],
      );
      return { nanoUsd: rows[0]?.nano ?? 0n, tokens: rows[0]?.tokens ?? 0n };
    },

    /** Estimates of attempts that are under way. */
    async held(tenantId: string, scope: Scope, interval: Interval = ALWAYS): Promise<Spent> {
      const { rows } = await postgres.query<{ nano: bigint; tokens: bigint }>(
        `select coalesce(sum(estimate_nano_usd), 0) as nano, coalesce(sum(estimate_tokens), 0) as tokens
         from attempts where state = 'started' and tenant_id = $1 and ${SCOPE_COLUMNS[scope.kind]} = $2
           and held_at >= $3 and ($4::timestamptz is null or held_at < $4)`,
        [tenantId, scope.id, ...bounds(interval)],
      );
      return { nanoUsd: rows[0]?.nano ?? 0n, tokens: rows[0]?.tokens ?? 0n };
    },

    /** Grouped sums of all that was ever booked, and their total. At most `limit` groups. */
    usage: (groups: readonly UsageGroup[], filter: UsageFilter, limit: number): Promise<UsageSummary> =>
      postgres.transaction((sql) => readUsage(sql, groups, filter, limit), { statementTimeoutMs: REPORT_MS }),

    /** One attempt a row, oldest first, as the ledger has it: for comparing with a provider's own log. */
    async rows(filter: { taskIds: readonly string[] }): Promise<readonly LedgerRow[]> {
      const { rows } = await postgres.query<LedgerRow>(
        `select attempt_key as "attemptKey", kind, adjust_key as "adjustKey", task_id as "taskId", model, billable,
           usage_source as "usageSource", cost_nano_usd as "nanoUsd",
           input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens as "inputTokens", output_tokens as "outputTokens"
         from ledger where task_id = any($1) order by held_at, attempt_key, kind`,
        [filter.taskIds],
      );
      return rows;
    },
  };
}

export type LedgerRow = {
  readonly attemptKey: string;
  readonly kind: 'charge' | 'estimate' | 'adjust' | 'void';
  readonly adjustKey: string;
  readonly taskId: string | null;
  readonly model: string;
  readonly billable: boolean;
  readonly usageSource: string;
  readonly nanoUsd: bigint;
  readonly inputTokens: bigint;
  readonly outputTokens: bigint;
};

/**
 * A query for what a scope has settled in an interval, as `nano` and `tokens`: `$1` is the tenant, `$2` the scope's id, `from` and `to`
 * name the parameters of the interval's bounds. Months whose rows were dropped are too old for any window but the one over all time;
 * only that one reads their roll-ups. A share ends with its task and is not rolled up.
 */
export function settledSums(
  kind: Scope['kind'],
  interval: Interval,
  [from, to]: readonly [from: string, to: string],
): string {
  const column = SCOPE_COLUMNS[kind];
  const live = `select sum(cost_nano_usd) as nano, sum(tokens) as tokens from ledger
    where tenant_id = $1 and ${column} = $2 and held_at >= ${from} and (${to}::timestamptz is null or held_at < ${to})`;
  const dropped = isRolledUp(kind, interval)
    ? ` union all select sum(cost_nano_usd), sum(tokens) from ledger_rollups where ${rolledUpOf(kind)}`
    : '';
  return `select coalesce(sum(nano), 0) as nano, coalesce(sum(tokens), 0) as tokens from (${live}${dropped}) as parts`;
}

/** Whether rows that were dropped count in an interval. */
export function isRolledUp(kind: Scope['kind'], interval: Interval): boolean {
  return kind !== 'share' && interval.startMs <= ALWAYS.startMs && interval.endMs >= ALWAYS.endMs;
}

/** The condition for roll-ups of a scope; parameters as in `settledSums`. */
export function rolledUpOf(kind: Scope['kind']): string {
  const column = SCOPE_COLUMNS[kind];
  return `tenant_id = $1 and ${column} = $2${kind === 'session' || kind === 'task' ? ` and ${column} <> ''` : ''}`;
}

/** Of a half-open interval, as parameters of a query; no end is null. */
export function bounds(interval: Interval): [Date, Date | null] {
  const { startMs, endMs } = interval;
  return [new Date(startMs), endMs === Number.POSITIVE_INFINITY ? null : new Date(endMs)];
}
