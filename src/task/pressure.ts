// How near a limit is, as a word. Pure: the hold, the status query, explain and the gauge all ask here, so that they never disagree.

import type { Pressure } from './decision.ts';

/**
 * The pressure of what is settled and held, `used`, on a limit of `amount`, both in the limit's unit. A limit of 0 is critical, and so
 * is one that is passed.
 */
export function pressureOf(used: bigint, amount: bigint): Pressure {
  const isBelow = (percent: bigint) => used * 100n < amount * percent;
  if (amount <= 0n) return 'critical';
  if (isBelow(50n)) return 'low';
  if (isBelow(75n)) return 'medium';
  return isBelow(90n) ? 'high' : 'critical';
}
