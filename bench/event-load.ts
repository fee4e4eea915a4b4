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
const RING = 512;
/** What a model streams within one interval of deltas. */
const TEXT = 'and so the answer goes on, word by word, ';

/** Each call publishes one batch of a task; tasks take turns. */
export async function publishOf(redis: Redis, name: string, batch: Batch): Promise<() => Promise<void>> {
  // Never asked: every task has begun.
  const postgres = createPostgres(
    { url: 'postgres://nowhere', schema: 'none', poolSize: 1, statementTimeoutMs: 1 },
    createLogger({ level: 'error', format: 'json', service: 'bench' }),
  );
  const publish = createPublishEvents(postgres, redis, { ringCapacity: RING, onPublished: () => undefined });
  const tasks = await beginTasks(redis, name);
  let turn = 0;
  return async () => {
    turn += 1;
    const task = tasks[turn % tasks.length];
    if (task === undefined) throw new Error('a load without tasks');
    const from = task.published;
    task.published += batch.deltas + batch.milestones;
    const request = { task, events: eventsOf(task, batch, from), epoch: undefined };
    const answer = await publish(request);
    if (answer.kind !== 'published' || answer.seqs.some((seq) => seq <= 0))
      throw new Error(`a batch was ${answer.kind} as ${answer.kind === 'published' ? answer.seqs : ''}`);
  };
}

/** Each call adds one event of such batches to a stream of its task, with nothing around it. */
export async function appendOf(redis: Redis, name: string, batch: Batch): Promise<() => Promise<unknown>> {
  const tasks = await beginTasks(redis, name);
  let turn = 0;
  return () => {
    const at = turn % (batch.deltas + batch.milestones);
    const task = tasks[Math.floor(turn / (batch.deltas + batch.milestones)) % tasks.length];
    turn += 1;
    if (task === undefined) throw new Error('a load without tasks');
    const one = at < batch.deltas ? { deltas: 1, milestones: 0 } : { deltas: 0, milestones: 1 };
    const [event] = eventsOf(task, one, turn);
    const { ring } = eventKeys(redis.prefix, task.taskId);
    return redis.command((client) => client.xadd(ring, 'MAXLEN', '~', RING, '*', 'e', bodyOf(event)));
  };
}

type LoadTask = {
  readonly taskId: string;
  readonly runId: string;
  readonly tenantId: string;
  readonly callKey: string;
  published: number;
};

async function beginTasks(redis: Redis, name: string): Promise<LoadTask[]> {
  const server = await redis.runId();
  return Promise.all(
    Array.from({ length: TASKS }, async (_, n) => {
      const taskId = `${name}-${n}-0123456789abcdef`;
      const runId = '01234567-89ab-cdef-0123-456789abcdef';
      const { ring, meta } = eventKeys(redis.prefix, taskId);
      await redis.run(eventFunctions['begin-epoch'], [ring, meta], [server, runId, 1, 0, 3_600_000, 0]);
      return { taskId, runId, tenantId: 'bench', callKey: `${taskId}:${runId}:answer:1`, published: 0 };
    }),
  );
}

function eventsOf(task: LoadTask, { deltas, milestones }: Batch, from: number): NewEvent[] {
  const { callKey } = task;
  const attemptKey = `${callKey}#0.1.1.0`;
  const events: NewEvent[] = [];
  for (let k = from; k < from + deltas; k += 1)
    events.push({ kind: 'delta', delta: { callKey, stepId: 'answer', attemptKey, order: 1, k, text: TEXT } });
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
