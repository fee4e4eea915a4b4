// What makes two limits of a scope the same limit, for the file, the API and the command line alike. Pure.

import type { Limit } from './budget.ts';

/** As many as the largest amount in nano-USD: what every store and client can count exactly. */
export const MAX_LIMIT_TOKENS = 9_000_000_000_000_000n;

/**
 * A text that is the same for limits of one unit, window, zone and hardness: of two such limits only the tighter one could ever bind.
 * The case of a zone's name means nothing.
 */
export function toLimitKey(limit: {
  readonly unit: Limit['unit'];
  readonly window: string;
  readonly hard: boolean;
  readonly zone?: string | undefined;
}): string {
  return `${limit.unit} ${limit.window} ${limit.hard ? 'hard' : 'soft'} ${limit.zone?.toLowerCase() ?? ''}`;
}
