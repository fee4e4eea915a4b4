// Which limit stands in the way of a hold, of limits whose counters are known: as scripts/hold.lua decides it. Pure.

import type { BindingLimit, Estimate } from '../task/budget.ts';
import type { GateRefusal, LimitUse } from './gate.ts';

/** A limit of 0 has no room even for a call that costs nothing. Of several that refuse, the one that turns last is told. */
export function refusalOf(uses: readonly LimitUse[], estimate: Estimate): GateRefusal | undefined {
  let refused: GateRefusal | undefined;
  let waiting: GateRefusal | undefined;
  for (const use of uses) {
    const { limit, settled, held, interval } = use;
    if (!limit.hard) continue;
    const needed = amountOf(limit, estimate);
    const isFull = settled + needed > limit.amount || limit.amount === 0n;
    if (isFull && interval.endMs > (refused?.interval.endMs ?? -1)) refused = { kind: 'refused', ...use };
    if (settled + held + needed > limit.amount) waiting ??= { kind: 'crowded', ...use };
  }
  return refused ?? waiting;
}

/** What a limit counts of an estimate, in its own unit. */
export function amountOf(
  { unit }: Pick<BindingLimit, 'unit'>,
  estimate: Pick<Estimate, 'nanoUsd' | 'tokens'>,
) {
  return unit === 'usd' ? estimate.nanoUsd : BigInt(estimate.tokens);
}
