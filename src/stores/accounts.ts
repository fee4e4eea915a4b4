// What scopes have spent and what is under way, read from Postgres: exact, for `explain`, for `begin` and for reports. Holds are
// decided elsewhere (gate.ts).

import type { Scope } from '../task/budget.ts';
import type { UsageTotals } from '../task/usage.ts';
import { ALWAYS, type Interval } from '../task/window.ts';
import type { Sql } from './postgres.ts';

export type Spent = { readonly nanoUsd: bigint; readonly tokens: bigint };

const GROUPS = {
  tenant: 'tenant_id',
  user: 'user_id',
  session: 'session_id',
  task: 'task_id',
  model: 'model',
  provider: 'provider',
  day: "to_char(held_at at time zone 'UTC', 'YYYY-MM-DD')",
} as const;

export const USAGE_GROUPS = Object.keys(GROUPS) as readonly UsageGroup[];
export type UsageGroup = keyof typeof GROUPS;

export type UsageFilter = {
  readonly [Group in Exclude<UsageGroup, 'day'>]?: string | undefined;
} & { readonly from?: Date | undefined; readonly to?: Date | undefined };

export type UsageRow = {
  /** In the order of the groups asked for; null where a call had none (no session). */
  readonly keys: readonly (string | null)[];
  readonly calls: number;
  /** Requests that reached a provider, or may have: charges and estimates, not voids. */
  readonly attempts: number;
  readonly usage: UsageTotals;
  readonly nanoUsd: bigint;
  readonly billableNanoUsd: bigint;
};

/** The column of `ledger` and `attempts` that names a scope. */
export const SCOPE_COLUMNS = {
  tenant: 'tenant_id',
  user: 'user_id',
  session: 'session_id',
  task: 'task_id',
  share: 'share_id',
} as const satisfies Record<Scope['kind'], string>;

export type Accounts = ReturnType<typeof createAccounts>;

export function createAccounts(sql: Sql) {
  return {
    /** What the ledger holds for a scope, by the moments of the holds; without an interval, all of it. */
    async settled(tenantId: string, scope: Scope, interval: Interval = ALWAYS): Promise<Spent> {
      const { rows } = await sql.query<{ nano: bigint; tokens: bigint }>(
        `select coalesce(sum(cost_nano_usd), 0) as nano, coalesce(sum(tokens), 0) as tokens
         from ledger where tenant_id = $1 and ${SCOPE_COLUMNS[scope.kind]} = $2
           and held_at >= $3 and ($4::timestamptz is null or held_at < $4)`,
        [tenantId, scope.id, ...bounds(interval)],
      );
      return { nanoUsd: rows[0]?.nano ?? 0n, tokens: rows[0]?.tokens ?? 0n };
    },

    /** Estimates of attempts that are under way. */
    async held(tenantId: string, scope: Scope, interval: Interval = ALWAYS): Promise<Spent> {
      const { rows } = await sql.query<{ nano: bigint; tokens: bigint }>(
        `select coalesce(sum(estimate_nano_usd), 0) as nano, coalesce(sum(estimate_tokens), 0) as tokens
         from attempts where state = 'started' and tenant_id = $1 and ${SCOPE_COLUMNS[scope.kind]} = $2
           and held_at >= $3 and ($4::timestamptz is null or held_at < $4)`,
        [tenantId, scope.id, ...bounds(interval)],
      );
      return { nanoUsd: rows[0]?.nano ?? 0n, tokens: rows[0]?.tokens ?? 0n };
    },

    /** Grouped sums of the ledger, the dearest group first. At most `limit` groups. */
    usage: (
      groups: readonly UsageGroup[],
      filter: UsageFilter,
      limit: number,
    ): Promise<readonly UsageRow[]> => usage(sql, groups, filter, limit),

    /** One attempt a row, oldest first, as the ledger has it: for comparing with a provider's own log. */
    async rows(filter: { taskIds: readonly string[] }): Promise<readonly LedgerRow[]> {
      const { rows } = await sql.query<LedgerRow>(
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

/** Of a half-open interval, as parameters of a query; no end is null. */
function bounds(interval: Interval): [Date, Date | null] {
  const { startMs, endMs } = interval;
  return [new Date(startMs), endMs === Number.POSITIVE_INFINITY ? null : new Date(endMs)];
}

type SummedRow = Record<
  'calls' | 'attempts' | 'input' | 'cached' | 'written' | 'output' | 'reasoning' | 'nano' | 'billable',
  bigint
> & {
  keys: (string | null)[];
};

async function usage(
  sql: Sql,
  groups: readonly UsageGroup[],
  filter: UsageFilter,
  limit: number,
): Promise<readonly UsageRow[]> {
  const keys =
    groups.length === 0
      ? `array[]::text[]`
      : `array[${groups.map((group) => GROUPS[group]).join(', ')}]::text[]`;
  const { rows } = await sql.query<SummedRow>(
    `select ${keys} as keys, count(distinct call_key) filter (where kind in ('charge', 'estimate')) as calls,
       count(*) filter (where kind in ('charge', 'estimate')) as attempts,
       coalesce(sum(input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens), 0) as input,
       coalesce(sum(cache_read_tokens), 0) as cached,
       coalesce(sum(cache_write_5m_tokens + cache_write_1h_tokens), 0) as written,
       coalesce(sum(output_tokens), 0) as output, coalesce(sum(reasoning_tokens), 0) as reasoning,
       coalesce(sum(cost_nano_usd), 0) as nano, coalesce(sum(cost_nano_usd) filter (where billable), 0) as billable
     from ledger
     where ($1::text is null or tenant_id = $1) and ($2::text is null or user_id = $2) and ($3::text is null or session_id = $3)
       and ($4::text is null or task_id = $4) and ($5::text is null or model = $5) and ($6::text is null or provider = $6)
       and ($7::timestamptz is null or held_at >= $7) and ($8::timestamptz is null or held_at < $8)
     group by 1 order by nano desc, 1 limit ${limit}`,
    [
      filter.tenant ?? null,
      filter.user ?? null,
      filter.session ?? null,
      filter.task ?? null,
      filter.model ?? null,
      filter.provider ?? null,
      filter.from ?? null,
      filter.to ?? null,
    ],
  );
  return rows.map((row) => ({
    keys: row.keys,
    calls: Number(row.calls),
    attempts: Number(row.attempts),
    usage: {
      inputTokens: Number(row.input),
      cachedInputTokens: Number(row.cached),
      cacheWriteTokens: Number(row.written),
      outputTokens: Number(row.output),
      reasoningTokens: Number(row.reasoning),
    },
    nanoUsd: row.nano,
    billableNanoUsd: row.billable,
  }));
}
