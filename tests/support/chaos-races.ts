// Success and cancel racing for one attempt: tasks are cancelled around the moment at which their answer ends, and where that moment
// lies is learnt from the races before.

import { setTimeout as delay } from 'node:timers/promises';
import { type Comparison, compareCharges } from '../../dev/oracle/compare.ts';
import { seededChance } from '../../dev/simulated-provider/duration.ts';
import { toCallKeyOfAttempt } from '../../src/task/keys.ts';
import { priceList } from './chaos-storm.ts';
import { eventually } from './eventually.ts';
import type { Fleet } from './fleet.ts';

export type RaceReport = Comparison & {
  readonly races: number;
  /** Whose call was answered, and whose was cut short. */
  readonly answered: number;
  readonly cancelled: number;
};

/** About 1.2 seconds of answer. The worker hears of a cancellation within a second, with its heartbeat. */
export const RACE_PACE = { firstTokenMs: 200, chunkDelayMs: 50, tokensPerChunk: 5 } as const;
const QUERY = 'What does a weir measure? Answer in exactly 100 tokens.';
const FIRST_AIM_MS = 300;
const STEP_MS = 100;
const JITTER_MS = 300;
const AT_ONCE = 5;
const PATIENCE_MS = 120_000;

/** `fleet` has a worker, and a provider of the pace above. */
export async function raceCancellations(fleet: Fleet, races: number, seed: number): Promise<RaceReport> {
  const chance = seededChance(seed);
  const taskIds = Array.from({ length: races }, (_, n) => `race-${n}`);
  const ends: string[] = [];
  let aimMs = FIRST_AIM_MS;
  for (let from = 0; from < races; from += AT_ONCE) {
    const batch = taskIds.slice(from, from + AT_ONCE);
    const moments = batch.map(() => Math.max(0, aimMs + (chance() - 0.5) * JITTER_MS));
    const ended = await Promise.all(batch.map((taskId, n) => race(fleet, taskId, moments[n] ?? 0)));
    ends.push(...ended);
    // Where most were answered the cancellations came too late.
    const answered = ended.filter((end) => end === 'completed').length;
    aimMs += answered * 2 > ended.length ? -STEP_MS : STEP_MS;
  }
  const comparison = compareCharges({
    requests: fleet.provider.requests(),
    rows: await fleet.test.stores.accounts.rows({ taskIds }),
    pricesOf: priceList(),
    mayBeEstimated: () => false,
    answeredTasks: taskIds,
  });
  const answered = ends.filter((end) => end === 'completed').length;
  return { ...comparison, races, answered, cancelled: races - answered };
}

/** Answers how the ledger says the call ended. */
async function race(fleet: Fleet, taskId: string, momentMs: number): Promise<string> {
  await fleet.tasks.start({ userId: 'user', query: QUERY }, taskId);
  const attemptKey = await eventually(() => {
    const streaming = fleet.provider
      .requests()
      .find((one) => one.attemptKey?.startsWith(`${taskId}:`) && one.outputTokensSent > 0);
    if (typeof streaming?.attemptKey !== 'string') throw new Error(`no stream of ${taskId} yet`);
    return streaming.attemptKey;
  }, PATIENCE_MS);
  await delay(momentMs);
  await fleet.tasks.cancel(taskId);
  // Ended as completed or as cancelled: both are right.
  await fleet.tasks.result(taskId).catch(() => undefined);
  return eventually(async () => {
    const result = await fleet.test.stores.ledger.result(toCallKeyOfAttempt(attemptKey));
    if (result === undefined) throw new Error(`${taskId} has no result`);
    return result.status;
  }, PATIENCE_MS);
}
