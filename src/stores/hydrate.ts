// Rebuilds the counters of a scope in Redis from Postgres: after a flush, a restart, or when a limit meets a scope for the first
// time. One rebuild per scope and process at a time.

import { randomUUID } from 'node:crypto';
import type { Scope } from '../task/budget.ts';
import { SCOPE_COLUMNS } from './accounts.ts';
import { budgetKeys } from './keys.ts';
import type { Sql } from './postgres.ts';
import { loadScript, type Redis } from './redis.ts';

const scripts = {
  begin: loadScript('holds', 'hydrate-begin'),
  write: loadScript('holds', 'hydrate-write'),
} as const;

/** How long a rebuild may take before another one may begin; longer than a statement may, or two would overtake each other for ever. */
const FENCE_MS = 10_000;
const BUSY_POLL_MS = 20;

export type HydrateRequest = {
  readonly tenantId: string;
  readonly scope: Scope;
  readonly generation: bigint;
};

export type Hydrate = (request: HydrateRequest) => Promise<void>;

/** Resolves when the scope is hydrated under the given generation and the present Redis. Throws when a store is down. */
export function createHydrate(redis: Redis, sql: Sql, options: { leaseMs: number }): Hydrate {
  // Two calls of one process that miss the same scope share one rebuild instead of invalidating each other's.
  const underWay = new Map<string, Promise<void>>();
  return (request) => {
    const name = JSON.stringify([
      request.tenantId,
      request.scope.kind,
      request.scope.id,
      request.generation.toString(),
    ]);
    const running = underWay.get(name);
    if (running !== undefined) return running;
    const started = rebuild(redis, sql, options, request).finally(() => underWay.delete(name));
    underWay.set(name, started);
    return started;
  };
}

async function rebuild(
  redis: Redis,
  sql: Sql,
  options: { leaseMs: number },
  request: HydrateRequest,
): Promise<void> {
  const keys = budgetKeys(redis.prefix, request.tenantId);
  const scopeKey = keys.scope(request.scope.kind, request.scope.id);
  for (;;) {
    const token = randomUUID();
    const runId = await redis.runId();
    const generation = request.generation.toString();
    const begun = await redis.run(scripts.begin, [scopeKey], [token, generation, runId, FENCE_MS]);
    if (begun === 'READY') return;
    if (begun === 'BUSY') {
      await new Promise((resolve) => setTimeout(resolve, BUSY_POLL_MS));
      continue;
    }
    const sums = await readSums(sql, request).catch(async (error: unknown) => {
      // Who comes next need not wait for the fence of a rebuild that failed.
      await redis.command((client) => client.hdel(scopeKey, 'hydrating'));
      throw error;
    });
    const written = await redis.run(
      scripts.write,
      [keys.holds, keys.leases, scopeKey],
      [
        token,
        generation,
        runId,
        request.scope.kind,
        request.scope.id,
        sums.nanoUsd.toString(),
        sums.tokens.toString(),
        options.leaseMs,
        JSON.stringify(sums.started),
      ],
    );
    if (written === 'OK') return;
  }
}

/**
 * Settled sums and attempts under way, of one snapshot: read in two statements, an attempt that settles in between would be in
 * both or in neither.
 */
async function readSums(sql: Sql, { tenantId, scope }: HydrateRequest) {
  const column = SCOPE_COLUMNS[scope.kind];
  const { rows } = await sql.query<{ nano: bigint; tokens: bigint; started: unknown[] }>(
    `select
       (select coalesce(sum(cost_nano_usd), 0) from ledger where tenant_id = $1 and ${column} = $2) as nano,
       (select coalesce(sum(input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens + output_tokens), 0)
          from ledger where tenant_id = $1 and ${column} = $2) as tokens,
       (select coalesce(jsonb_agg(jsonb_build_object(
            'key', attempt_key, 'call', call_key, 'nano', estimate_nano_usd::text, 'tokens', estimate_tokens::text,
            'owner', owner, 'generation', generation::text,
            'heldAt', (extract(epoch from held_at) * 1000)::bigint::text,
            'scopes', jsonb_build_array(jsonb_build_array('tenant', tenant_id), jsonb_build_array('user', user_id))
              || case when session_id is null then '[]'::jsonb else jsonb_build_array(jsonb_build_array('session', session_id)) end
              || case when task_id is null then '[]'::jsonb else jsonb_build_array(jsonb_build_array('task', task_id)) end)), '[]')
          from attempts where state = 'started' and tenant_id = $1 and ${column} = $2) as started`,
    [tenantId, scope.id],
  );
  const row = rows[0];
  if (row === undefined) throw new Error('the sums of a scope came back without a row');
  return { nanoUsd: row.nano, tokens: row.tokens, started: row.started };
}
