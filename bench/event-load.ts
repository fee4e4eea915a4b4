// Events as tasks publish them, and the same bytes as plain entries of streams, for the client processes of a load (load-process.ts).

import { createLogger } from '../src/log.ts';
import { eventFunctions } from '../src/stores/event-functions.ts';
import { eventKeys } from '../src/stores/keys.ts';
import { createPostgres } from '../src/stores/postgres.ts';
import { createPublishEvents, type NewEvent } from '../src/stores/publish-events.ts';
import type { Redis } from '../src/stores/redis.ts';

/** Events of one batch. */
export type Batch = { readonly deltas: number; readonly milestones: number };

const TASKS = 100;
const EVENTS_PER_TASK = 200;
const RING = 512;
/** What a model streams within one interval of deltas. */
const TEXT = 'and so the answer goes on, word by word, ';

/** Each call publishes one batch of a task; tasks take turns, and are followed by new ones when they have had their share of events. */
export function publishOf(redis: Redis, name: string, batch: Batch): () => Promise<void> {
  // Never asked: every task has begun.
  const postgres = createPostgres(
    { url: 'postgres://nowhere', schema: 'none', poolSize: 1, statementTimeoutMs: 1 },
    createLogger({ level: 'error', format: 'json', service: 'bench' }),
  );
  const publish = createPublishEvents(postgres, redis, { ringCapacity: RING, onPublished: () => undefined });
  const next = takeTurns(name, (task) => beginTask(redis, task));
  return async () => {
    const { task, from } = next(batch.deltas + batch.milestones);
    await task.begun;
    const answer = await publish({ task, events: eventsOf(task, batch, from), epoch: undefined });
    if (answer.kind !== 'published' || answer.seqs.some((seq) => seq <= 0))
      throw new Error(`a batch was ${answer.kind} as ${answer.kind === 'published' ? answer.seqs : ''}`);
  };
}

/** Each call adds one event of such batches to a stream of its task, with nothing around it. */
export function appendOf(redis: Redis, name: string, batch: Batch): () => Promise<unknown> {
  const size = batch.deltas + batch.milestones;
  const next = takeTurns(name, async () => undefined);
  let turn = next(size);
  let at = 0;
  return () => {
    if (at === size) [turn, at] = [next(size), 0];
    const { task, from } = turn;
    const one = at < batch.deltas ? { deltas: 1, milestones: 0 } : { deltas: 0, milestones: 1 };
    const [event] = eventsOf(task, one, from + at);
    at += 1;
    const { ring } = eventKeys(redis.prefix, task.taskId);
    return redis.command((client) => client.xadd(ring, '*', 'e', bodyOf(event)));
  };
}

type LoadTask = {
  readonly taskId: string;
  readonly runId: string;
  readonly tenantId: string;
  readonly callKey: string;
  readonly begun: Promise<unknown>;
  published: number;
};

/** Answers the next task, and how many events it has had before. */
function takeTurns(name: string, begin: (task: { taskId: string; runId: string }) => Promise<unknown>) {
  let made = 0;
  const make = (): LoadTask => {
    made += 1;
    const taskId = `${name}-${made}-0123456789abcdef`;
    const runId = '01234567-89ab-cdef-0123-456789abcdef';
    const callKey = `${taskId}:${runId}:answer:1`;
    return { taskId, runId, tenantId: 'bench', callKey, begun: begin({ taskId, runId }), published: 0 };
  };
  const tasks = Array.from({ length: TASKS }, make);
  let turn = 0;
  return (events: number): { task: LoadTask; from: number } => {
    turn = (turn + 1) % TASKS;
    let task = tasks[turn];
    if (task === undefined || task.published >= EVENTS_PER_TASK) {
      task = make();
      tasks[turn] = task;
    }
    const from = task.published;
    task.published += events;
    return { task, from };
  };
}

async function beginTask(redis: Redis, { taskId, runId }: { taskId: string; runId: string }): Promise<void> {
  const { ring, meta } = eventKeys(redis.prefix, taskId);
  const args = [await redis.runId(), runId, 1, 0, 3_600_000, 0, 0];
  await redis.run(eventFunctions['begin-epoch'], [ring, meta], args);
}

function eventsOf(task: LoadTask, { deltas, milestones }: Batch, from: number): NewEvent[] {
  const { callKey } = task;
  const attemptKey = `${callKey}#0.1.1.0`;
  const events: NewEvent[] = [];
  for (let k = from; k < from + deltas; k += 1)
    events.push({ kind: 'delta', delta: { callKey, stepId: 'answer', attemptKey, k, text: TEXT } });
  for (let n = from + deltas; n < from + deltas + milestones; n += 1)
    events.push({
      kind: 'milestone',
      milestone: {
        id: `${attemptKey}:${n}`,
        type: 'tool_completed',
        at: new Date(),
        body: { stepId: 'answer', callKey, attempt: attemptKey, data: { name: 'search', durationMs: 120 } },
      },
    });
  return events;
}

function bodyOf(event: NewEvent | undefined): string {
  if (event?.kind === 'delta') {
    const { stepId, callKey, attemptKey: attempt, text } = event.delta;
    const at = new Date().toISOString();
    return JSON.stringify({ type: 'call_delta', at, stepId, callKey, attempt, data: { text } });
  }
  const { type, at, body } = event?.milestone ?? {};
  return JSON.stringify({ ...body, type, at: at?.toISOString() });
}
