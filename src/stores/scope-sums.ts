// The sums that a scope's counters are rebuilt from: what the ledger holds per interval, and the attempts under way.

import type { Scope } from '../task/budget.ts';
import type { Interval } from '../task/window.ts';
import { bounds, isRolledUp, rolledUpOf, SCOPE_COLUMNS, type Spent } from './accounts.ts';
import type { Sql } from './postgres.ts';

/** An attempt under way as a script reads it: amounts and times as text. */
export type StartedAttempt = {
  readonly key: string;
  readonly call: string;
  readonly nano: string;
  readonly tokens: string;
  readonly owner: string;
  readonly generation: string;
  readonly heldAt: string;
  readonly scopes: readonly (readonly [Scope['kind'], string])[];
};

export type ScopeSums = {
  /** In the order of the intervals asked for. */
  readonly settled: readonly Spent[];
  readonly started: readonly StartedAttempt[];
};

/**
 * Settled sums and attempts under way, of one snapshot: read in two statements, an attempt that settles in between would be in
 * both or in neither. Months whose rows were dropped count from their roll-ups, which only sums over all time can reach. The ledger is
 * read once, however many intervals there are.
 */
export async function readScopeSums(
  sql: Sql,
  tenantId: string,
  scope: Scope,
  intervals: readonly Interval[],
): Promise<ScopeSums> {
  const column = SCOPE_COLUMNS[scope.kind];
  const whole = hullOf(intervals);
  const values: unknown[] = [tenantId, scope.id, ...bounds(whole)];
  const sums = intervals.map((interval) =>
    settledIn(scope.kind, filterOf(interval, whole, values), interval),
  );
  const { rows } = await sql.query<{ sums: [string, string][]; started: StartedAttempt[] }>(
    `select coalesce((select jsonb_build_array(${sums.join(', ')}) from ledger
         where tenant_id = $1 and ${column} = $2 and held_at >= $3 and ($4::timestamptz is null or held_at < $4)), '[]') as sums,
       (select coalesce(jsonb_agg(jsonb_build_object(
            'key', attempt_key, 'call', call_key, 'nano', estimate_nano_usd::text, 'tokens', estimate_tokens::text,
            'owner', owner, 'generation', generation::text, 'heldAt', (extract(epoch from held_at) * 1000)::bigint::text,
            'scopes', jsonb_build_array(jsonb_build_array('tenant', tenant_id), jsonb_build_array('user', user_id))
              || case when session_id is null then '[]'::jsonb else jsonb_build_array(jsonb_build_array('session', session_id)) end
              || case when task_id is null then '[]'::jsonb else jsonb_build_array(jsonb_build_array('task', task_id)) end
              || case when share_id is null then '[]'::jsonb else jsonb_build_array(jsonb_build_array('share', share_id)) end)), '[]')
          from attempts where state = 'started' and tenant_id = $1 and ${column} = $2) as started`,
    values,
  );
  const row = rows[0];
  if (row === undefined) throw new Error('the sums of a scope came back without a row');
  return {
    started: row.started,
    settled: row.sums.map(([nano, tokens]) => ({ nanoUsd: BigInt(nano), tokens: BigInt(tokens) })),
  };
}

/** From the earliest beginning to the latest end. */
function hullOf(intervals: readonly Interval[]): Interval {
  if (intervals.length === 0) return { startMs: 0, endMs: 0 };
  return {
    startMs: Math.min(...intervals.map(({ startMs }) => startMs)),
    endMs: Math.max(...intervals.map(({ endMs }) => endMs)),
  };
}

/** Which of the rows that are read lie in an interval; all do in one that is as wide. Appends its parameters to `values`. */
function filterOf(interval: Interval, whole: Interval, values: unknown[]): string {
  if (interval.startMs === whole.startMs && interval.endMs === whole.endMs) return '';
  values.push(...bounds(interval));
  const [from, to] = [`$${values.length - 1}::timestamptz`, `$${values.length}::timestamptz`];
  return ` filter (where held_at >= ${from} and (${to} is null or held_at < ${to}))`;
}

/** Nano-USD and tokens, as text: JSON numbers are doubles. */
function settledIn(kind: Scope['kind'], filter: string, interval: Interval): string {
  const sumOf = (name: 'cost_nano_usd' | 'tokens') => {
    const rolledUp = isRolledUp(kind, interval)
      ? ` + coalesce((select sum(${name}) from ledger_rollups where ${rolledUpOf(kind)}), 0)`
      : '';
    return `(coalesce(sum(${name})${filter}, 0)${rolledUp})::text`;
  };
  return `jsonb_build_array(${sumOf('cost_nano_usd')}, ${sumOf('tokens')})`;
}
