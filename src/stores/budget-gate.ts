// Admission to budgets, whichever gate a tenant has: the one in Redis, rebuilt from Postgres where it does not know a counter, or the one
// in Postgres where Redis is away. It holds all limits of a call or none; nothing else in the process takes holds. An attempt that Postgres
// held is marked, leased and taken in its row, whatever gate the tenant has by then.

import type { BindingLimit, Payer } from '../task/budget.ts';
import type { AttemptRef, DoneMarker, Gate, GateRefusal, LimitUse, Taken } from './gate.ts';
import { gatesInPostgres, moveGate } from './gates.ts';
import type { Hydrate } from './hydrate.ts';
import type { Attempt, Caused, GateMode, Ledger, TenantGate } from './ledger.ts';
import type { MilestoneTask } from './milestones.ts';
import type { Postgres } from './postgres.ts';
import type { PostgresGate } from './postgres-gate.ts';
import { isRedisOutage } from './redis.ts';

/** An attempt that has no hold yet. */
export type AttemptDraft = Omit<Attempt, 'heldAt' | 'mode' | 'generation'>;

export type BudgetHold =
  | { readonly kind: 'ok'; readonly attempt: Attempt; readonly uses: readonly LimitUse[] }
  /** This very attempt is over, or its call is answered or tried by somebody else. */
  | { readonly kind: 'done' }
  | GateRefusal;

export type BudgetGateOptions = {
  /** `postgres`: budgets are held there always. */
  readonly store: GateMode;
  /** While Redis is away: hold in Postgres, or fail, to be tried again later. */
  readonly redisDown: 'postgres' | 'closed';
  /** Told of a move by this process. */
  readonly onMoved: (tenantId: string, to: GateMode) => void;
};

export type BudgetGateParts = {
  readonly postgres: Postgres;
  readonly redis: Gate;
  readonly postgresGate: PostgresGate;
  readonly hydrate: Hydrate;
  readonly ledger: Pick<Ledger, 'gate'>;
  /** Whether an error says that Redis cannot serve now; asked of errors that may be of Postgres too. */
  readonly isRedisAway: (error: unknown) => Promise<boolean>;
  readonly leaseMs: number;
  readonly options: BudgetGateOptions;
};

export type BudgetGate = ReturnType<typeof createBudgetGate>;

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: a table of the store's methods; cut, it would hide what the store can do
export function createBudgetGate(parts: BudgetGateParts) {
  const { redis, postgresGate, options } = parts;
  const gates = createGates(parts);
  const isRow = ({ mode, payer }: Attempt) => mode === 'postgres' || gates.isInPostgres(payer.tenantId);
  return {
    /**
     * Holds an attempt's estimate on every scope of its payer. Throws when Postgres is down, or Redis where the policy says so.
     * @param task is told when this hold found Redis away
     */
    hold: (draft: AttemptDraft, limits: readonly BindingLimit[], task?: MilestoneTask): Promise<BudgetHold> =>
      gates.at(draft.payer.tenantId, task, {
        redis: (generation) => holdInRedis(parts, draft, generation, limits),
        postgres: (generation) => postgresGate.hold({ draft, generation, limits }),
      }),

    /** True when the attempt may send now. False: its hold is gone and its row must be voided. */
    markSent: (attempt: Attempt): Promise<boolean> =>
      attempt.mode === 'postgres'
        ? postgresGate.markSent(attempt)
        : redis.markSent(attempt, attempt.generation),

    /** False when the hold is gone. While Redis is away its attempts live in their rows. */
    async renew(attempt: Attempt, outputTokens: number): Promise<boolean> {
      if (attempt.mode === 'postgres') return postgresGate.renew(attempt, outputTokens);
      const inRow = isRow(attempt) ? await postgresGate.renew(attempt, outputTokens) : undefined;
      try {
        // Also where the gate is in Postgres: it may have gone back, and others take what Redis says.
        const inRedis = await redis.renew(attempt, outputTokens);
        return inRow ?? inRedis;
      } catch (error) {
        if (!isRedisOutage(error)) throw error;
        return inRow ?? postgresGate.renew(attempt, outputTokens);
      }
    },

    /** Of an attempt without a row only Redis can know. */
    take: async (attempt: Attempt | AttemptRef): Promise<Taken> => {
      if (!('heldAt' in attempt)) return redis.take(attempt);
      if (attempt.mode === 'postgres') return postgresGate.take(attempt);
      return gates.at(attempt.payer.tenantId, undefined, {
        redis: () => redis.take(attempt),
        postgres: () => postgresGate.take(attempt),
      });
    },

    /** Idempotent. `charged` is what the ledger says, zero for a voided attempt. In Postgres the ledger's own step did it. */
    async release(
      attempt: AttemptRef,
      marker: DoneMarker,
      charged: { nanoUsd: bigint; tokens: number },
    ): Promise<void> {
      if (options.store === 'postgres') return;
      try {
        await redis.release(attempt, marker, charged);
      } catch (error) {
        // What Redis still has of it is not counted under the next generation, and is found by its lease.
        if (!isRedisOutage(error) || !gates.isInPostgres(attempt.payer.tenantId)) throw error;
      }
    },

    /** Takes back a hold that was not sent. Idempotent. */
    async undo(attempt: Attempt): Promise<void> {
      if (attempt.mode === 'redis') return redis.undo(attempt);
      if ((await postgresGate.undo(attempt)) === 'redis') await redis.undo(attempt);
    },

    /** As one who lost it, or was never seen by Redis: see the two gates. */
    restore: (attempt: Attempt, sent: 'yes' | 'unknown'): Promise<'restored' | 'over'> =>
      isRow(attempt) ? postgresGate.restore(attempt, sent) : redis.restore(attempt, sent),

    /** Who holds what, of an attempt without a row: one that Redis made. */
    holder: redis.holder,
    dropLease: redis.dropLease,

    /** Read before an adjustment is committed; nothing where the counters move with it. */
    async scopeVersions(payer: Payer, generation: bigint): Promise<readonly string[]> {
      if ((await gates.of(payer.tenantId)).mode === 'postgres') return [];
      try {
        return await redis.scopeVersions(payer, generation);
      } catch (error) {
        // Without them the scopes are forgotten when they are told of the adjustment.
        if (isRedisOutage(error)) return [];
        throw error;
      }
    },

    /** Idempotent in (attempt, adjustKey). In Postgres the ledger's own step did it. */
    async adjust(...adjustment: Parameters<Gate['adjust']>): Promise<void> {
      if ((await gates.of(adjustment[0].payer.tenantId)).mode === 'redis') await redis.adjust(...adjustment);
    },

    /** The tenant's gate, as it is now. */
    modeOf: async (tenantId: string): Promise<GateMode> => (await gates.of(tenantId)).mode,

    /** Attempts of a tenant whose lease is over, at the gate that was seen last. */
    async expiredLeases(tenantId: string, count: number): Promise<readonly string[]> {
      if (gates.isInPostgres(tenantId))
        return postgresGate.expiredLeases(tenantId, ['redis', 'postgres'], count);
      const inRows = await postgresGate.expiredLeases(tenantId, ['postgres'], count);
      return [...new Set([...inRows, ...(await redis.expiredLeases(tenantId, count))])];
    },

    /** How long an attempt's lease still runs, negative when it is over; undefined when there is none. Milliseconds. */
    lease: (attempt: Attempt): Promise<{ leftMs: number } | undefined> =>
      isRow(attempt) ? postgresGate.lease(attempt) : redis.lease(attempt),

    /** Extends a lease of an attempt whose owner was found alive. */
    async extendLease(attempt: Attempt, ms: number): Promise<void> {
      if (isRow(attempt)) await postgresGate.extendLease(attempt, ms);
      if (!gates.isInPostgres(attempt.payer.tenantId)) await redis.extendLease(attempt, ms);
    },

    connectedForMs: redis.connectedForMs,

    /** Moves back to Redis what fell back to Postgres longer ago than `ms`; the caller knows that Redis serves. Answers how many. */
    async returnToRedis(ms: number): Promise<number> {
      if (options.store === 'postgres') return 0;
      let returned = 0;
      for (const { tenantId, generation } of await gatesInPostgres(parts.postgres, ms))
        if (await gates.move(tenantId, generation, 'redis')) returned += 1;
      return returned;
    },
  };
}

