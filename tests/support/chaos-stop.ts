// Workers that are told to stop while they stream: what they finish, what they hand over, and what the ledger says of both.

import { type Comparison, compareCharges } from '../../dev/oracle/compare.ts';
import { type SimulatedProvider, startSimulatedProvider } from '../../dev/simulated-provider/server.ts';
import { priceList, STORM_FLEET } from './chaos-storm.ts';
import { eventually } from './eventually.ts';
import type { Fleet, FleetWorker } from './fleet.ts';

export type StopReport = Comparison & {
  /** Of the two workers that were stopped. */
  readonly exitCodes: readonly (number | null)[];
  /** Tasks that completed. */
  readonly completed: number;
  /** Streams that the first worker left in the middle, for want of time. */
  readonly handedOver: number;
  /** Streams that were under way when the second worker was stopped, and came to their end there. */
  readonly finished: number;
};

export const STOP_FLEET = {
  ...STORM_FLEET,
  env: { ...STORM_FLEET.env, WORKER_ACT_NORMAL: '50' },
} as const;

/** 25 pieces. */
export const STOP_QUERY = 'What does a weir measure? Answer in exactly 100 tokens.';
const PATIENCE_MS = 120_000;

/** A worker whose requests all go to a provider of its own, so that its log tells whose they were. */
export async function startWithProvider(
  fleet: Fleet,
  options: { readonly grace: string; readonly chunkDelayMs: number },
): Promise<{ readonly worker: FleetWorker; readonly provider: SimulatedProvider } & AsyncDisposable> {
  const { grace, chunkDelayMs } = options;
  const provider = await startSimulatedProvider({ firstTokenMs: 50, chunkDelayMs, tokensPerChunk: 4 });
  const worker = await fleet.startWorker({
    SIMULATED_BASE_URL: `${provider.url}/v1`,
    WEIR_SHUTDOWN_GRACE: grace,
  });
  return { worker, provider, [Symbol.asyncDispose]: () => provider.close() };
}

/** Waits until so many streams have brought some text; answers how many of them are under way. */
export async function untilStreamed(provider: SimulatedProvider, streams: number): Promise<number> {
  return eventually(() => {
    const begun = provider.requests().filter((one) => one.outputTokensSent > 0);
    if (begun.length < streams) throw new Error(`${begun.length} of ${streams} streams have begun`);
    return begun.filter((one) => one.outcome === null).length;
  }, PATIENCE_MS);
}

/**
 * SIGTERM to a worker that has no time left for its streams, with a second one beside it; then to that one, which has time, while it
 * streams them anew.
 */
export async function stopDuringStreams(fleet: Fleet, streams: number): Promise<StopReport> {
  await using first = await startWithProvider(fleet, { grace: '500ms', chunkDelayMs: 10_000 });
  const taskIds = Array.from({ length: streams }, (_, n) => `stopped-${n}`);
  await Promise.all(
    taskIds.map((taskId, n) => fleet.tasks.start({ userId: `user-${n % 5}`, query: STOP_QUERY }, taskId)),
  );
  await untilStreamed(first.provider, streams);
  await using second = await startWithProvider(fleet, { grace: '60s', chunkDelayMs: 250 });
  const exitCodes = [await first.worker.stop()];
  const underWay = await untilStreamed(second.provider, streams);
  const starting = startWithProvider(fleet, { grace: '60s', chunkDelayMs: 5 });
  exitCodes.push(await second.worker.stop());
  await using third = await starting;
  const results = await Promise.all(taskIds.map((taskId) => fleet.tasks.result(taskId)));
  const comparison = compareCharges({
    requests: [first, second, third].flatMap(({ provider }) => provider.requests()),
    rows: await fleet.test.stores.accounts.rows({ taskIds }),
    pricesOf: priceList(fleet.configDir),
    mayBeEstimated: () => false,
    answeredTasks: taskIds,
  });
  const ended = ({ provider }: typeof first, outcome: string) =>
    provider.requests().filter((one) => one.outcome === outcome).length;
  return {
    ...comparison,
    exitCodes,
    completed: results.filter(({ status }) => status === 'completed').length,
    handedOver: ended(first, 'client_gone'),
    finished: underWay - ended(second, 'client_gone'),
  };
}
