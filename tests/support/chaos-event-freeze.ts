// A worker that freezes in mid-stream and wakes when its task is over, answered by another one: it has a backlog of text to tell, and
// nobody must hear of it.

import { startSimulatedProvider } from '../../dev/simulated-provider/server.ts';
import { isStreaming } from './chaos-freeze.ts';
import type { Faults } from './event-audit.ts';
import { observe } from './event-observer.ts';
import { eventually } from './eventually.ts';
import type { Fleet, FleetWorker } from './fleet.ts';

/** Some seconds of answer, so that a freeze hits it. */
const SLOW = { firstTokenMs: 200, chunkDelayMs: 100, tokensPerChunk: 2 } as const;
const PATIENCE_MS = 120_000;

export async function freezeWhileStreaming(fleet: Fleet, redisUrl: string, freezes: number) {
  const { test } = fleet;
  await using left = await startSimulatedProvider(SLOW);
  await using right = await startSimulatedProvider(SLOW);
  await using observer = await observe(redisUrl, test.prefix);
  const sides = await Promise.all(
    [left, right].map(async (provider) => ({
      provider,
      worker: await fleet.startWorker({ SIMULATED_BASE_URL: `${provider.url}/v1` }),
    })),
  );
  const faults: Faults = [];
  const refused = new Map<FleetWorker, number>();
  for (let round = 0; round < freezes; round += 1) {
    const taskId = `frozen-${round}`;
    const input = { userId: 'user', query: 'Tell what a weir measures, in exactly 60 tokens.' };
    await fleet.tasks.start(input, taskId);
    // Without a pause between look and freeze: the providers run in this very process and send nothing in between.
    const victim = await eventually(() => {
      const side = sides.find(({ provider }) => provider.requests().some(isStreaming));
      if (side === undefined) throw new Error('the call is not streaming');
      side.worker.freeze();
      return side;
    }, PATIENCE_MS);
    const refusedBefore = refused.get(victim.worker) ?? 0;
    await fleet.tasks.result(taskId);
    await eventually(async () => {
      if ((await test.stores.events.head(taskId))?.ended !== true)
        throw new Error('stream_end is not visible');
    }, PATIENCE_MS);
    await observer.caughtUp();
    const before = await standing(fleet, taskId);
    victim.worker.thaw();
    await eventually(() => booked(fleet, taskId), PATIENCE_MS);
    // It has told what it had to tell, and was refused.
    await eventually(async () => {
      const count = await superseded(victim.worker);
      if (count <= refusedBefore) throw new Error('the frozen worker has not tried to tell anything');
      refused.set(victim.worker, count);
    }, PATIENCE_MS);
    await observer.caughtUp();
    const told = observer.tasks.get(taskId) ?? [];
    const last = told.at(-1);
    if (last?.type !== 'stream_end') faults.push(`${taskId}: ${last?.name} became visible after the end`);
    const after = await standing(fleet, taskId);
    if (after !== before) faults.push(`${taskId}: ${before} became ${after}`);
  }
  return { faults, freezes, refusedPieces: [...refused.values()].reduce((sum, count) => sum + count, 0) };
}

/** Counter, ring and rows of a task, to be compared. */
async function standing({ test }: Fleet, taskId: string): Promise<string> {
  const head = await test.stores.events.head(taskId);
  const ring = await test.stores.events.ring(taskId, undefined, 1_000);
  const { rows } = await test.postgres.query<{ count: number }>(
    'select count(*)::int as count from events where task_id = $1',
    [taskId],
  );
  return `${head?.epoch}-${head?.seq}, ${ring.length} in the ring to ${ring.at(-1)?.type}, ${rows[0]?.count} rows`;
}

/** The frozen worker has settled: what its attempt took was booked as a difference. */
async function booked({ test }: Fleet, taskId: string): Promise<void> {
  const rows = await test.stores.accounts.rows({ taskIds: [taskId] });
  if (!rows.some((row) => row.kind === 'adjust' && row.adjustKey === 'late'))
    throw new Error('the frozen attempt is not corrected');
}

async function superseded({ metricsUrl }: FleetWorker): Promise<number> {
  const text = await (await fetch(metricsUrl)).text();
  return Number(/^weir_events_dropped_total\{reason="superseded"\} (\d+)$/m.exec(text)?.[1] ?? 0);
}
