// A process that publishes as workers do: milestones as rows first, streamed text through the batcher. Its one argument is JSON, see
// `ChaosOrder`; the message `finish` lets every task come to its end.

import { setTimeout as pause } from 'node:timers/promises';
import { createDeltaRoom } from '../../src/calls/delta-room.ts';
import { createDeltaBatcher } from '../../src/calls/deltas.ts';
import { createEvents } from '../../src/stores/events.ts';
import { writeMilestones } from '../../src/stores/milestones.ts';
import type { EventDraft } from '../../src/task/event.ts';
import {
  type ChaosCall,
  EVENTS_PER_CALL,
  endOf,
  originOf,
  piecesOf,
  restartOf,
  startOf,
  TASK_END,
  taskOf,
  textOf,
} from './event-chaos-plan.ts';
import { openChaosProcess, reportToParent } from './event-chaos-process.ts';

const { order, log, postgres, redis } = openChaosProcess();
let published = 0;
let dropped = 0;
let isFinishing = false;
const events = createEvents(postgres, redis, {
  ringCapacity: 512,
  onPublished: () => {
    published += 1;
  },
});
const deltaParts = {
  events,
  log,
  deltaRoom: createDeltaRoom(),
  // One event for each piece, as if each had come by itself.
  settings: { deltaIntervalMs: 50, deltaBytes: 1, deltaFlushMs: 500 },
  meter: {
    deltaDropped: (_reason: string, pieces: number) => {
      dropped += pieces;
    },
  },
};

/** Where a task stands. `open`: the attempt of call `n` was begun by a process that died. */
type Progress = { readonly taskId: string; n: number; attempts: number; open: boolean; ended: boolean };

async function readProgress(): Promise<Progress[]> {
  const { rows } = await postgres.query<Progress>(
    `select t.task_id as "taskId", count(*) filter (where e.type = 'call_completed')::int as n,
       count(*) filter (where e.type = 'call_started')::int as attempts,
       count(*) filter (where e.type = 'call_started') > count(*) filter (where e.type in ('call_completed', 'attempt_reset')) as open,
       coalesce(bool_or(e.type = 'stream_end'), false) as ended
     from unnest($1::text[]) as t (task_id) left join events e on e.task_id = t.task_id group by t.task_id`,
    [order.taskIds],
  );
  return rows;
}

/** As a worker does that has an answer in hand: it waits for Postgres. */
async function untilWritten(work: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await work();
      return;
    } catch (error) {
      log.debug('waits for postgres', { error });
      await pause(100);
    }
  }
}

async function milestones(taskId: string, drafts: readonly EventDraft[], answer?: ChaosCall): Promise<void> {
  const task = taskOf(taskId);
  await untilWritten(() =>
    postgres.transaction(async (sql) => {
      await writeMilestones(sql, task, drafts);
      if (answer === undefined) return;
      const { callKey, attemptKey } = originOf(answer);
      await sql.query(
        `insert into call_results (call_key, tenant_id, task_id, attempt_key, status, model, text, finish_reason, usage, cost_nano_usd)
         values ($1, 'default', $2, $3, 'completed', 'simulated/small', $4, 'stop', '{}', 0) on conflict do nothing`,
        [callKey, taskId, attemptKey, textOf(answer)],
      );
    }),
  );
  await events.publishPending(task).catch((error: unknown) => log.debug('left to the sweeper', { error }));
}

async function playCall(progress: Progress): Promise<void> {
  const { taskId, n } = progress;
  const before = { taskId, n, attempt: progress.attempts };
  const call = { ...before, attempt: progress.attempts + 1 };
  await milestones(taskId, progress.open ? restartOf(before, call) : startOf(call));
  const deltas = createDeltaBatcher(deltaParts, originOf(call), {
    task: taskOf(taskId),
    begun: Promise.resolve(),
  });
  for (const piece of piecesOf(call)) deltas.push(piece);
  await deltas.flush();
  await milestones(taskId, endOf(call), call);
  Object.assign(progress, { n: n + 1, attempts: call.attempt, open: false });
}

/** Room for the next call: as many events a second as were ordered, over all lanes. */
function createPace(perSecond: number) {
  const everyMs = (EVENTS_PER_CALL / perSecond) * 1_000;
  let next = performance.now();
  return async () => {
    // What was missed while everything stood still is not made up for.
    next = Math.max(next + everyMs, performance.now() - 1_000);
    const waitMs = next - performance.now();
    if (waitMs > 0) await pause(waitMs);
  };
}

async function main(): Promise<void> {
  process.on('message', (message) => {
    isFinishing = message === 'finish';
  });
  reportToParent(() => ({ published, dropped }));
  await redis.ready(60_000);
  let open: Progress[] = [];
  await untilWritten(async () => {
    open = (await readProgress()).filter(({ ended }) => !ended);
  });
  const pace = createPace(order.perSecond);
  const waiting = open.values();
  const queue: Progress[] = [...waiting];
  const lane = async () => {
    for (let progress = queue.shift(); progress !== undefined; progress = queue.shift()) {
      // A call that was begun is brought to its end, so that none is left open.
      if (isFinishing && !progress.open) {
        await milestones(progress.taskId, TASK_END);
        continue;
      }
      await pace();
      await playCall(progress);
      queue.push(progress);
    }
  };
  await Promise.all(Array.from({ length: 32 }, lane));
  process.exit(0);
}

await main();
