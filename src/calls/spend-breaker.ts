// The breaker on spend: a payer whose calls were refused by the same limit again and again is refused early, without asking the stores.
// It never refuses what the limit would admit: it remembers the smallest amount that had no room, and settled spend only grows until
// the window turns or a limit changes.

import type { GateRefusal } from '../stores/gate.ts';
import type { BindingLimit, Estimate, Payer, Scope } from '../task/budget.ts';
import { scopesOf } from '../task/budget.ts';
import { toLimitKey } from '../task/limit-key.ts';
import { toIntervalKey } from '../task/window.ts';

export type SpendBreakerSettings = {
  readonly enabled: boolean;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly failureThreshold: number;
};

export type SpendBreaker = ReturnType<typeof createSpendBreaker>;

type Remembered = {
  readonly refusal: GateRefusal;
  readonly times: readonly number[];
  /** The least that was refused, in the limit's unit. */
  readonly needed: bigint;
  readonly openUntil: number;
};

/** Scopes remembered at most; beyond this all are forgotten, which costs their next call one look at the stores. */
const MAX_REMEMBERED = 10_000;

/** `now` is a clock in milliseconds since 1970. */
export function createSpendBreaker(settings: SpendBreakerSettings, now: () => number = Date.now) {
  // By scope, then by limit: two limits of one scope have nothing to do with each other.
  const remembered = new Map<string, Map<string, Remembered>>();
  let changes = 0;
  return {
    /** Read before the limits are: what they refuse after somebody changed them says nothing of the new ones. */
    changes: (): number => changes,

    /** The refusal that a call would meet, while the breaker of one of its limits is open. */
    refusalOf(payer: Payer, estimate: Estimate): GateRefusal | undefined {
      if (!settings.enabled || remembered.size === 0) return undefined;
      for (const scope of scopesOf(payer))
        for (const known of remembered.get(nameOf(payer.tenantId, scope))?.values() ?? [])
          if (known.openUntil > now() && neededOf(known.refusal.limit.unit, estimate) >= known.needed)
            return known.refusal;
      return undefined;
    },

    /** Tells of a refusal by the stores. Only settled spend counts: holds of others may go any moment. */
    refused(
      payer: Payer,
      refusal: GateRefusal,
      { estimate, changesBefore }: { readonly estimate: Estimate; readonly changesBefore: number },
    ): void {
      if (!settings.enabled || refusal.kind !== 'refused' || changesBefore !== changes) return;
      const scope = nameOf(payer.tenantId, refusal.limit.scope);
      if (remembered.size >= MAX_REMEMBERED && !remembered.has(scope)) remembered.clear();
      const limits = remembered.get(scope) ?? new Map<string, Remembered>();
      remembered.set(scope, limits);
      const limit = `${toLimitKey(refusal.limit)} ${toIntervalKey(refusal.interval)}`;
      limits.set(limit, remember(settings, limits.get(limit), { refusal, estimate, at: now() }));
    },

    /** Somebody changed a limit of the tenant, or may have (undefined: of any). */
    forget(tenantId: string | undefined): void {
      changes += 1;
      if (tenantId === undefined) {
        remembered.clear();
        return;
      }
      for (const scope of remembered.keys())
        if (scope.startsWith(`${JSON.stringify(tenantId)} `)) remembered.delete(scope);
    },
  };
}

function remember(
  settings: SpendBreakerSettings,
  before: Remembered | undefined,
  { refusal, estimate, at }: { refusal: GateRefusal; estimate: Estimate; at: number },
): Remembered {
  const recent = (before?.times ?? []).filter((time) => time > at - settings.intervalMs);
  const times = [...recent, at].slice(-settings.failureThreshold);
  const needed = neededOf(refusal.limit.unit, estimate);
  const isFull = times.length >= settings.failureThreshold;
  return {
    refusal,
    times,
    needed: before !== undefined && before.needed < needed ? before.needed : needed,
    openUntil: isFull ? Math.min(at + settings.timeoutMs, refusal.interval.endMs) : 0,
  };
}

function nameOf(tenantId: string, scope: Scope): string {
  return `${JSON.stringify(tenantId)} ${scope.kind} ${scope.id}`;
}

function neededOf(unit: BindingLimit['unit'], estimate: Estimate): bigint {
  return unit === 'usd' ? estimate.nanoUsd : BigInt(estimate.tokens);
}
