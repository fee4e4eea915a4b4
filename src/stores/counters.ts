// Counters of the gate in Postgres. They are exact because they move in the transactions that change attempts and ledger. A counter
// that is not there is made from the sums of both, alone, under the tenant's lock; whoever moves counters holds that lock, shared.

import { type Payer, type Scope, scopesOf } from '../task/budget.ts';
import { fromIntervalKey, type Interval, toIntervalKey } from '../task/window.ts';
import { bounds, type Spent } from './accounts.ts';
import type { ScopeIntervals } from './gate.ts';
import { countersLock } from './gates.ts';
import type { TenantGate } from './ledger.ts';
import type { Postgres, Sql } from './postgres.ts';
import { readScopeSums, type StartedAttempt } from './scope-sums.ts';

export type Counter = {
  readonly scope: Scope;
  readonly interval: Interval;
  readonly settled: Spent;
  readonly held: Spent;
};

/** What changes on every counter of a payer's scopes whose interval holds the moment of the hold. */
export type CounterMove = {
  readonly payer: Payer;
  readonly heldAt: Date;
  readonly held: Spent;
  readonly settled: Spent;
};

/** The one order in which rows are locked: tenant, user, session, task, share. */
const SCOPE_ORDER = `array_position(array['tenant', 'user', 'session', 'task', 'share'], c.scope), c.scope_id, c.interval_key`;

/** Counters of a payer's scopes that count one of the moments, as one snapshot or locked until the transaction ends. */
export async function readCounters(
  sql: Sql,
  payer: Payer,
  moments: readonly Date[],
  lock: 'snapshot' | 'locked',
): Promise<readonly Counter[]> {
  const scopes = scopesOf(payer);
  const { rows } = await sql.query<{
    scope: Scope['kind'];
    scope_id: string;
    interval_key: string;
    settled_nano_usd: bigint;
    settled_tokens: bigint;
    held_nano_usd: bigint;
    held_tokens: bigint;
  }>(
    `select * from budget_counters c
     where tenant_id = $1 and (scope, scope_id) in (select * from unnest($2::text[], $3::text[]))
       and exists (select from unnest($4::timestamptz[]) as at where starts_at <= at and at < ends_at)
     order by ${SCOPE_ORDER} ${lock === 'locked' ? 'for update' : ''}`,
    [payer.tenantId, scopes.map(({ kind }) => kind), scopes.map(({ id }) => id), moments],
  );
  return rows.map((row) => ({
    scope: { kind: row.scope, id: row.scope_id },
    interval: fromIntervalKey(row.interval_key),
    settled: { nanoUsd: row.settled_nano_usd, tokens: row.settled_tokens },
    held: { nanoUsd: row.held_nano_usd, tokens: row.held_tokens },
  }));
}

/** Moves the counters that exist; one that is made later is made from what these moves belong to. All of one tenant. */
export async function moveCounters(sql: Sql, tenantId: string, moves: readonly CounterMove[]): Promise<void> {
  const each = moves.flatMap((move) => scopesOf(move.payer).map((scope) => ({ ...move, scope })));
  if (each.length === 0) return;
  await sql.query(
    `with moves as (
       select * from unnest($2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
         as m (scope, scope_id, held_at, held_nano, held_tokens, settled_nano, settled_tokens)
     ), locked as materialized (
       select scope, scope_id, interval_key, starts_at, ends_at from budget_counters c
       where tenant_id = $1 and exists (select from moves m
         where m.scope = c.scope and m.scope_id = c.scope_id and c.starts_at <= m.held_at and m.held_at < c.ends_at)
       order by ${SCOPE_ORDER} for update
     ), sums as (
       select l.scope, l.scope_id, l.interval_key, sum(held_nano)::bigint as held_nano, sum(held_tokens)::bigint as held_tokens,
         sum(settled_nano)::bigint as settled_nano, sum(settled_tokens)::bigint as settled_tokens
       from locked l join moves m on m.scope = l.scope and m.scope_id = l.scope_id
         and l.starts_at <= m.held_at and m.held_at < l.ends_at
       group by 1, 2, 3
     )
     update budget_counters c set held_nano_usd = c.held_nano_usd + s.held_nano, held_tokens = c.held_tokens + s.held_tokens,
       settled_nano_usd = c.settled_nano_usd + s.settled_nano, settled_tokens = c.settled_tokens + s.settled_tokens
     from sums s
     where c.tenant_id = $1 and c.scope = s.scope and c.scope_id = s.scope_id and c.interval_key = s.interval_key`,
    [
      tenantId,
      each.map(({ scope }) => scope.kind),
      each.map(({ scope }) => scope.id),
      each.map(({ heldAt }) => heldAt),
      each.map(({ held }) => held.nanoUsd),
      each.map(({ held }) => held.tokens),
      each.map(({ settled }) => settled.nanoUsd),
      each.map(({ settled }) => settled.tokens),
    ],
  );
}

