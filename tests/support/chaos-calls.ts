// A worker that dies right after its calls ended: what the ledger holds at that moment is all there will ever be.

import type { Fleet } from './fleet.ts';

/** Finishes so many calls with one worker, kills it, and answers how many charges there are then. */
export async function killAfterCalls(fleet: Fleet, calls: number): Promise<number> {
  const worker = await fleet.startWorker();
  const taskIds = Array.from({ length: calls }, (_, n) => `finished-${n}`);
  const answers = taskIds.map(async (taskId, n) => {
    await fleet.tasks.start({ userId: `user-${n % 5}`, query: `What is ${n} times seven?` }, taskId);
    return fleet.tasks.result(taskId);
  });
  // Seen as its users see it, not asked of the stores that are to be examined.
  await Promise.all(answers);
  await worker.kill();
  const rows = await fleet.test.stores.accounts.rows({ taskIds });
  return rows.filter((row) => row.kind === 'charge' && row.billable && row.nanoUsd > 0n).length;
}
