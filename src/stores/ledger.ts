// Attempts and their charges. Postgres is the truth: each step of an attempt is one transaction that is conditional on the step
// before, so that whoever comes second (a repeated command, a reaper, a frozen worker) changes nothing.

import type { Estimate, Payer } from '../task/budget.ts';
import type { EventDraft } from '../task/event.ts';
import { cleanText } from '../task/text.ts';
import type { Usage } from '../task/usage.ts';
import {
  attemptFailures,
  attemptState,
  callResult,
  chargedFor,
  findAttempt,
  medianOutputTokens,
  recentAdjustments,
  startedAttempts,
} from './attempts.ts';
import { type MilestoneTask, writeMilestones } from './milestones.ts';
import type { Postgres, Sql } from './postgres.ts';

export type Attempt = {
  readonly attemptKey: string;
  readonly callKey: string;
  readonly heldAt: Date;
  readonly payer: Payer;
  readonly stepId: string;
  readonly provider: string;
  readonly model: string;
  readonly candidate: number;
  /** Which gate made the hold, and under which of its generations. */
  readonly mode: GateMode;
  readonly generation: bigint;
  readonly owner: string;
  readonly estimate: Estimate;
  readonly priceHash: string;
};

export type GateMode = 'redis' | 'postgres';

export type TenantGate = { readonly mode: GateMode; readonly generation: bigint };

export type AttemptState = 'started' | 'settled' | 'voided' | 'estimated';
export type AttemptOutcome = 'ok' | 'failed' | 'throttled' | 'cancelled' | 'lost';
export type UsageSource = 'measured' | 'recounted' | 'estimated' | 'none';

/** What an attempt took: an upper bound no more, but what was measured, recounted or estimated. */
export type Charge = { readonly usage: Usage; readonly nanoUsd: bigint; readonly source: UsageSource };

export type CallResult = {
  readonly callKey: string;
  readonly attemptKey: string;
  readonly status: 'completed' | 'cancelled';
  readonly model: string;
  readonly text: string;
  readonly finishReason: string;
  readonly usage: Usage;
  readonly nanoUsd: bigint;
  /** What its request was sent with. */
  readonly maxOutputTokens: number;
};

/** The end of an attempt without an answer: nothing was sent, or what it took can only be estimated. */
export type Resolution = {
  readonly to: 'voided' | 'estimated';
  /** `lost` when nobody lived to see the end. */
  readonly outcome: 'failed' | 'lost';
  readonly charge: Charge;
  readonly caused?: Caused | undefined;
};

export type Adjustment = {
  readonly attemptKey: string;
  readonly adjustKey: string;
  readonly heldAt: Date;
  readonly payer: Payer;
};

/** Milestones that belong to a step of an attempt; they become visible when the step is committed and published. */
export type Caused = { readonly task: MilestoneTask; readonly events: readonly EventDraft[] };

export type Ledger = ReturnType<typeof createLedger>;

export function createLedger(postgres: Postgres) {
  return {
    /** The tenant's gate; its row is written before the tenant's first hold. */
    gate: (tenantId: string) => gate(postgres, tenantId),

    /**
     * Durable from here on. False when the tenant's gate has moved on since the hold, or the call was answered or is tried by somebody
     * else (a worker that was frozen between its look and its hold): the hold must be voided.
     */
    intent: (attempt: Attempt, caused: Caused | undefined) => intent(postgres, attempt, caused),

    /**
     * The commit point. `settled` also when an earlier, unanswered commit of this very attempt did it; `fenced` when somebody
     * resolved the attempt before, so that nothing was written here.
     */
    settle: (
      attempt: Attempt,
      end: {
        outcome: AttemptOutcome;
        charge: Charge;
        result?: Pick<CallResult, 'status' | 'text' | 'finishReason'>;
      },
      caused: Caused | undefined,
    ) => settle(postgres, attempt, end, caused),

    /** started → voided or estimated. False when the attempt is not started any more. */
    resolve: (attempt: Attempt, resolution: Resolution) => resolve(postgres, attempt, resolution),

    /** Books what a fenced attempt really took, less what was booked for it. Undefined when that was done before. */
    adjustLate: (attempt: Attempt, charge: Charge) => adjustLate(postgres, attempt, charge),

    /** Adjustments that are old enough to have reached Redis and young enough for their marker to tell whether they did. */
    recentAdjustments: (minAgeMs: number, maxAgeMs: number) =>
      recentAdjustments(postgres, minAgeMs, maxAgeMs),

    state: (attempt: Pick<Attempt, 'attemptKey' | 'heldAt'>) => attemptState(postgres, attempt),
    /** What an attempt was booked at when it ended, without later adjustments: those reach Redis by themselves. */
    charged: (attempt: Pick<Attempt, 'attemptKey' | 'heldAt'>) =>
      chargedFor(postgres, attempt, "kind <> 'adjust'"),
    result: (callKey: string) => callResult(postgres, callKey),

    /** Attempts that reached a provider, or may have, and were not resolved yet, oldest first. */
    startedOfCall: (callKey: string) => startedAttempts(postgres, 'call_key = $1', [callKey]),
    startedOfTenant: (tenantId: string) => startedAttempts(postgres, 'tenant_id = $1', [tenantId]),
    attempt: (attemptKey: string, callKey: string) => findAttempt(postgres, attemptKey, callKey),
    failures: (callKey: string) => attemptFailures(postgres, callKey),

    /** Median output tokens of a model's last 200 whole answers; undefined before the first. */
    medianOutputTokens: (model: string) => medianOutputTokens(postgres, model),
    /** Attempts under way, over all tenants. */
    async openHolds(): Promise<{ count: number; oldestSeconds: number }> {
      const { rows } = await postgres.query<{ count: number; oldest: number }>(
        `select count(*)::int as count, coalesce(extract(epoch from now() - min(held_at)), 0)::float8 as oldest
         from attempts where state = 'started'`,
      );
      return { count: rows[0]?.count ?? 0, oldestSeconds: Math.max(0, rows[0]?.oldest ?? 0) };
    },
    async tenants(): Promise<readonly string[]> {
      const { rows } = await postgres.query<{ tenant_id: string }>(
        'select tenant_id from tenants order by tenant_id',
      );
      return rows.map((row) => row.tenant_id);
    },
    async ensurePartitions(): Promise<void> {
      await postgres.query('select ensure_partitions(3)');
    },
  };
}

