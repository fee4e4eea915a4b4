// The statements that steps of an attempt are made of. Each belongs into a transaction of its caller; which of them make up a step is
// decided there.

import { cleanText } from '../task/text.ts';
import { totalTokens } from '../task/usage.ts';
import { moveCounters } from './counters.ts';
import { enteringGate } from './gates.ts';
import type { Attempt, AttemptOutcome, AttemptState, CallResult, Charge, GateMode } from './ledger.ts';
import type { Sql } from './postgres.ts';

const ATTEMPT_COLUMNS = `held_at, attempt_key, call_key, tenant_id, user_id, session_id, task_id, step_id, provider, model,
  generation, owner, estimate_nano_usd, estimate_tokens, estimate_input_tokens, max_output_tokens, price_hash, candidate, share_id, mode`;
const ATTEMPT_VALUES =
  '$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20';

/** Whether the row of a hold that Redis made was written: only under the gate of that hold, and for a call that nobody else is at. */
// `for share` keeps the gate from moving between the check and the insert: a fallback waits for intents under way.
export async function insertIntent(sql: Sql, attempt: Attempt): Promise<boolean> {
  const { rowCount } = await sql.query(
    `with gate as (
       select 1 from gates where tenant_id = $4 and mode = 'redis' and generation = $11 for share
     )
     insert into attempts (${ATTEMPT_COLUMNS}, state)
     select ${ATTEMPT_VALUES}, 'started' from gate
     where not exists (select 1 from call_results where call_key = $3)
       and not exists (select 1 from attempts where call_key = $3 and state = 'started' and attempt_key <> $2)
     on conflict do nothing`,
    attemptValues(attempt),
  );
  return rowCount === 1;
}

/** The row of a hold that Postgres makes, with its lease. */
export async function insertHold(sql: Sql, attempt: Attempt, leaseMs: number): Promise<void> {
  await sql.query(
    `insert into attempts (${ATTEMPT_COLUMNS}, state, lease_until)
     values (${ATTEMPT_VALUES}, 'started', now() + make_interval(secs => $21 / 1000.0))`,
    [...attemptValues(attempt), leaseMs],
  );
}

function attemptValues(attempt: Attempt): unknown[] {
  const { estimate, payer } = attempt;
  return [
    attempt.heldAt,
    attempt.attemptKey,
    attempt.callKey,
    payer.tenantId,
    payer.userId,
    payer.sessionId ?? null,
    payer.taskId ?? null,
    attempt.stepId,
    attempt.provider,
    attempt.model,
    attempt.generation,
    attempt.owner,
    estimate.nanoUsd,
    estimate.tokens,
    estimate.inputTokens,
    estimate.maxOutputTokens,
    attempt.priceHash,
    attempt.candidate,
    payer.shareId ?? null,
    attempt.mode,
  ];
}

/**
 * The one way out of `started`: conditional, so that two who resolve the same attempt cannot both succeed. Answers the tenant's gate,
 * which stays until the transaction ends; undefined when the attempt is not started any more. `abandoned` leaves one alone that was
 * sent or whose lease runs.
 */
export async function leave(
  sql: Sql,
  attempt: Attempt,
  { to, outcome }: { readonly to: Exclude<AttemptState, 'started'>; readonly outcome: AttemptOutcome },
  which: 'any' | 'abandoned' = 'any',
): Promise<GateMode | undefined> {
  const { rows } = await sql.query<{ mode: GateMode }>(
    `with ${enteringGate('$5')}
     update attempts set state = $3, outcome = $4, ended_at = now() from entered
     where held_at = $1 and attempt_key = $2 and state = 'started'
       ${which === 'abandoned' ? 'and not sent and lease_until <= clock_timestamp()' : ''}
     returning entered.mode`,
    [attempt.heldAt, attempt.attemptKey, to, outcome, attempt.payer.tenantId],
  );
  return rows[0]?.mode;
}

/** Brings the counters of the gate in Postgres to an attempt that has ended. Those in Redis are told when this is committed. */
export async function settleCounters(
  sql: Sql,
  mode: GateMode,
  { payer, heldAt, estimate }: Attempt,
  charge: Charge,
): Promise<void> {
  if (mode !== 'postgres') return;
  const held = { nanoUsd: -estimate.nanoUsd, tokens: -BigInt(estimate.tokens) };
  const settled = { nanoUsd: charge.nanoUsd, tokens: BigInt(totalTokens(charge.usage)) };
  await moveCounters(sql, payer.tenantId, [{ payer, heldAt, held, settled }]);
}

/** At most one result per call, whoever races. */
export async function insertResult(
  sql: Sql,
  attempt: Attempt,
  charge: Charge,
  answer: Pick<CallResult, 'status' | 'text' | 'finishReason'>,
): Promise<boolean> {
  const { rowCount } = await sql.query(
    `insert into call_results (call_key, tenant_id, task_id, attempt_key, status, model, text, finish_reason, usage, cost_nano_usd)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict do nothing`,
    [
      attempt.callKey,
      attempt.payer.tenantId,
      attempt.payer.taskId ?? null,
      attempt.attemptKey,
      answer.status,
      attempt.model,
      // A NUL is no text to Postgres: refusing it would leave a paid answer unsettled for ever.
      cleanText(answer.text),
      answer.finishReason,
      JSON.stringify(charge.usage),
      charge.nanoUsd,
    ],
  );
  return rowCount === 1;
}

export type NewLedgerRow = {
  readonly kind: 'charge' | 'estimate' | 'adjust' | 'void';
  readonly adjustKey: string;
  readonly charge: Charge;
  readonly billable: boolean;
};

/** False when there is such a row. */
export async function insertRow(sql: Sql, attempt: Attempt, row: NewLedgerRow): Promise<boolean> {
  const { usage } = row.charge;
  const { rowCount } = await sql.query(
    `insert into ledger (held_at, attempt_key, kind, adjust_key, call_key, tenant_id, user_id, session_id, task_id, provider, model,
       input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
       cost_nano_usd, billable, usage_source, price_hash, share_id)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
     on conflict do nothing`,
    [
      attempt.heldAt,
      attempt.attemptKey,
      row.kind,
      row.adjustKey,
      attempt.callKey,
      attempt.payer.tenantId,
      attempt.payer.userId,
      attempt.payer.sessionId ?? null,
      attempt.payer.taskId ?? null,
      attempt.provider,
      attempt.model,
      usage.inputTokens,
      usage.cacheReadTokens,
      usage.cacheWrite5mTokens,
      usage.cacheWrite1hTokens,
      usage.outputTokens,
      usage.reasoningTokens,
      row.charge.nanoUsd,
      row.billable,
      row.charge.source,
      attempt.priceHash,
      attempt.payer.shareId ?? null,
    ],
  );
  return rowCount === 1;
}
