// The fault of faults: the only worker is killed in mid-stream, again and again, and every request must still be charged once.

import { type Comparison, compareCharges } from '../../dev/oracle/compare.ts';
import { loadConfig } from '../../src/config.ts';
import { eventually } from './eventually.ts';
import type { Fleet } from './fleet.ts';

export type KillReport = Comparison & {
  readonly kills: number;
  readonly lostAttempts: number;
  readonly completed: number;
  readonly openHolds: number;
};

/** One task and one kill a round; answers what the oracle says once everything ended. */
export async function killInMidStream(fleet: Fleet, rounds: number): Promise<KillReport> {
  const killed = new Set<string>();
  const taskIds: string[] = [];
  let worker = await fleet.startWorker();
  for (let round = 0; round < rounds; round += 1) {
    const { taskId } = await fleet.tasks.start({
      userId: `user-${round % 5}`,
      query: `Summarise round ${round}. Rivers carry water to the sea. Weirs hold it back and measure it.`,
    });
    taskIds.push(taskId);
    await eventually(() => {
      const isStreaming = fleet.provider
        .requests()
        .some((one) => one.attemptKey?.startsWith(`${taskId}:`) && one.outputTokensSent > 2);
      if (!isStreaming) throw new Error(`no stream of ${taskId} yet`);
    });
    await worker.kill();
    // With its only worker dead nothing moves: what is open now is what the kill left behind, earlier tasks' retries included.
    for (const attempt of await fleet.test.stores.ledger.startedOfTenant('default'))
      killed.add(attempt.attemptKey);
    worker = await fleet.startWorker();
  }
  const results = await Promise.all(taskIds.map((taskId) => fleet.tasks.result(taskId)));
  const openHolds = await eventually(async () => {
    const { count } = await fleet.test.stores.ledger.openHolds();
    if (count > 0) throw new Error(`${count} holds are open`);
    return count;
  });
  const { models } = loadConfig({ env: {} });
  const comparison = compareCharges({
    requests: fleet.provider.requests(),
    rows: await fleet.test.stores.accounts.rows({ taskIds }),
    pricesOf: (model) => models[model]?.prices ?? [],
    mayBeEstimated: (key) => killed.has(key),
    // A worker that dies between "sent" and the socket leaves an estimate for a request that never came.
    mayBeUnsent: (key) => killed.has(key),
  });
  return {
    ...comparison,
    kills: rounds,
    lostAttempts: killed.size,
    completed: results.filter((one) => one.status === 'completed').length,
    openHolds,
  };
}
