// Wakes the tasks that are parked on a budget when the configured limits change. Every process does, at its own change: a task that is
// woken by the first may come to a worker that has not read the file yet, and is parked once more until that one has.

import { isDeepStrictEqual } from 'node:util';
import type { ConfigChange } from './config/live-config.ts';
import { type WakingParts, wakeTasks } from './gateway/budget-changed.ts';
import type { Sql } from './stores/postgres.ts';
import { parkedOnBudgets } from './stores/waiting-tasks.ts';

/** Best effort: a task that is not reached looks again when its own timer ends. @throws never */
export async function wakeParked(
  parts: WakingParts & { readonly postgres: Sql },
  { before, after }: ConfigChange,
): Promise<void> {
  if (isDeepStrictEqual(before.limits.budgets, after.limits.budgets)) return;
  try {
    const reached = await wakeTasks(parts, await parkedOnBudgets(parts.postgres));
    if (reached > 0) parts.log.info('woke tasks parked on a budget', { tasks: reached });
  } catch (error) {
    parts.log.warn('tasks parked on a budget are left to their timers', { error });
  }
}