export type MissingCounters = {
  readonly tenantId: string;
  readonly generation: bigint;
  readonly scopes: readonly ScopeIntervals[];
};

/** Makes counters from what Postgres has settled and under way. False: the gate is not that one any more. */
export type MakeCounters = (missing: MissingCounters) => Promise<boolean>;

export function createMakeCounters(postgres: Pick<Postgres, 'transaction'>): MakeCounters {
  // Making counters keeps all holds of the tenant waiting: many calls of one process that miss the same ones make them once.
  const underWay = new Map<string, Promise<boolean>>();
  return (missing) => {
    const name = JSON.stringify([
      ...[missing.tenantId, missing.generation.toString()],
      ...missing.scopes.map(({ scope, intervals }) => [
        scope.kind,
        scope.id,
        ...intervals.map(toIntervalKey),
      ]),
    ]);
    const running = underWay.get(name);
    if (running !== undefined) return running;
    const made = postgres
      .transaction((sql) => makeCounters(sql, missing))
      .finally(() => underWay.delete(name));
    underWay.set(name, made);
    return made;
  };
}

async function makeCounters(sql: Sql, { tenantId, generation, scopes }: MissingCounters): Promise<boolean> {
  // Alone: whoever changes an attempt of the tenant holds this lock, shared, to the end of its transaction.
  const { rows } = await sql.query<TenantGate>(
    `with gate as materialized (select mode, generation from gates where tenant_id = $1 for share)
     select mode, generation, pg_advisory_xact_lock(${countersLock('$1')})::text from gate`,
    [tenantId],
  );
  if (rows[0]?.mode !== 'postgres' || rows[0].generation !== generation) return false;
  for (const { scope, intervals } of scopes) {
    // Windows that are over count for nothing any more.
    await sql.query(
      'delete from budget_counters where tenant_id = $1 and scope = $2 and scope_id = $3 and ends_at < now()',
      [tenantId, scope.kind, scope.id],
    );
    const { rows: found } = await sql.query<{ interval_key: string }>(
      'select interval_key from budget_counters where tenant_id = $1 and scope = $2 and scope_id = $3',
      [tenantId, scope.kind, scope.id],
    );
    const wanted = intervals.filter((interval) =>
      found.every((row) => row.interval_key !== toIntervalKey(interval)),
    );
    if (wanted.length > 0) await insertCounters(sql, { tenantId, scope, generation, intervals: wanted });
  }
  return true;
}

async function insertCounters(
  sql: Sql,
  counters: ScopeIntervals & { readonly tenantId: string; readonly generation: bigint },
): Promise<void> {
  const { tenantId, scope, intervals, generation } = counters;
  const { settled, started } = await readScopeSums(sql, tenantId, scope, intervals);
  const held = intervals.map((interval) => heldIn(started, interval));
  await sql.query(
    `insert into budget_counters (tenant_id, scope, scope_id, generation, interval_key, starts_at, ends_at,
       settled_nano_usd, settled_tokens, held_nano_usd, held_tokens)
     select $1, $2, $3, $4, interval_key, starts_at, coalesce(ends_at, 'infinity'), settled_nano, settled_tokens, held_nano, held_tokens
     from unnest($5::text[], $6::timestamptz[], $7::timestamptz[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
       as c (interval_key, starts_at, ends_at, settled_nano, settled_tokens, held_nano, held_tokens)`,
    [
      ...[tenantId, scope.kind, scope.id, generation],
      intervals.map(toIntervalKey),
      intervals.map((interval) => bounds(interval)[0]),
      intervals.map((interval) => bounds(interval)[1]),
      settled.map(({ nanoUsd }) => nanoUsd),
      settled.map(({ tokens }) => tokens),
      held.map(({ nanoUsd }) => nanoUsd),
      held.map(({ tokens }) => tokens),
    ],
  );
}

function heldIn(started: readonly StartedAttempt[], { startMs, endMs }: Interval): Spent {
  let [nanoUsd, tokens] = [0n, 0n];
  for (const attempt of started) {
    const heldAt = Number(attempt.heldAt);
    if (heldAt < startMs || heldAt >= endMs) continue;
    nanoUsd += BigInt(attempt.nano);
    tokens += BigInt(attempt.tokens);
  }
  return { nanoUsd, tokens };
}
