// The tiers of models.yaml: candidates, and how they are ordered for a call.

import { z } from 'zod';
import { TIERS, type Tier } from '../task/input.ts';
import type { ConfigFault } from './fault.ts';
import { isMap } from './records.ts';
import { hasRepeated, MODEL_ID, matching, word } from './shapes.ts';

/** How the candidates of a tier are ordered for a call: as listed, the cheapest for that very call first, or each first in turn. */
const TIER_STRATEGIES = ['priority', 'least_cost', 'round_robin'] as const;

export type TierRoute = {
  readonly strategy: (typeof TIER_STRATEGIES)[number];
  /** Model ids as listed. */
  readonly candidates: readonly string[];
};

export type PathFault = Omit<ConfigFault, 'key' | 'source'> & { readonly path: readonly string[] };

/** A plain list is one that is tried as listed. */
export function tierShape() {
  const candidates = z.array(matching('a model as provider/model', MODEL_ID)).min(1, 'at least one model');
  const route = z.strictObject({ strategy: word(TIER_STRATEGIES).optional(), candidates });
  return z.unknown().transform((given, context): TierRoute => {
    if (!Array.isArray(given) && !isMap(given)) {
      context.addIssue({ code: 'custom', message: 'a list of models, or {strategy, candidates}' });
      return z.NEVER;
    }
    const result = Array.isArray(given) ? route.safeParse({ candidates: given }) : route.safeParse(given);
    if (result.success)
      return { strategy: result.data.strategy ?? 'priority', candidates: result.data.candidates };
    for (const issue of result.error.issues)
      context.addIssue({ ...issue, path: Array.isArray(given) ? issue.path.slice(1) : issue.path });
    return z.NEVER;
  });
}

/** Candidates that are no models of the file, or stand there twice. */
export function candidateFaults(
  tiers: Readonly<Record<Tier, TierRoute>>,
  models: Readonly<Record<string, unknown>>,
): PathFault[] {
  return TIERS.flatMap((tier) => {
    const path = ['tiers', tier];
    const { candidates } = tiers[tier];
    const unknown = candidates.filter((id) => models[id] === undefined);
    const faults = unknown.map(
      (id): PathFault => ({ path, expected: 'models that stand under models', got: `"${id}"` }),
    );
    return hasRepeated(candidates)
      ? [...faults, { path, expected: 'each model once', got: 'a repetition' }]
      : faults;
  });
}
