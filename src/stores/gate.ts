// The gate in Redis: holds of one tenant, made, marked, renewed, taken and released by atomic holdFunctions. It decides nothing about
// money that Postgres does not confirm: whatever is lost here is rebuilt from there (hydrate.ts).

import type { BindingLimit, Estimate, Payer, Scope } from '../task/budget.ts';
import { scopesOf } from '../task/budget.ts';
import { toCallKeyOfAttempt } from '../task/keys.ts';
import type { Interval } from '../task/window.ts';
import type { Calendars } from './calendars.ts';
import { hold } from './hold.ts';
import { holdFunctions } from './hold-functions.ts';
import { budgetKeys, nameOfScope, scopeOfName } from './keys.ts';
import type { Redis } from './redis.ts';

export type DoneMarker = 'void' | 'settled' | 'estimated';

/** A limit's counters in its present window, without the hold in question. In the limit's own unit. */
export type LimitUse = {
  readonly limit: BindingLimit;
  readonly interval: Interval;
  readonly settled: bigint;
  readonly held: bigint;
};

/** `refused`: settled spend leaves no room on a hard limit. `crowded`: only other calls' holds stand in the way. */
export type GateRefusal = LimitUse & { readonly kind: 'refused' | 'crowded' };

export type GateHold =
  | { readonly kind: 'ok'; readonly heldAtMs: number; readonly uses: readonly LimitUse[] }
  | { readonly kind: 'done' }
  | { readonly kind: 'missing'; readonly scopes: readonly ScopeIntervals[] }
  | GateRefusal;

/** Counters of a scope that must be rebuilt. */
export type ScopeIntervals = { readonly scope: Scope; readonly intervals: readonly Interval[] };

export type Taken =
  | { readonly kind: 'done'; readonly marker: string }
  | { readonly kind: 'none' }
  | { readonly kind: 'live'; readonly leaseUntilMs: number }
  | { readonly kind: 'sent'; readonly outputTokensSeen: number }
  | { readonly kind: 'taken' };

export type HoldRequest = {
  readonly attemptKey: string;
  readonly callKey: string;
  readonly payer: Payer;
  readonly owner: string;
  readonly generation: bigint;
  readonly estimate: Estimate;
  readonly limits: readonly BindingLimit[];
};

/** An attempt as Postgres knows it, enough to put its record back. */
export type LostHold = {
  readonly attemptKey: string;
  readonly callKey: string;
  readonly payer: Payer;
  readonly heldAt: Date;
  readonly owner: string;
  readonly generation: bigint;
  readonly estimate: Estimate;
};

export type AttemptRef = { readonly attemptKey: string; readonly payer: Payer };

export type GateOptions = {
  readonly leaseMs: number;
  /** How long markers of attempts that are over are kept: an hour beyond the longest attempt. */
  readonly markerTtlMs: number;
  readonly calendars: Calendars;
};

const UNDONE_TTL_MS = 300_000;
/** Some milliseconds of Redis' time. */
const HOLDS_PER_LOOK = 1_000;

