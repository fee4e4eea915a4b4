// The gate in Redis: holds of one tenant, made, marked, renewed, taken and released by atomic scripts. It decides nothing about
// money that Postgres does not confirm: whatever is lost here is rebuilt from there (hydrate.ts).

import type { BindingLimit, Estimate, Payer, Scope } from '../task/budget.ts';
import { scopesOf } from '../task/budget.ts';
import { fromIntervalKey, type Interval } from '../task/window.ts';
import type { Calendars } from './calendars.ts';
import { budgetKeys } from './keys.ts';
import { loadScript, type Redis } from './redis.ts';

const scripts = {
  hold: loadScript('holds', 'hold'),
  markSent: loadScript('holds', 'mark-sent'),
  renew: loadScript('holds', 'renew'),
  take: loadScript('holds', 'take'),
  release: loadScript('holds', 'release'),
  adjust: loadScript('holds', 'adjust'),
  restore: loadScript('holds', 'restore'),
} as const;

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

export type Gate = ReturnType<typeof createGate>;

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: a table of the store's methods; cut, it would hide what the store can do
export function createGate(redis: Redis, options: GateOptions) {
  // What the server's clock shows beyond ours, learnt when a window did not fit.
  const clock = { aheadMs: 0 };
  const keysOf = ({ payer, attemptKey }: AttemptRef) => {
    const keys = budgetKeys(redis.prefix, payer.tenantId);
    const scopes = scopesOf(payer);
    return {
      keys,
      done: keys.done(attemptKey),
      scopeKeys: scopes.map((scope) => keys.scope(scope.kind, scope.id)),
      scopeArgs: [scopes.length, ...scopes.flatMap((scope) => [scope.kind, scope.id])],
    };
  };

  return {
    hold: (request: HoldRequest): Promise<GateHold> => hold(redis, options, clock, request),

    /** True when the attempt may send now. False: its hold is gone and its row must be voided. */
    async markSent(attempt: AttemptRef, generation: bigint): Promise<boolean> {
      const { keys, done, scopeKeys, scopeArgs } = keysOf(attempt);
      const wanted = `${generation}:${await redis.runId()}`;
      return (
        (await redis.run(
          scripts.markSent,
          [keys.holds, keys.leases, done, ...scopeKeys],
          [attempt.attemptKey, options.leaseMs, wanted, ...scopeArgs],
        )) === 1
      );
    },

    /** False when Redis has no such hold. */
    async renew(attempt: AttemptRef, outputTokens: number): Promise<boolean> {
      const { keys } = keysOf(attempt);
      const answer = await redis.run(
        scripts.renew,
        [keys.holds, keys.leases],
        [attempt.attemptKey, options.leaseMs, outputTokens],
      );
      return answer === 1;
    },

    async take(attempt: AttemptRef): Promise<Taken> {
      const runId = await redis.runId();
      const { keys, done, scopeKeys, scopeArgs } = keysOf(attempt);
      const answer = (await redis.run(
        scripts.take,
        [keys.holds, keys.leases, done, ...scopeKeys],
        [attempt.attemptKey, options.markerTtlMs, runId, ...scopeArgs],
      )) as [string, string?];
      return toTaken(answer);
    },

    /** Idempotent. `charged` is what the ledger says, zero for a voided attempt. */
    async release(
      attempt: AttemptRef,
      marker: DoneMarker,
      charged: { nanoUsd: bigint; tokens: number },
    ): Promise<void> {
      const { keys, done, scopeKeys, scopeArgs } = keysOf(attempt);
      await redis.run(
        scripts.release,
        [keys.holds, keys.leases, done, ...scopeKeys],
        [
          attempt.attemptKey,
          marker,
          charged.nanoUsd.toString(),
          charged.tokens,
          options.markerTtlMs,
          ...scopeArgs,
        ],
      );
    },

    /**
     * Puts back a record that Redis lost, as "maybe sent" or, by its own worker, as sent; with a fresh lease. `over` when Redis has a
     * marker that says how the attempt ended.
     */
    async restore(lost: LostHold, sent: 'yes' | 'unknown'): Promise<'restored' | 'over'> {
      const { keys, done } = keysOf(lost);
      const record = {
        call: lost.callKey,
        nano: lost.estimate.nanoUsd.toString(),
        tokens: lost.estimate.tokens.toString(),
        owner: lost.owner,
        generation: lost.generation.toString(),
        sent,
        heldAt: lost.heldAt.getTime().toString(),
        seen: '0',
        scopes: scopesOf(lost.payer).map((scope) => [scope.kind, scope.id, '']),
      };
      const answer = await redis.run(
        scripts.restore,
        [keys.holds, keys.leases, done],
        [lost.attemptKey, options.leaseMs, JSON.stringify(record)],
      );
      return answer === -1 ? 'over' : 'restored';
    },

    /** Takes back a hold of an attempt that has no row: its marker needs to outlive late commands only. Idempotent. */
    async undo(attempt: AttemptRef): Promise<void> {
      const { keys, done, scopeKeys, scopeArgs } = keysOf(attempt);
      await redis.run(
        scripts.release,
        [keys.holds, keys.leases, done, ...scopeKeys],
        [attempt.attemptKey, 'void', '0', 0, UNDONE_TTL_MS, ...scopeArgs],
      );
    },

    /** Who holds what: for an attempt of which Postgres has no row. */
    async holder(tenantId: string, attemptKey: string): Promise<{ payer: Payer; owner: string } | undefined> {
      const text = await redis.command((client) =>
        client.hget(budgetKeys(redis.prefix, tenantId).holds, attemptKey),
      );
      if (text === null) return undefined;
      const record = JSON.parse(text) as { owner: string; scopes: [Scope['kind'], string, string][] };
      const id = (kind: Scope['kind']) => record.scopes.find((scope) => scope[0] === kind)?.[1];
      return {
        owner: record.owner,
        payer: { tenantId, userId: id('user') ?? '', sessionId: id('session'), taskId: id('task') },
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
      return Promise.all(
        scopeKeys.map(async (key) => {
          const [hydrated, version] = await redis.command((client) =>
            client.hmget(key, 'hydrated', 'version'),
          );
          return hydrated === wanted ? (version ?? '') : '';
        }),
      );
    },

    /** Idempotent in (attempt, adjustKey). */
    async adjust(
      attempt: AttemptRef & { readonly heldAt: Date },
      generation: bigint,
      change: { adjustKey: string; nanoUsd: bigint; tokens: number; scopeVersions: readonly string[] },
    ): Promise<void> {
      const { keys, scopeKeys, scopeArgs } = keysOf(attempt);
      const wanted = `${generation}:${await redis.runId()}`;
      await redis.run(
        scripts.adjust,
        [keys.done(`${attempt.attemptKey}!${change.adjustKey}`), ...scopeKeys],
        [
          change.nanoUsd.toString(),
          change.tokens,
          options.markerTtlMs,
          wanted,
          attempt.heldAt.getTime(),
          ...scopeArgs,
          ...change.scopeVersions,
        ],
      );
    },

    /** Attempts of a tenant whose lease is over, oldest first, at most `count`. */
    async expiredLeases(tenantId: string, count: number): Promise<readonly string[]> {
      const now = await redis.nowMs();
      const { leases } = budgetKeys(redis.prefix, tenantId);
      return redis.command((client) => client.zrangebyscore(leases, '-inf', now, 'LIMIT', 0, count));
    },

    /** How long an attempt's lease still runs, negative when it is over; undefined when there is none. Milliseconds. */
    async lease(attempt: AttemptRef): Promise<{ leftMs: number } | undefined> {
      const { keys } = keysOf(attempt);
      const score = await redis.command((client) => client.zscore(keys.leases, attempt.attemptKey));
      return score === null ? undefined : { leftMs: Number(score) - (await redis.nowMs()) };
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

/**
 * One hold. An older attempt of the same call that was not sent gives way in the same step; its key must be known to the script
 * before, so that only keys that were passed are touched: hence the second round. Another one comes when the windows were computed
 * by a clock that differs from the server's.
 */
async function hold(
  redis: Redis,
  options: GateOptions,
  clock: { aheadMs: number },
  request: HoldRequest,
): Promise<GateHold> {
  const keys = budgetKeys(redis.prefix, request.payer.tenantId);
  const scopes = scopesOf(request.payer);
  const runId = await redis.runId();
  let previous = '';
  for (;;) {
    const answer = (await redis.run(
      scripts.hold,
      [
        keys.holds,
        keys.leases,
        keys.call(request.callKey),
        keys.done(request.attemptKey),
        keys.done(previous === '' ? request.attemptKey : previous),
        ...scopes.map((scope) => keys.scope(scope.kind, scope.id)),
      ],
      [
        request.attemptKey,
        request.callKey,
        request.owner,
        request.generation.toString(),
        runId,
        options.leaseMs,
        request.estimate.nanoUsd.toString(),
        request.estimate.tokens,
        previous,
        options.markerTtlMs,
        scopes.length,
        ...scopes.flatMap((scope) => [scope.kind, scope.id]),
        request.limits.length,
        ...request.limits.flatMap((limit) => limitArgs(options, scopes, limit, Date.now() + clock.aheadMs)),
      ],
    )) as HoldAnswer;
    if (answer[0] === 'PREVIOUS') previous = String(answer[1]);
    else if (answer[0] === 'STALE_WINDOW') clock.aheadMs = Number(answer[1]) - Date.now();
    else return toGateHold(answer, scopes, request.limits);
  }
}

type HoldAnswer = readonly [string, ...(string | number)[]];

function limitArgs(
  { calendars }: GateOptions,
  scopes: readonly Scope[],
  limit: BindingLimit,
  nowMs: number,
): (string | number)[] {
  const scope = scopes.findIndex(({ kind, id }) => kind === limit.scope.kind && id === limit.scope.id);
  const common = [1 + scope, limit.unit, limit.amount.toString(), limit.hard ? 1 : 0];
  if (limit.window === 'total') return [...common, '', '', ''];
  const present = calendars.intervalOf(limit, nowMs);
  return [...common, present.startMs, present.endMs, calendars.intervalOf(limit, present.endMs).endMs];
}

function toGateHold(answer: HoldAnswer, scopes: readonly Scope[], limits: readonly BindingLimit[]): GateHold {
  const [kind, ...rest] = answer;
  switch (kind) {
    case 'OK':
      return { kind: 'ok', heldAtMs: Number(rest[0]), uses: toUses(rest.slice(1), limits) };
    case 'DONE':
      return { kind: 'done' };
    case 'MISS':
      return { kind: 'missing', scopes: toMissing(rest, scopes) };
    case 'REFUSED':
    case 'HELD': {
      const limit = limits[Number(rest[0]) - 1];
      if (limit === undefined) throw new Error(`hold script named limit ${rest[0]} of ${limits.length}`);
      return {
        kind: kind === 'REFUSED' ? 'refused' : 'crowded',
        limit,
        settled: BigInt(rest[1] ?? 0),
        held: BigInt(rest[2] ?? 0),
        interval: fromIntervalKey(String(rest[3])),
      };
    }
    default:
      throw new Error(`hold script answered ${kind}`);
  }
}

/** Three values per limit; none at all for the repetition of a hold that was made before. */
function toUses(values: readonly (string | number)[], limits: readonly BindingLimit[]): readonly LimitUse[] {
  if (values.length === 0) return [];
  return limits.map((limit, index) => ({
    limit,
    settled: BigInt(values[3 * index] ?? 0),
    held: BigInt(values[3 * index + 1] ?? 0),
    interval: fromIntervalKey(String(values[3 * index + 2])),
  }));
}

function toMissing(pairs: readonly (string | number)[], scopes: readonly Scope[]): readonly ScopeIntervals[] {
  return scopes.flatMap((scope, index) => {
    const keys = pairs.filter((_, at) => at % 2 === 1 && Number(pairs[at - 1]) === index + 1).map(String);
    return keys.length === 0 ? [] : [{ scope, intervals: [...new Set(keys)].map(fromIntervalKey) }];
  });
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
