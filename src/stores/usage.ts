// The usage report: sums of the ledger and of what months left behind whose rows were dropped, as if no row had ever gone. One
// statement, so that groups and total are of one moment.

import type { UsageTotals } from '../task/usage.ts';
import type { Sql } from './postgres.ts';

export const USAGE_GROUPS = ['tenant', 'user', 'session', 'task', 'model', 'provider', 'day'] as const;
export type UsageGroup = (typeof USAGE_GROUPS)[number];

export type UsageFilter = {
  /** `day` as YYYY-MM-DD, in UTC. */
  readonly [Group in UsageGroup]?: string | undefined;
} & {
  /** By the moment of the hold, included. A day of a dropped month counts as a whole, where it begins. */
  readonly from?: Date | undefined;
  /** Excluded. */
  readonly to?: Date | undefined;
};

export type UsageRow = {
  /** In the order of the groups asked for; null where a call had none (no session). Empty for the total. */
  readonly keys: readonly (string | null)[];
  /** Each call once, where its last attempt is: groups add up to the total. */
  readonly calls: number;
  /** Requests that reached a provider, or may have: charges and estimates, not voids. */
  readonly attempts: number;
  readonly usage: { readonly [Part in keyof UsageTotals]: bigint };
  readonly nanoUsd: bigint;
  readonly billableNanoUsd: bigint;
};

export type UsageSummary = {
  /** The dearest first. */
  readonly groups: readonly UsageRow[];
  readonly total: UsageRow;
  /** There are more groups than were asked for; the total has them all. */
  readonly isCut: boolean;
};

/** @param limit most groups to answer */
export async function readUsage(
  sql: Sql,
  groups: readonly UsageGroup[],
  filter: UsageFilter,
  limit: number,
): Promise<UsageSummary> {
  const names = groups.map((group) => `"${group}"`);
  const sets = names.length === 0 ? '()' : `(${names.join(', ')}), ()`;
  const { rows } = await sql.query<SummedRow>(
    `select array[${names.join(', ')}]::text[] as keys, ${names.length === 0 ? 'true' : `grouping(${names[0]}) = 1`} as total,
       ${SUMS.map((name) => `coalesce(sum(${name}), 0) as ${name}`).join(', ')}
     from (${LEDGER_FACTS} union all ${LEDGER_CALLS} union all ${ROLLED_UP_FACTS}) as facts
     group by grouping sets (${sets}) order by total desc, nano desc, keys limit $10`,
    [...FILTERS.map((name) => filter[name] ?? null), limit + 2],
  );
  const [total, ...found] = rows.map(toUsageRow);
  if (total === undefined) throw new Error('the total of a report came back without a row');
  return { groups: found.slice(0, limit), total: { ...total, keys: [] }, isCut: found.length > limit };
}

const FILTERS = ['tenant', 'user', 'session', 'task', 'model', 'provider', 'from', 'to', 'day'] as const;

const SUMS = [
  'calls',
  'attempts',
  'input',
  'cached',
  'written',
  'output',
  'reasoning',
  'nano',
  'billable',
] as const;

/** Which rows of the ledger are attempts that reached a provider, or may have. */
const IS_ATTEMPT = "l.kind in ('charge', 'estimate')";

/**
 * Whether a row stands for its call: that of its last attempt does, which is the one that was answered, if any was. Counting by row
 * lets a month be rolled up without counting a call again that went on in the next one.
 */
const IS_LAST_OF_CALL = `${IS_ATTEMPT} and not exists (
  select from ledger later where later.call_key = l.call_key and later.kind in ('charge', 'estimate')
    and later.held_at >= l.held_at and (later.held_at, later.attempt_key) > (l.held_at, l.attempt_key))`;

/** The figures of one row `l` of the ledger that count calls and attempts, for reports and for rolling up. */
export const CALLS_OF_ROW = `(${IS_LAST_OF_CALL})::int`;
export const ATTEMPTS_OF_ROW = `(${IS_ATTEMPT})::int`;

const KEYS_OF_ROW = `tenant_id as tenant, user_id as "user", session_id as session, task_id as task, model, provider,
    to_char(held_at at time zone 'UTC', 'YYYY-MM-DD') as day`;

const FILTERED_ROW = `($1::text is null or tenant_id = $1) and ($2::text is null or user_id = $2) and ($3::text is null or session_id = $3)
    and ($4::text is null or task_id = $4) and ($5::text is null or model = $5) and ($6::text is null or provider = $6)
    and ($7::timestamptz is null or held_at >= $7) and ($8::timestamptz is null or held_at < $8)
    and ($9::date is null or (held_at >= $9::date::timestamp at time zone 'UTC'
      and held_at < ($9::date + 1)::timestamp at time zone 'UTC'))`;

const LEDGER_FACTS = `
  select ${KEYS_OF_ROW}, 0 as calls, ${ATTEMPTS_OF_ROW} as attempts,
    input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens as input, cache_read_tokens as cached,
    cache_write_5m_tokens + cache_write_1h_tokens as written, output_tokens as output, reasoning_tokens as reasoning,
    cost_nano_usd as nano, case when billable then cost_nano_usd else 0 end as billable
  from ledger l where ${FILTERED_ROW}`;

/** Calls by themselves, so that many rows are looked up at once, by a join, and not each by itself. */
const LEDGER_CALLS = `
  select ${KEYS_OF_ROW}, 1, 0, 0, 0, 0, 0, 0, 0, 0 from ledger l where ${FILTERED_ROW} and ${IS_LAST_OF_CALL}`;

const ROLLED_UP_FACTS = `
  select tenant_id, user_id, nullif(session_id, ''), nullif(task_id, ''), model, provider, to_char(day, 'YYYY-MM-DD'), calls, attempts,
    input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens, cache_read_tokens,
    cache_write_5m_tokens + cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, billable_nano_usd
  from ledger_rollups
  where ($1::text is null or tenant_id = $1) and ($2::text is null or user_id = $2) and ($3::text is null or session_id = $3)
    and ($4::text is null or task_id = $4) and ($5::text is null or model = $5) and ($6::text is null or provider = $6)
    and ($7::timestamptz is null or day::timestamp at time zone 'UTC' >= $7)
    and ($8::timestamptz is null or day::timestamp at time zone 'UTC' < $8) and ($9::date is null or day = $9)`;

type SummedRow = Record<(typeof SUMS)[number], bigint> & { keys: (string | null)[] };

function toUsageRow(row: SummedRow): UsageRow {
  return {
    keys: row.keys,
    calls: Number(row.calls),
    attempts: Number(row.attempts),
    usage: {
      inputTokens: row.input,
      cachedInputTokens: row.cached,
      cacheWriteTokens: row.written,
      outputTokens: row.output,
      reasoningTokens: row.reasoning,
    },
    nanoUsd: row.nano,
    billableNanoUsd: row.billable,
  };
}
