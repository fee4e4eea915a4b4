// Tasks that live in the stores alone, for tests of readers: their events are published as workers publish them, without a worker.

import { type FollowOptions, type FollowStores, follow } from '../../src/gateway/follow.ts';
import { createPresents } from '../../src/gateway/presents.ts';
import type { EventDraft, TaskEvent } from '../../src/task/event.ts';
import { parseTaskInput } from '../../src/task/input.ts';
import { eventually } from '../support/eventually.ts';
import type { TestStores } from '../support/stores.ts';

/** A task of one run. Nothing is written before `begin`. */
export function createStoredTask(
  { stores, postgres }: Pick<TestStores, 'stores' | 'postgres'>,
  taskId: string,
  runId = 'run-1',
) {
  const task = { taskId, runId, tenantId: 'default' };
  const parsed = parseTaskInput({ userId: 'u1', query: 'hello' });
  if (parsed.kind === 'invalid') throw new Error('the sample input is invalid');
  const row = { taskId, input: parsed.input, strategy: 'simple', model: 'simulated/small', limits: [] };
  const callKey = `${taskId}:${runId}:answer:1`;
  let k = -1;
  return {
    taskId,
    runId,
    callKey,
    attemptOf: (attempt: number) => `${callKey}#0.1.${attempt}.0`,
    queue: () => stores.tasks.queue({ ...row, runId: undefined }),
    async begin() {
      await stores.tasks.begin({ ...row, runId }, [
        { id: `${runId}:begin`, type: 'task_started' },
        { id: `${runId}:step:answer`, type: 'step_started', stepId: 'answer' },
      ]);
      await stores.events.publishPending(task);
    },
    /** Resolves when every milestone's number has come to its row, as the persister brings it a moment later. */
    persisted: () =>
      eventually(async () => {
        const { rows } = await postgres.query(
          'select id from events where task_id = $1 and seq is null and epoch is null',
          [taskId],
        );
        if (rows.length > 0) throw new Error(`${rows.length} milestones of ${taskId} have no number`);
      }),
    milestone: (draft: EventDraft) => stores.events.append(task, [draft]),
    async startCall(attempt = 1) {
      k = -1;
      const attemptKey = `${callKey}#0.1.${attempt}.0`;
      await stores.events.append(task, [
        { id: `${attemptKey}:started`, type: 'call_started', stepId: 'answer', callKey, attempt: attemptKey },
      ]);
    },
    async delta(text: string, attempt = 1) {
      k += 1;
      const attemptKey = `${callKey}#0.1.${attempt}.0`;
      return stores.events.publishDelta(task, {
        callKey,
        stepId: 'answer',
        attemptKey,
        k,
        text,
      });
    },
    /** A piece of text that never reaches Redis. */
    loseDelta: () => {
      k += 1;
    },
    /** Stores the answer as settling does, and publishes the milestone. */
    async completeCall(text: string, attempt = 1) {
      const attemptKey = `${callKey}#0.1.${attempt}.0`;
      await postgres.query(
        `insert into call_results (call_key, tenant_id, task_id, attempt_key, status, model, text, finish_reason, usage, cost_nano_usd)
         values ($1, 'default', $2, $3, 'completed', 'simulated/small', $4, 'stop', '{}', 0)`,
        [callKey, taskId, attemptKey, text],
      );
      await stores.events.append(task, [
        {
          id: `${attemptKey}:completed`,
          type: 'call_completed',
          stepId: 'answer',
          callKey,
          attempt: attemptKey,
          data: { textBytes: Buffer.byteLength(text) },
        },
      ]);
    },
    async end() {
      await stores.tasks.end({ taskId, runId }, { status: 'completed', resultText: 'done' }, [
        { id: `${runId}:finish`, type: 'task_completed' },
        { id: `${runId}:stream_end`, type: 'stream_end', data: { status: 'completed' } },
      ]);
      await stores.events.publishPending(task);
    },
  };
}

/** What readers need of the stores of a test. */
export function followStoresOf({ stores }: Pick<TestStores, 'stores'>): FollowStores {
  return { ledger: stores.ledger, liveFeed: stores.liveFeed, presents: createPresents(stores.events) };
}

/** A task's events one by one. */
export async function* followEvents(
  stores: FollowStores,
  taskId: string,
  options: FollowOptions,
): AsyncGenerator<TaskEvent> {
  for await (const batch of follow(stores, taskId, options)) yield* batch.events;
}

/** A reader in the background whose events can be looked at while it reads. */
export function startFollowing(stores: FollowStores, taskId: string, options: Partial<FollowOptions> = {}) {
  const stop = new AbortController();
  const events: TaskEvent[] = [];
  const read = async () => {
    for await (const event of followEvents(stores, taskId, { signal: stop.signal, ...options }))
      events.push(event);
  };
  const done = read();
  return {
    events,
    done,
    until: (check: (events: readonly TaskEvent[]) => boolean) =>
      eventually(() => {
        if (!check(events)) throw new Error(`the reader has ${typesOf(events)}`);
      }),
    async stop() {
      stop.abort();
      await done;
    },
  };
}

/** Text as a client has it after these events: deltas add, a snapshot replaces, a reset and a new attempt begin anew. */
export function textOf(events: readonly TaskEvent[]): string {
  let text = '';
  for (const event of events) {
    const piece = event.data?.['text'];
    if (event.type === 'reset' || event.type === 'call_started' || event.type === 'attempt_reset') text = '';
    if (event.type === 'call_snapshot') text = String(piece);
    if (event.type === 'call_delta') text += String(piece);
  }
  return text;
}

export function typesOf(events: readonly TaskEvent[]): string {
  return events.map((event) => event.type).join(' ');
}
