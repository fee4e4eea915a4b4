// One hold at the gate in Postgres: the limits are checked, the counters moved and the attempt written in one transaction, so that a hold
// and its intent are the same row. What a limit refuses and in which order is as in scripts/hold.lua; one suite runs against both.

import { type BindingLimit, type Estimate, scopesOf } from '../task/budget.ts';
import { NO_USAGE } from '../task/usage.ts';
import { toIntervalKey } from '../task/window.ts';
import type { AttemptDraft, BudgetHold } from './budget-gate.ts';
import type { Calendars } from './calendars.ts';
import { type Counter, type MakeCounters, moveCounters, readCounters } from './counters.ts';
import type { LimitUse, ScopeIntervals } from './gate.ts';
import { enteringGate } from './gates.ts';
import type { Attempt, AttemptState, Charge, GateMode, TenantGate } from './ledger.ts';
import { insertHold, insertRow, leave } from './ledger-rows.ts';
import { amountOf, refusalOf } from './limit-check.ts';
import type { Postgres, Sql } from './postgres.ts';

export type PostgresHoldRequest = {
  readonly draft: AttemptDraft;
  readonly generation: bigint;
  readonly limits: readonly BindingLimit[];
};

export type PostgresHoldParts = {
  readonly postgres: Pick<Postgres, 'transaction'>;
  readonly makeCounters: MakeCounters;
  readonly calendars: Calendars;
  readonly leaseMs: number;
};

/** Undefined: the gate has moved since its generation was read. */
export async function holdInPostgres(
  parts: PostgresHoldParts,
  request: PostgresHoldRequest,
): Promise<BudgetHold | undefined> {
  const { generation, draft } = request;
  const { tenantId } = draft.payer;
  for (;;) {
    const answer = await parts.postgres.transaction((sql) => hold(sql, parts, request));
    if (answer.kind === 'moved') return undefined;
    if (answer.kind !== 'missing') return answer;
    if (!(await parts.makeCounters({ tenantId, generation, scopes: answer.scopes }))) return undefined;
  }
}

type Answer =
  | BudgetHold
  | { readonly kind: 'moved' }
  | { readonly kind: 'missing'; readonly scopes: readonly ScopeIntervals[] };

async function hold(
  sql: Sql,
  parts: PostgresHoldParts,
  { draft, generation, limits }: PostgresHoldRequest,
): Promise<Answer> {
  const gate = await enterWithCall(sql, draft);
  if (gate?.mode !== 'postgres' || gate.generation !== generation) return { kind: 'moved' };
  const attempt: Attempt = { ...draft, mode: 'postgres', generation, heldAt: gate.now };

  const { open, isAnswered } = await lockAttempts(sql, attempt);
  const own = open.find(({ attemptKey }) => attemptKey === attempt.attemptKey);
  if (own !== undefined) return isHold(own) ? repeated(attempt, own) : { kind: 'done' };
  if (isAnswered) return { kind: 'done' };
  const older = open.filter(isHold);
  // What one snapshot refuses is refused; only who would be admitted waits for the counters' locks and looks again.
  for (const lock of ['snapshot', 'locked'] as const) {
    const found = await look(sql, parts, { attempt, older, limits, lock });
    if (found.kind !== 'room') return found;
    // Somebody else's request for this call may be under way.
    if (older.length < open.length) return { kind: 'done' };
    if (lock === 'locked') return write(sql, parts, { attempt, older, uses: found.uses });
  }
  throw new Error('a hold ended without an answer');
}

async function look(
  sql: Sql,
  parts: PostgresHoldParts,
  {
    attempt,
    older,
    limits,
    lock,
  }: Omit<Seen, 'counters'> & {
    readonly limits: readonly BindingLimit[];
    readonly lock: 'snapshot' | 'locked';
  },
): Promise<Answer | { readonly kind: 'room'; readonly uses: readonly LimitUse[] }> {
  const moments = [attempt, ...older].map(({ heldAt }) => heldAt);
  const counters = await readCounters(sql, attempt.payer, moments, lock);
  const found = limits.map((limit) => useOf(parts, limit, { attempt, counters, older }));
  const missing = missingOf(attempt, found);
  if (missing.length > 0) return { kind: 'missing', scopes: missing };
  const uses = found.flatMap(({ use }) => use ?? []);
  return refusalOf(uses, attempt.estimate) ?? { kind: 'room', uses };
}

async function write(
  sql: Sql,
  { leaseMs }: PostgresHoldParts,
  { attempt, older, uses }: Omit<Seen, 'counters'> & { readonly uses: readonly LimitUse[] },
): Promise<Answer> {
  for (const one of older) await giveWay(sql, attempt, one);
  await moveCounters(sql, attempt.payer.tenantId, [
    ...older.map(({ heldAt, estimate }) => holdMove({ ...attempt, heldAt, estimate }, -1n)),
    holdMove(attempt, 1n),
  ]);
  await insertHold(sql, attempt, leaseMs);
  return { kind: 'ok', attempt, uses };
}

/** What a hold, or its end (`sign` -1), changes on the counters. */
export function holdMove({ payer, heldAt, estimate }: Attempt, sign: 1n | -1n) {
  const held = { nanoUsd: sign * estimate.nanoUsd, tokens: sign * BigInt(estimate.tokens) };
  return { payer, heldAt, held, settled: { nanoUsd: 0n, tokens: 0n } };
}

