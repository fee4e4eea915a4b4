// The row that says which gate admits a tenant's calls: the one in Redis, or the one in Postgres. Whatever depends on the answer reads
// it `for share` in its own transaction, so that the gate moves between two of them and never inside one.

import type { Caused, GateMode, TenantGate } from './ledger.ts';
import { writeMilestones } from './milestones.ts';
import type { Postgres, Sql } from './postgres.ts';

/** The tenant's gate as it is now; its row is written here, before the tenant's first hold. */
export async function readGate(sql: Sql, tenantId: string): Promise<TenantGate> {
  const read = () =>
    sql.query<TenantGate>('select mode, generation from gates where tenant_id = $1', [tenantId]);
  const found = (await read()).rows[0];
  if (found !== undefined) return found;
  await sql.query('insert into tenants (tenant_id) values ($1) on conflict do nothing', [tenantId]);
  await sql.query('insert into gates (tenant_id) values ($1) on conflict do nothing', [tenantId]);
  const made = (await read()).rows[0];
  if (made === undefined) throw new Error(`the gate of tenant ${tenantId} was deleted while it was read`);
  return made;
}

/**
 * Common table expressions that end in one named `entered (mode, generation)`. They keep the gate where it is until the transaction
 * ends, and in mode postgres take the tenant's lock on counters, shared: counters are made under it alone, so that none of them is
 * summed up from attempts while this transaction is changing one. The lock comes before any lock on a row, here as everywhere.
 * `tenant` names the parameter.
 */
export function enteringGate(tenant: string): string {
  return `gate as materialized (select mode, generation from gates where tenant_id = ${tenant} for share),
    entered as materialized (select mode, generation,
      case when mode = 'postgres' then pg_advisory_xact_lock_shared(${countersLock(tenant)})::text end from gate)`;
}

/** The name of a tenant's lock on counters, as a key of an advisory lock. */
export function countersLock(tenant: string): string {
  return `hashtextextended(current_schema() || '.counters.' || ${tenant}, 0)`;
}

/** The gate's mode, held until the transaction ends; see `enteringGate`. */
export async function enterGate(sql: Sql, tenantId: string): Promise<GateMode> {
  const { rows } = await sql.query<TenantGate>(
    `with ${enteringGate('$1')} select mode, generation from entered`,
    [tenantId],
  );
  return rows[0]?.mode ?? 'redis';
}

export type GateMove = {
  readonly tenantId: string;
  /** The generation that is left; a gate that has moved on since stays where it is. */
  readonly from: bigint;
  readonly to: GateMode;
  readonly leaseMs: number;
  readonly caused?: Caused | undefined;
};

/**
 * Moves a gate under a new generation. False: somebody moved it before. Holds and settlements under way are waited for, and those that
 * come later see the new gate: an intent of a hold that the other gate made is not written any more. Attempts under way get a lease in
 * their rows, in which their workers can show themselves although Redis is away.
 */
export function moveGate(
  postgres: Pick<Postgres, 'transaction'>,
  { tenantId, from, to, leaseMs, caused }: GateMove,
): Promise<boolean> {
  return postgres.transaction(async (sql) => {
    const { rowCount } = await sql.query(
      `update gates set mode = $3, generation = generation + 1, changed_at = now()
       where tenant_id = $1 and generation = $2 and mode <> $3`,
      [tenantId, from, to],
    );
    if (rowCount !== 1) return false;
    if (to === 'postgres')
      await sql.query(
        `update attempts set lease_until = now() + make_interval(secs => $2 / 1000.0)
         where tenant_id = $1 and state = 'started'`,
        [tenantId, leaseMs],
      );
    await sql.query('delete from budget_counters where tenant_id = $1', [tenantId]);
    if (caused !== undefined) await writeMilestones(sql, caused.task, caused.events);
    return true;
  });
}

/** Gates that have been in Postgres for longer than `ms`. */
export async function gatesInPostgres(
  sql: Sql,
  ms: number,
): Promise<readonly { readonly tenantId: string; readonly generation: bigint }[]> {
  const { rows } = await sql.query<{ tenantId: string; generation: bigint }>(
    `select tenant_id as "tenantId", generation from gates
     where mode = 'postgres' and changed_at <= now() - make_interval(secs => $1 / 1000.0) order by tenant_id`,
    [ms],
  );
  return rows;
}
