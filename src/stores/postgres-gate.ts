// The gate in Postgres: for tenants whose Redis is away, and for all where the configuration says so. A hold is the row of its attempt,
// with mark and lease in it; the row decides for such an attempt also after the gate has gone back to Redis.

import type { BudgetHold } from './budget-gate.ts';
import type { Calendars } from './calendars.ts';
import { createMakeCounters, moveCounters } from './counters.ts';
import type { Taken } from './gate.ts';
import { enterGate } from './gates.ts';
import type { Attempt, AttemptState, GateMode } from './ledger.ts';
import { insertRow, leave } from './ledger-rows.ts';
import type { Postgres, Sql } from './postgres.ts';
import { holdInPostgres, holdMove, NOTHING, type PostgresHoldRequest } from './postgres-hold.ts';

export type PostgresGateOptions = { readonly leaseMs: number; readonly calendars: Calendars };

export type PostgresGate = ReturnType<typeof createPostgresGate>;

type Key = Pick<Attempt, 'attemptKey' | 'heldAt'>;

const LEASE_FROM_NOW = 'now() + make_interval(secs => $3 / 1000.0)';

export function createPostgresGate(postgres: Postgres, { leaseMs, calendars }: PostgresGateOptions) {
  const holdParts = { postgres, makeCounters: createMakeCounters(postgres), calendars, leaseMs };
  /** Changes the row of an attempt that is under way. False when it is not. */
  const update = async ({ heldAt, attemptKey }: Key, change: string, values: readonly unknown[]) => {
    const { rowCount } = await postgres.query(
      `update attempts set ${change} where held_at = $1 and attempt_key = $2 and state = 'started'`,
      [heldAt, attemptKey, ...values],
    );
    return rowCount === 1;
  };
  return {
    /** Undefined: the gate has moved since its generation was read. */
    hold: (request: PostgresHoldRequest): Promise<BudgetHold | undefined> =>
      holdInPostgres(holdParts, request),

    /** True when the attempt may send now. False: it is over. */
    markSent: (attempt: Key): Promise<boolean> =>
      update(attempt, `sent = true, lease_until = ${LEASE_FROM_NOW}`, [leaseMs]),

    /** False when the attempt is over. */
    renew: (attempt: Key, outputTokens: number): Promise<boolean> =>
      update(attempt, `lease_until = ${LEASE_FROM_NOW}, seen_tokens = $4`, [leaseMs, outputTokens]),

    extendLease: (attempt: Key, ms: number): Promise<boolean> =>
      update(attempt, `lease_until = ${LEASE_FROM_NOW}`, [ms]),

    /** A lease for a row that has none, so that a living worker can show itself. */
    restore: async (attempt: Key, sent: 'yes' | 'unknown'): Promise<'restored' | 'over'> => {
      const change = `sent = sent or $4, lease_until = ${LEASE_FROM_NOW}`;
      return (await update(attempt, change, [leaseMs, sent === 'yes'])) ? 'restored' : 'over';
    },

    /** How long an attempt's lease still runs, negative when it is over; undefined when there is none. Milliseconds. */
    async lease(attempt: Key): Promise<{ leftMs: number } | undefined> {
      const row = await readRow(postgres, attempt);
      return row?.state !== 'started' || row.left_ms === null ? undefined : { leftMs: row.left_ms };
    },

    take: (attempt: Attempt): Promise<Taken> => take(postgres, attempt),

    /**
     * Takes back a hold that was not sent, and its row with it. Idempotent. Answers the gate that the tenant has now: another one than
     * this may have counted the row meanwhile.
     */
    undo: (attempt: Attempt): Promise<GateMode> =>
      postgres.transaction(async (sql) => {
        const mode = await enterGate(sql, attempt.payer.tenantId);
        const { rowCount } = await sql.query(
          `delete from attempts where held_at = $1 and attempt_key = $2 and state = 'started' and not sent and mode = 'postgres'`,
          [attempt.heldAt, attempt.attemptKey],
        );
        if (rowCount === 1 && mode === 'postgres')
          await moveCounters(sql, attempt.payer.tenantId, [holdMove(attempt, -1n)]);
        return mode;
      }),

    /** Attempts of a tenant whose lease is over, oldest first; `modes` are the gates that made them. */
    async expiredLeases(
      tenantId: string,
      modes: readonly GateMode[],
      count: number,
    ): Promise<readonly string[]> {
      const { rows } = await postgres.query<{ attempt_key: string }>(
        `select attempt_key from attempts
         where state = 'started' and tenant_id = $1 and mode = any($2) and (lease_until is null or lease_until <= now())
         order by held_at limit $3`,
        [tenantId, modes, count],
      );
      return rows.map((row) => row.attempt_key);
    },
  };
}

type LeaseRow = {
  state: AttemptState;
  mode: GateMode;
  sent: boolean;
  seen_tokens: number;
  left_ms: number | null;
  until_ms: number | null;
};

async function readRow(sql: Sql, { heldAt, attemptKey }: Key): Promise<LeaseRow | undefined> {
  const { rows } = await sql.query<LeaseRow>(
    `select state, mode, sent, seen_tokens, (extract(epoch from lease_until - clock_timestamp()) * 1000)::float8 as left_ms,
       (extract(epoch from lease_until) * 1000)::float8 as until_ms
     from attempts where held_at = $1 and attempt_key = $2`,
    [heldAt, attemptKey],
  );
  return rows[0];
}

/**
 * Takes a hold away from an attempt that is not sent and whose lease is over. One statement decides between this and the mark: both are
 * conditional on the row. Of an attempt that Redis held nobody knows here whether it was sent.
 */
async function take(postgres: Postgres, attempt: Attempt): Promise<Taken> {
  for (;;) {
    const row = await readRow(postgres, attempt);
    if (row === undefined) return { kind: 'done', marker: 'void' };
    if (row.state !== 'started') return { kind: 'done', marker: row.state === 'voided' ? 'void' : row.state };
    if (row.left_ms === null || row.until_ms === null) return { kind: 'none' };
    if (row.left_ms > 0) return { kind: 'live', leaseUntilMs: row.until_ms };
    if (row.sent || row.mode === 'redis') return { kind: 'sent', outputTokensSeen: row.seen_tokens };
    if (await voidAbandoned(postgres, attempt)) return { kind: 'taken' };
  }
}

function voidAbandoned(postgres: Postgres, attempt: Attempt): Promise<boolean> {
  return postgres.transaction(async (sql) => {
    const mode = await leave(sql, attempt, { to: 'voided', outcome: 'lost' }, 'abandoned');
    if (mode === undefined) return false;
    await insertRow(sql, attempt, { kind: 'void', adjustKey: '', charge: NOTHING, billable: false });
    if (mode === 'postgres') await moveCounters(sql, attempt.payer.tenantId, [holdMove(attempt, -1n)]);
    return true;
  });
}
