// The sums that a scope's counters are rebuilt from: what the ledger holds per interval, and the attempts under way.

import type { Scope } from '../task/budget.ts';
import { type Interval, toIntervalKey } from '../task/window.ts';
import { bounds, SCOPE_COLUMNS, type Spent, settledSums } from './accounts.ts';
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
 * both or in neither. Months whose rows were dropped count from their roll-ups, which only sums over all time can reach.
 */
export async function readScopeSums(
  sql: Sql,
  tenantId: string,
  scope: Scope,
  intervals: readonly Interval[],
): Promise<ScopeSums> {
  const column = SCOPE_COLUMNS[scope.kind];
  const sums = intervals.map((interval, index) => {
    const [from, to] = [`$${3 + 2 * index}`, `$${4 + 2 * index}`] as const;
    return `(select jsonb_build_array(nano::text, tokens::text) from (${settledSums(scope.kind, interval, [from, to])}) as sums)
      as "${toIntervalKey(interval)}"`;
  });
  const { rows } = await sql.query<{ sums: Record<string, [string, string]>; started: StartedAttempt[] }>(
    `select (select to_jsonb(s) from (select ${sums.join(', ')}) s) as sums,
       (select coalesce(jsonb_agg(jsonb_build_object(
            'key', attempt_key, 'call', call_key, 'nano', estimate_nano_usd::text, 'tokens', estimate_tokens::text,
            'owner', owner, 'generation', generation::text, 'heldAt', (extract(epoch from held_at) * 1000)::bigint::text,
            'scopes', jsonb_build_array(jsonb_build_array('tenant', tenant_id), jsonb_build_array('user', user_id))
              || case when session_id is null then '[]'::jsonb else jsonb_build_array(jsonb_build_array('session', session_id)) end
              || case when task_id is null then '[]'::jsonb else jsonb_build_array(jsonb_build_array('task', task_id)) end
              || case when share_id is null then '[]'::jsonb else jsonb_build_array(jsonb_build_array('share', share_id)) end)), '[]')
          from attempts where state = 'started' and tenant_id = $1 and ${column} = $2) as started`,
    [tenantId, scope.id, ...intervals.flatMap(bounds)],
  );
  const row = rows[0];
  if (row === undefined) throw new Error('the sums of a scope came back without a row');
  return {
    started: row.started,
    settled: intervals.map((interval) => {
      const [nano = '0', tokens = '0'] = row.sums[toIntervalKey(interval)] ?? [];
      return { nanoUsd: BigInt(nano), tokens: BigInt(tokens) };
    }),
  };
}