export type Gate = ReturnType<typeof createGate>;

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: a table of the store's methods; cut, it would hide what the store can do
export function createGate(redis: Redis, options: GateOptions) {
  // What the server's clock shows beyond ours, learnt when a window did not fit.
  const holdOptions = { ...options, clock: { aheadMs: 0 } };
  /** Where the look at a tenant's holds goes on: a cursor of HSCAN. */
  const lookedUpTo = new Map<string, string>();
  const keysOf = ({ payer, attemptKey }: AttemptRef) => {
    const keys = budgetKeys(redis.prefix, payer.tenantId);
    const scopes = scopesOf(payer);
    return {
      keys,
      done: keys.done(attemptKey),
      scopeKeys: scopes.map((scope) => keys.scope(scope.kind, scope.id)),
      callKey: toCallKeyOfAttempt(attemptKey),
    };
  };

  return {
    hold: (request: HoldRequest): Promise<GateHold> => hold(redis, holdOptions, request),

    /** True when the attempt may send now. False: its hold is gone and its row must be voided. */
    async markSent(attempt: AttemptRef, generation: bigint): Promise<boolean> {
      const { keys, done, scopeKeys, callKey } = keysOf(attempt);
      const wanted = `${generation}:${await redis.runId()}`;
      return (
        (await redis.run(
          holdFunctions['mark-sent'],
          [keys.holds, keys.leases, done, ...scopeKeys],
          [attempt.attemptKey, callKey, options.leaseMs, wanted],
        )) === 1
      );
    },

    /** False when Redis has no such hold. */
    async renew(attempt: AttemptRef, outputTokens: number): Promise<boolean> {
      const { keys, callKey } = keysOf(attempt);
      const answer = await redis.run(
        holdFunctions.renew,
        [keys.holds, keys.leases],
        [attempt.attemptKey, callKey, options.leaseMs, outputTokens],
      );
      return answer === 1;
    },

    async take(attempt: AttemptRef): Promise<Taken> {
      const runId = await redis.runId();
      const { keys, done, scopeKeys, callKey } = keysOf(attempt);
      const answer = (await redis.run(
        holdFunctions.take,
        [keys.holds, keys.leases, done, ...scopeKeys],
        [attempt.attemptKey, callKey, options.markerTtlMs, runId, options.leaseMs],
      )) as [string, string?];
      return toTaken(answer);
    },

    /** Idempotent. `charged` is what the ledger says, zero for a voided attempt. */
    async release(
      attempt: AttemptRef,
      marker: DoneMarker,
      charged: { nanoUsd: bigint; tokens: number },
    ): Promise<void> {
      const { keys, done, scopeKeys, callKey } = keysOf(attempt);
      await redis.run(
        holdFunctions.release,
        [keys.holds, keys.leases, done, ...scopeKeys],
        [
          attempt.attemptKey,
          callKey,
          marker,
          charged.nanoUsd.toString(),
          charged.tokens,
          options.markerTtlMs,
        ],
      );
    },

    /**
     * Puts back a record that Redis lost, as "maybe sent" or, by its own worker, as sent; with a fresh lease. `over` when Redis has a
     * marker that says how the attempt ended.
     */
    async restore(lost: LostHold, sent: 'yes' | 'unknown'): Promise<'restored' | 'over'> {
      const { keys, done, scopeKeys, callKey } = keysOf(lost);
      const { estimate, heldAt, owner } = lost;
      const answer = await redis.run(
        holdFunctions.restore,
        [keys.holds, keys.leases, done, ...scopeKeys],
        [
          ...[lost.attemptKey, callKey, options.leaseMs, sent === 'yes' ? 'y' : 'u', heldAt.getTime()],
          ...[estimate.nanoUsd.toString(), estimate.tokens, owner],
          scopesOf(lost.payer).map(nameOfScope).join('\n'),
        ],
      );
      return answer === -1 ? 'over' : 'restored';
    },

    /** Takes back a hold of an attempt that has no row: its marker needs to outlive late commands only. Idempotent. */
    async undo(attempt: AttemptRef): Promise<void> {
      const { keys, done, scopeKeys, callKey } = keysOf(attempt);
      await redis.run(
        holdFunctions.release,
        [keys.holds, keys.leases, done, ...scopeKeys],
        [attempt.attemptKey, callKey, 'void', '0', 0, UNDONE_TTL_MS],
      );
    },

    /** Who holds what: for an attempt of which Postgres has no row. */
    async holder(tenantId: string, attemptKey: string): Promise<{ payer: Payer; owner: string } | undefined> {
      const [owner, ...names] = (await redis.run(
        holdFunctions.holder,
        [budgetKeys(redis.prefix, tenantId).holds],
        [attemptKey, toCallKeyOfAttempt(attemptKey)],
      )) as readonly string[];
      if (owner === undefined) return undefined;
      const scopes = names.map(scopeOfName);
      const id = (kind: Scope['kind']) => scopes.find((scope) => scope?.kind === kind)?.id;
      return {
        owner,
        payer: {
          tenantId,
          userId: id('user') ?? '',
          sessionId: id('session'),
          taskId: id('task'),
          shareId: id('share'),
        },
      };
    },

    /** Removes the lease of an attempt without a record: a leftover. */
    async dropLease(tenantId: string, attemptKey: string): Promise<void> {
      await redis.command((client) => client.zrem(budgetKeys(redis.prefix, tenantId).leases, attemptKey));
    },

    /** The versions of a payer's scopes, '' where a scope is not hydrated; read before an adjustment is committed. */
    async scopeVersions(payer: Payer, generation: bigint): Promise<readonly string[]> {
      const wanted = `${generation}:${await redis.runId()}`;
      const { scopeKeys } = keysOf({ payer, attemptKey: '' });
      return (await redis.run(holdFunctions.versions, scopeKeys, [wanted])) as string[];
    },

    /** Idempotent in (attempt, adjustKey). */
    async adjust(
      attempt: AttemptRef & { readonly heldAt: Date },
      generation: bigint,
      change: { adjustKey: string; nanoUsd: bigint; tokens: number; scopeVersions: readonly string[] },
    ): Promise<void> {
      const { keys, scopeKeys } = keysOf(attempt);
      const wanted = `${generation}:${await redis.runId()}`;
      await redis.run(
        holdFunctions.adjust,
        [keys.done(`${attempt.attemptKey}!${change.adjustKey}`), ...scopeKeys],
        [
          change.nanoUsd.toString(),
          change.tokens,
          options.markerTtlMs,
          wanted,
          attempt.heldAt.getTime(),
          ...change.scopeVersions,
        ],
      );
    },

    /** Attempts of a tenant whose lease is over, oldest first, at most `count`. Of very many holds each call looks at a part. */
    async expiredLeases(tenantId: string, count: number): Promise<readonly string[]> {
      const { holds, leases } = budgetKeys(redis.prefix, tenantId);
      const [cursor = '0', ...expired] = (await redis.run(
        holdFunctions.expired,
        [holds, leases],
        [options.leaseMs, count, lookedUpTo.get(tenantId) ?? '0', HOLDS_PER_LOOK],
      )) as string[];
      if (cursor === '0') lookedUpTo.delete(tenantId);
      else lookedUpTo.set(tenantId, cursor);
      return expired;
    },

    /** How long an attempt's lease still runs, negative when it is over; undefined when there is none. Milliseconds. */
    async lease(attempt: AttemptRef): Promise<{ leftMs: number } | undefined> {
      const { keys, callKey } = keysOf(attempt);
      const leftMs = await redis.run(
        holdFunctions.lease,
        [keys.holds, keys.leases],
        [attempt.attemptKey, callKey, options.leaseMs],
      );
      return leftMs === null ? undefined : { leftMs: Number(leftMs) };
    },

    /** Extends a lease of an attempt whose owner was found alive. */
    async extendLease(attempt: AttemptRef, ms: number): Promise<void> {
      const { keys } = keysOf(attempt);
      const now = await redis.nowMs();
      await redis.command((client) => client.zadd(keys.leases, 'XX', now + ms, attempt.attemptKey));
    },

    connectedForMs: () => redis.connectedForMs(),
  };
}

function toTaken([kind, value]: readonly [string, string?]): Taken {
  switch (kind) {
    case 'DONE':
      return { kind: 'done', marker: value ?? '' };
    case 'NONE':
      return { kind: 'none' };
    case 'LIVE':
      return { kind: 'live', leaseUntilMs: Number(value) };
    case 'SENT':
      return { kind: 'sent', outputTokensSeen: Number(value) };
    case 'TAKEN':
      return { kind: 'taken' };
    default:
      throw new Error(`take script answered ${kind}`);
  }
}
