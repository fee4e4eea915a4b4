// Wakes the tasks that are parked on a budget which somebody changed. Best effort: a task that is not reached looks again when its own
// timer ends.

import type { Scope } from '../task/budget.ts';
import type { RouteParts } from './parts.ts';

export type BudgetChangedParts = {
  readonly stores: { readonly tasks: Pick<RouteParts['stores']['tasks'], 'waitingOn'> };
} & WakingParts;

export type WakingParts = {
  readonly client: Pick<RouteParts['client'], 'budgetChanged'>;
  readonly log: Pick<RouteParts['log'], 'info' | 'warn'>;
};

/** Signals at the same time: a tenant may have thousands of tasks parked. */
const AT_ONCE = 20;

/** Signals every task of the scope that waits for a budget; answers how many were reached. @throws never */
export async function notifyBudgetChanged(
  parts: BudgetChangedParts,
  tenantId: string,
  scope: Scope,
): Promise<number> {
  try {
    const reached = await wakeTasks(parts, await parts.stores.tasks.waitingOn(tenantId, scope));
    if (reached > 0) parts.log.info('woke tasks parked on a budget', { scope, tenantId, tasks: reached });
    return reached;
  } catch (error) {
    parts.log.warn('tasks parked on a budget are left to their timers', { scope, tenantId, error });
    return 0;
  }
}

/** Signals these tasks; answers how many were reached. @throws never */
export async function wakeTasks(parts: WakingParts, taskIds: readonly string[]): Promise<number> {
  const left = [...taskIds];
  let reached = 0;
  const signalNext = async (): Promise<void> => {
    for (let taskId = left.shift(); taskId !== undefined; taskId = left.shift())
      if (await wake(parts, taskId)) reached += 1;
  };
  await Promise.all(Array.from({ length: AT_ONCE }, signalNext));
  return reached;
}

async function wake({ client, log }: WakingParts, taskId: string): Promise<boolean> {
  try {
    return await client.budgetChanged(taskId);
  } catch (error) {
    log.warn('a task parked on a budget could not be woken', { taskId, error });
    return false;
  }
}
