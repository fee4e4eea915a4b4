// The order in which a tier's models are tried for one call. What is decided here goes into the task's recorded settings once, when it
// begins: a workflow never asks again. Decides nothing about budgets; a model that is too dear is refused where it is held for.

import type { Tier } from '../task/input.ts';

export type TierRoute = {
  readonly strategy: 'priority' | 'least_cost' | 'round_robin';
  /** As listed. */
  readonly candidates: readonly string[];
};

/** Counts calls of a tier, for those that are served in turn. Per process: each serves its own calls evenly. */
export function createTurns(): (tier: Tier) => number {
  const turns = new Map<Tier, number>();
  return (tier) => {
    const turn = turns.get(tier) ?? 0;
    turns.set(tier, turn + 1);
    return turn;
  };
}

/**
 * @param models those of the tier that can be called, as listed
 * @param how `costOf` is what this very call may cost at most, undefined where no price is known; `turn` counts calls
 */
export function inOrder(
  strategy: TierRoute['strategy'],
  models: readonly string[],
  how: { readonly costOf: (model: string) => bigint | undefined; readonly turn: () => number },
): readonly string[] {
  switch (strategy) {
    case 'priority':
      return models;
    case 'least_cost': {
      const costs = new Map(models.map((model) => [model, how.costOf(model)]));
      // A stable sort: ties stay as listed. What nobody knows the price of is tried last.
      return models.toSorted((left, right) => compare(costs.get(left), costs.get(right)));
    }
    case 'round_robin': {
      const start = models.length === 0 ? 0 : how.turn() % models.length;
      return [...models.slice(start), ...models.slice(0, start)];
    }
    default:
      return strategy satisfies never;
  }
}

function compare(left: bigint | undefined, right: bigint | undefined): number {
  if (left === right) return 0;
  if (left === undefined) return 1;
  if (right === undefined) return -1;
  return left < right ? -1 : 1;
}
