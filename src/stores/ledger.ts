// Attempts and their charges. Postgres is the truth: each step of an attempt is one transaction that is conditional on the step
// before, so that whoever comes second (a repeated command, a reaper, a frozen worker) changes nothing.

import type { Estimate, Payer } from '../task/budget.ts';
import type { EventDraft } from '../task/event.ts';
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
import { enterGate, readGate } from './gates.ts';
import { insertIntent, insertResult, insertRow, leave, settleCounters } from './ledger-rows.ts';
import { type MilestoneTask, writeMilestones } from './milestones.ts';
import type { Postgres } from './postgres.ts';

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

/** Who pays for attempts that brought no answer: with `user` a call may be billed more than once. */
export type LostAttempts = 'platform' | 'user';

export function createLedger(postgres: Postgres, options: { readonly lostAttempts: LostAttempts }) {
  const billsLost = options.lostAttempts === 'user';
  return {
    /** The tenant's gate; its row is written before the tenant's first hold. */
    gate: (tenantId: string) => readGate(postgres, tenantId),

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
    ) => settle(postgres, attempt, { ...end, billsLost }, caused),

    /** started → voided or estimated. False when the attempt is not started any more. */
    resolve: (attempt: Attempt, resolution: Resolution) =>
      resolve(postgres, attempt, { ...resolution, billsLost }),

    /** Books what a fenced attempt really took, less what was booked for it. Undefined when that was done before. */
    adjustLate: (attempt: Attempt, charge: Charge) => adjustLate(postgres, attempt, charge, billsLost),

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

function intent(postgres: Postgres, attempt: Attempt, caused: Caused | undefined): Promise<boolean> {
  return postgres.transaction(async (sql) => {
    if (attempt.mode === 'postgres') {
      // The hold wrote the row; under its lock nobody voids it before its milestones are there.
      const { rowCount } = await sql.query(
        "select from attempts where held_at = $1 and attempt_key = $2 and state = 'started' for update",
        [attempt.heldAt, attempt.attemptKey],
      );
      if (rowCount !== 1) return false;
    } else if (!(await insertIntent(sql, attempt))) {
      // The gate moved, or this is the repetition of a commit whose answer was lost.
      return (await attemptState(sql, attempt)) === 'started';
    }
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
    billsLost: boolean;
  },
  caused: Caused | undefined,
): Promise<'settled' | 'fenced'> {
  return postgres.transaction(async (sql) => {
    const mode = await leave(sql, attempt, { to: 'settled', outcome: end.outcome });
    if (mode === undefined) return (await attemptState(sql, attempt)) === 'settled' ? 'settled' : 'fenced';
    // At most one result per call, whoever races: its attempt is the one the user pays for.
    const isWinner = end.result !== undefined && (await insertResult(sql, attempt, end.charge, end.result));
    const billable = isWinner || end.billsLost;
    await insertRow(sql, attempt, { kind: 'charge', adjustKey: '', charge: end.charge, billable });
    await settleCounters(sql, mode, attempt, end.charge);
    if (caused !== undefined) await writeMilestones(sql, caused.task, caused.events);
    return 'settled';
  });
}

function resolve(
  postgres: Postgres,
  attempt: Attempt,
  { to, charge, outcome, caused, billsLost }: Resolution & { readonly billsLost: boolean },
): Promise<boolean> {
  return postgres.transaction(async (sql) => {
    const mode = await leave(sql, attempt, { to, outcome });
    if (mode === undefined) return false;
    const kind = to === 'voided' ? 'void' : 'estimate';
    const billable = kind === 'estimate' && billsLost;
    await insertRow(sql, attempt, { kind, adjustKey: '', charge, billable });
    await settleCounters(sql, mode, attempt, charge);
    if (caused !== undefined) await writeMilestones(sql, caused.task, caused.events);
    return true;
  });
}

function adjustLate(
  postgres: Postgres,
  attempt: Attempt,
  charge: Charge,
  billable: boolean,
): Promise<Charge | undefined> {
  return postgres.transaction(async (sql) => {
    const mode = await enterGate(sql, attempt.payer.tenantId);
    // A re-rating of the attempt comes before or after this: both book what is missing to a sum that they have read.
    await sql.query('select from attempts where held_at = $1 and attempt_key = $2 for update', [
      attempt.heldAt,
      attempt.attemptKey,
    ]);
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
      billable,
    });
    if (!inserted) return undefined;
    // Its hold left the counters when it was resolved.
    await settleCounters(sql, mode, { ...attempt, estimate: NOTHING_HELD }, difference);
    return difference;
  });
}

const NOTHING_HELD: Estimate = { nanoUsd: 0n, tokens: 0, inputTokens: 0, maxOutputTokens: 0 };
