// The ladder of a budget: what the projected use of a call's limits asks for before the call is refused anything. Warn once, then slow
// down. Pure but for what it is told of time and chance.

import type { LimitUse } from '../stores/gate.ts';
import type { Estimate } from '../task/budget.ts';
import type { Pressure } from '../task/decision.ts';
import { pressureOf } from '../task/pressure.ts';

/** From the share `at` of a limit on, `ms` milliseconds; rising. From `threshold` on at all, at a whole limit `maxDelayMs`. */
export type Backpressure = {
  readonly threshold: number;
  readonly maxDelayMs: number;
  readonly table: readonly { readonly at: number; readonly ms: number }[];
};

/** A limit as it stands once the call's estimate is on it. */
export type ProjectedUse = LimitUse & { readonly projected: bigint; readonly ratio: number };

const PARTS = 1_000_000n;

/** The limits of a call with its own estimate, the tightest first. */
export function project(uses: readonly LimitUse[], estimate: Estimate): readonly ProjectedUse[] {
  return uses
    .map((use) => {
      const needed = use.limit.unit === 'usd' ? estimate.nanoUsd : BigInt(estimate.tokens);
      const projected = use.settled + use.held + needed;
      const { amount } = use.limit;
      // In millionths, so that amounts beyond 2^53 divide exactly.
      const ratio =
        amount === 0n ? Number.POSITIVE_INFINITY : Number((projected * PARTS) / amount) / Number(PARTS);
      return { ...use, projected, ratio };
    })
    .toSorted((left, right) => right.ratio - left.ratio);
}

/** How long a call is slowed down for its tightest limit; 0 where there is room. Milliseconds. */
export function delayFor(ratio: number, { threshold, maxDelayMs, table }: Backpressure): number {
  if (ratio < threshold) return 0;
  if (ratio >= 1) return maxDelayMs;
  return Math.min(table.findLast((step) => ratio >= step.at)?.ms ?? 0, maxDelayMs);
}

/** The word for a call's tightest limit, its own estimate included; undefined when no limit binds it. */
export function pressureOfCall([tightest]: readonly ProjectedUse[]): Pressure | undefined {
  return tightest === undefined ? undefined : pressureOf(tightest.projected, tightest.limit.amount);
}
