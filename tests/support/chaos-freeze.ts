// A worker that stops in mid-stream as if its machine slept, is taken for dead, and wakes up when its call was answered by another one.

import { type Comparison, compareCharges, isUnheard } from '../../dev/oracle/compare.ts';
import type { LoggedRequest } from '../../dev/simulated-provider/request-log.ts';
import { startSimulatedProvider } from '../../dev/simulated-provider/server.ts';
import { idle } from './chaos-counters.ts';
import { priceList } from './chaos-storm.ts';
import { eventually } from './eventually.ts';
import type { Fleet } from './fleet.ts';

export type FreezeReport = Comparison & {
  readonly freezes: number;
  readonly tasks: number;
  /** Attempts that were in mid-stream when their worker froze. */
  readonly frozenAttempts: number;
};

/** About four seconds of answer, so that a freeze hits it. */
const SLOW = { firstTokenMs: 200, chunkDelayMs: 100, tokensPerChunk: 2 } as const;
const TASKS_A_ROUND = 3;
/** Half of the defaults: a freeze is over sooner, and a worker that is merely slow is not taken for dead. */
export const SHORT_LEASES = {
  WEIR_CALL_HEARTBEAT_TIMEOUT: '5s',
  WEIR_CALL_LEASE: '5s',
  WEIR_CALL_LEASE_RENEWAL: '1s',
} as const;
const PATIENCE_MS = 120_000;

/** Two workers, each with a provider to itself; in each round the busier one is frozen until the other has answered its calls. */
export async function freezeAndThaw(fleet: Fleet, freezes: number): Promise<FreezeReport> {
  await using left = await startSimulatedProvider(SLOW);
  await using right = await startSimulatedProvider(SLOW);
  const sides = await Promise.all(
    [left, right].map(async (provider) => ({
      provider,
      worker: await fleet.startWorker({ SIMULATED_BASE_URL: `${provider.url}/v1` }),
    })),
  );
  const frozen = new Set<string>();
  const taskIds: string[] = [];
  for (let round = 0; round < freezes; round += 1) {
    const tasks = Array.from({ length: TASKS_A_ROUND }, (_, n) => `freeze-${round}-${n}`);
    taskIds.push(...tasks);
    const before = sides.map(({ provider }) => provider.requests().length);
    await Promise.all(
      tasks.map((taskId) =>
        fleet.tasks.start(
          { userId: 'user', query: 'Tell what a weir measures, in exactly 80 tokens.' },
          taskId,
        ),
      ),
    );
    // Without a pause between look and freeze: the providers run in this very process and send nothing in between. On a slow machine one
    // call may be over before another begins.
    const victim = await eventually(() => {
      const busiest = sides.toSorted((a, b) => streaming(b).length - streaming(a).length)[0];
      const now = sides.flatMap(({ provider }, n) => provider.requests().slice(before[n]));
      const begun = now.filter((one) => one.outcome !== null || isStreaming(one));
      if (busiest === undefined || streaming(busiest).length === 0 || begun.length < TASKS_A_ROUND)
        throw new Error('not all calls have begun, or none is streaming');
      busiest.worker.freeze();
      return busiest;
    }, PATIENCE_MS);
    const attempts = streaming(victim);
    for (const { attemptKey } of attempts) frozen.add(attemptKey ?? '');
    await Promise.all(tasks.map((taskId) => fleet.tasks.result(taskId)));
    victim.worker.thaw();
    await eventually(() => corrected(fleet, tasks, attempts), PATIENCE_MS);
  }
  await idle(fleet.test);
  const comparison = compareCharges({
    requests: sides.flatMap(({ provider }) => provider.requests()),
    rows: await fleet.test.stores.accounts.rows({ taskIds }),
    pricesOf: priceList(),
    mayBeEstimated: (key) => frozen.has(key),
    mayBeUnsent: isUnheard,
    answeredTasks: taskIds,
  });
  return { ...comparison, freezes, tasks: taskIds.length, frozenAttempts: frozen.size };
}

function streaming({ provider }: { readonly provider: { requests(): LoggedRequest[] } }): LoggedRequest[] {
  return provider.requests().filter(isStreaming);
}

/** In mid-stream. */
export function isStreaming({ outcome, outputTokensSent }: LoggedRequest): boolean {
  return outcome === null && outputTokensSent > 2;
}

async function corrected(
  { test }: Fleet,
  taskIds: readonly string[],
  attempts: readonly LoggedRequest[],
): Promise<void> {
  const rows = await test.stores.accounts.rows({ taskIds });
  const late = rows.filter((row) => row.kind === 'adjust' && row.adjustKey === 'late');
  const missing = attempts.filter((one) => !late.some((row) => row.attemptKey === one.attemptKey));
  if (missing.length > 0) throw new Error(`no correction of ${missing[0]?.attemptKey}`);
}