/** Undefined: look at the gate again, since counters had to be rebuilt. */
async function holdInRedis(
  { redis, hydrate }: BudgetGateParts,
  draft: AttemptDraft,
  generation: bigint,
  limits: readonly BindingLimit[],
): Promise<BudgetHold | undefined> {
  const { tenantId } = draft.payer;
  const answer = await redis.hold({ ...draft, generation, limits });
  if (answer.kind === 'missing') {
    for (const { scope, intervals } of answer.scopes)
      await hydrate({ tenantId, scope, intervals, generation });
    return undefined;
  }
  if (answer.kind !== 'ok') return answer;
  const attempt = { ...draft, mode: 'redis', generation, heldAt: new Date(answer.heldAtMs) } as const;
  return { kind: 'ok', attempt, uses: answer.uses };
}

type AtGate<Result> = Readonly<Record<GateMode, (generation: bigint) => Promise<Result | undefined>>>;

/** Which gate each tenant has, and how it moves. */
function createGates({ ledger, postgres, leaseMs, isRedisAway, options }: BudgetGateParts) {
  // As this process saw them last: for what may look at the wrong one without harm.
  const inPostgres = new Set<string>();
  const note = (tenantId: string, mode: GateMode) =>
    mode === 'postgres' ? inPostgres.add(tenantId) : inPostgres.delete(tenantId);

  async function of(tenantId: string): Promise<TenantGate> {
    const gate = await ledger.gate(tenantId);
    note(tenantId, gate.mode);
    return gate;
  }

  async function move(tenantId: string, from: bigint, to: GateMode, caused?: Caused): Promise<boolean> {
    const isMoved = await moveGate(postgres, { tenantId, from, to, leaseMs, caused });
    if (!isMoved) return false;
    note(tenantId, to);
    options.onMoved(tenantId, to);
    return true;
  }

  /** Does the work at the tenant's gate, after moving it where Redis is away. Work that answers undefined found that it has moved. */
  async function at<Result>(
    tenantId: string,
    task: MilestoneTask | undefined,
    work: AtGate<Result>,
  ): Promise<Result> {
    for (;;) {
      const { mode, generation } = await of(tenantId);
      if (mode === 'redis' && options.store === 'postgres') {
        await move(tenantId, generation, 'postgres');
        continue;
      }
      try {
        const result = await work[mode](generation);
        if (result !== undefined) return result;
      } catch (error) {
        const mayMove = mode === 'redis' && options.redisDown === 'postgres';
        if (!mayMove || !(await isRedisAway(error))) throw error;
        await move(tenantId, generation, 'postgres', task && degraded(task, generation));
      }
    }
  }

  return { of, at, move, isInPostgres: (tenantId: string) => inPostgres.has(tenantId) };
}

function degraded(task: MilestoneTask, generation: bigint): Caused {
  const event = {
    id: `degraded:budget:${task.tenantId}:${generation}`,
    type: 'degraded',
    message: 'redis is away: budgets are held in postgres',
    data: { part: 'budget', store: 'postgres' },
  } as const;
  return { task, events: [event] };
}