async function gate(sql: Sql, tenantId: string): Promise<TenantGate> {
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

// `for share` keeps the gate from moving between the check and the insert: a fallback waits for intents under way.
function intent(postgres: Postgres, attempt: Attempt, caused: Caused | undefined): Promise<boolean> {
  return postgres.transaction(async (sql) => {
    const { estimate, payer } = attempt;
    const { rowCount } = await sql.query(
      `with gate as (
         select 1 from gates where tenant_id = $4 and mode = 'redis' and generation = $11 for share
       )
       insert into attempts (held_at, attempt_key, call_key, tenant_id, user_id, session_id, task_id, step_id, provider, model,
         generation, owner, estimate_nano_usd, estimate_tokens, estimate_input_tokens, max_output_tokens, price_hash, candidate, share_id, state)
       select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 'started' from gate
       where not exists (select 1 from call_results where call_key = $3)
         and not exists (select 1 from attempts where call_key = $3 and state = 'started' and attempt_key <> $2)
       on conflict do nothing`,
      [
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
      ],
    );
    // Nothing inserted: the gate moved, or this is the repetition of a commit whose answer was lost.
    if (rowCount !== 1) return (await attemptState(sql, attempt)) === 'started';
    if (caused !== undefined) await writeMilestones(sql, caused.task, caused.events);
    return true;
  });
}

function settle(
  postgres: Postgres,
  attempt: Attempt,
  end: {
    outcome: AttemptOutcome;
    charge: Charge;
    result?: Pick<CallResult, 'status' | 'text' | 'finishReason'>;
  },
  caused: Caused | undefined,
): Promise<'settled' | 'fenced'> {
  return postgres.transaction(async (sql) => {
    if (!(await leave(sql, attempt, 'settled', end.outcome)))
      return (await attemptState(sql, attempt)) === 'settled' ? 'settled' : 'fenced';
    // At most one result per call, whoever races: its attempt is the one the user pays for.
    const billable = end.result !== undefined && (await insertResult(sql, attempt, end.charge, end.result));
    await insertRow(sql, attempt, { kind: 'charge', adjustKey: '', charge: end.charge, billable });
    if (caused !== undefined) await writeMilestones(sql, caused.task, caused.events);
    return 'settled';
  });
}

function resolve(
  postgres: Postgres,
  attempt: Attempt,
  { to, charge, outcome, caused }: Resolution,
): Promise<boolean> {
  return postgres.transaction(async (sql) => {
    if (!(await leave(sql, attempt, to, outcome))) return false;
    const kind = to === 'voided' ? 'void' : 'estimate';
    await insertRow(sql, attempt, { kind, adjustKey: '', charge, billable: false });
    if (caused !== undefined) await writeMilestones(sql, caused.task, caused.events);
    return true;
  });
}

function adjustLate(postgres: Postgres, attempt: Attempt, charge: Charge): Promise<Charge | undefined> {
  return postgres.transaction(async (sql) => {
    const booked = await chargedFor(sql, attempt, 'true');
    const difference: Charge = {
      nanoUsd: charge.nanoUsd - booked.nanoUsd,
      source: charge.source,
      usage: {
        inputTokens: charge.usage.inputTokens - booked.usage.inputTokens,
        cacheReadTokens: charge.usage.cacheReadTokens - booked.usage.cacheReadTokens,
        cacheWrite5mTokens: charge.usage.cacheWrite5mTokens - booked.usage.cacheWrite5mTokens,
        cacheWrite1hTokens: charge.usage.cacheWrite1hTokens - booked.usage.cacheWrite1hTokens,
        outputTokens: charge.usage.outputTokens - booked.usage.outputTokens,
        reasoningTokens: charge.usage.reasoningTokens - booked.usage.reasoningTokens,
      },
    };
    const inserted = await insertRow(sql, attempt, {
      kind: 'adjust',
      adjustKey: 'late',
      charge: difference,
      billable: false,
    });
    return inserted ? difference : undefined;
  });
}

/** The one way out of `started`: conditional, so that two who resolve the same attempt cannot both succeed. */
async function leave(
  sql: Sql,
  attempt: Attempt,
  to: AttemptState,
  outcome: AttemptOutcome,
): Promise<boolean> {
  const { rowCount } = await sql.query(
    `update attempts set state = $3, outcome = $4, ended_at = now()
     where held_at = $1 and attempt_key = $2 and state = 'started'`,
    [attempt.heldAt, attempt.attemptKey, to, outcome],
  );
  return rowCount === 1;
}

async function insertResult(
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

async function insertRow(
  sql: Sql,
  attempt: Attempt,
  row: {
    kind: 'charge' | 'estimate' | 'adjust' | 'void';
    adjustKey: string;
    charge: Charge;
    billable: boolean;
  },
): Promise<boolean> {
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