/**
 * The gate, and the moment of the hold by the server's clock. Holds of one call come one after the other: without the lock two of them
 * would not see each other's rows.
 */
async function enterWithCall(
  sql: Sql,
  { payer, callKey }: AttemptDraft,
): Promise<(TenantGate & { readonly now: Date }) | undefined> {
  const { rows } = await sql.query<TenantGate & { now: Date }>(
    `with ${enteringGate('$1')}
     select mode, generation, date_trunc('milliseconds', clock_timestamp()) as now,
       pg_advisory_xact_lock(hashtextextended(current_schema() || '.call.' || $2, 0))::text
     from entered`,
    [payer.tenantId, callKey],
  );
  return rows[0];
}

type OpenAttempt = Pick<Attempt, 'attemptKey' | 'heldAt' | 'mode'> & {
  readonly estimate: Estimate;
  readonly state: AttemptState;
  readonly isSent: boolean;
};

/** The attempts of a call that are under way, and the one in question whatever its state; locked, so that none is marked sent now. */
async function lockAttempts(
  sql: Sql,
  attempt: Attempt,
): Promise<{ readonly open: readonly OpenAttempt[]; readonly isAnswered: boolean }> {
  const { rows } = await sql.query<{
    answered: boolean;
    attempt_key: string | null;
    held_at: Date;
    mode: GateMode;
    state: AttemptState;
    sent: boolean;
    estimate_nano_usd: bigint;
    estimate_tokens: bigint;
  }>(
    `with open as materialized (
       select attempt_key, held_at, mode, state, sent, estimate_nano_usd, estimate_tokens from attempts
       where call_key = $1 and (state = 'started' or attempt_key = $2) order by held_at, attempt_key for update)
     select exists (select from call_results where call_key = $1) as answered, open.*
     from (select) as one left join open on true`,
    [attempt.callKey, attempt.attemptKey],
  );
  const open = rows.flatMap(({ attempt_key: attemptKey, ...row }) =>
    attemptKey === null
      ? []
      : {
          attemptKey,
          heldAt: row.held_at,
          mode: row.mode,
          state: row.state,
          isSent: row.sent,
          estimate: {
            ...attempt.estimate,
            nanoUsd: row.estimate_nano_usd,
            tokens: Number(row.estimate_tokens),
          },
        },
  );
  return { open, isAnswered: rows[0]?.answered === true };
}

/** A hold that was not sent, and will not be once its row says so. */
function isHold({ mode, state, isSent }: OpenAttempt): boolean {
  return mode === 'postgres' && state === 'started' && !isSent;
}

function repeated(attempt: Attempt, { heldAt }: OpenAttempt): BudgetHold {
  return { kind: 'ok', attempt: { ...attempt, heldAt }, uses: [] };
}

type Seen = {
  readonly attempt: Attempt;
  readonly counters: readonly Counter[];
  readonly older: readonly OpenAttempt[];
};

/** A limit's counters in its window at the moment of the hold; what an older hold will give back counts as free. */
function useOf(
  { calendars }: PostgresHoldParts,
  limit: BindingLimit,
  { attempt, counters, older }: Seen,
): Pick<LimitUse, 'limit' | 'interval'> & { readonly use: LimitUse | undefined } {
  const interval = calendars.intervalOf(limit, attempt.heldAt.getTime());
  const counter = counters.find(
    ({ scope, interval: counted }) =>
      scope.kind === limit.scope.kind &&
      scope.id === limit.scope.id &&
      toIntervalKey(counted) === toIntervalKey(interval),
  );
  if (counter === undefined) return { limit, interval, use: undefined };
  const { settled, held } = counter;
  const inWindow = older.filter(
    ({ heldAt }) => heldAt.getTime() >= interval.startMs && heldAt.getTime() < interval.endMs,
  );
  const back = inWindow.reduce((sum, { estimate }) => sum + amountOf(limit, estimate), 0n);
  const use =
    limit.unit === 'usd'
      ? { limit, interval, settled: settled.nanoUsd, held: held.nanoUsd - back }
      : { limit, interval, settled: settled.tokens, held: held.tokens - back };
  return { limit, interval, use };
}

function missingOf({ payer }: Attempt, uses: readonly ReturnType<typeof useOf>[]): ScopeIntervals[] {
  const without = uses.filter(({ use }) => use === undefined);
  return scopesOf(payer).flatMap((scope) => {
    const own = without.filter(({ limit }) => limit.scope.kind === scope.kind && limit.scope.id === scope.id);
    const intervals = new Map(own.map(({ interval }) => [toIntervalKey(interval), interval]));
    return intervals.size === 0 ? [] : [{ scope, intervals: [...intervals.values()] }];
  });
}

export const NOTHING: Charge = { usage: NO_USAGE, nanoUsd: 0n, source: 'none' };

/** The row is locked and not sent: its worker finds it voided when it wants to mark it. */
async function giveWay(sql: Sql, attempt: Attempt, { attemptKey, heldAt }: OpenAttempt): Promise<void> {
  const older = { ...attempt, attemptKey, heldAt };
  await leave(sql, older, { to: 'voided', outcome: 'lost' });
  await insertRow(sql, older, { kind: 'void', adjustKey: '', charge: NOTHING, billable: false });
}
