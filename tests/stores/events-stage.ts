// Tasks with events, as tests of the events need them: begun, written, published, lost.

import type { Persister } from '../../src/stores/event-log.ts';
import type { Delta } from '../../src/stores/events.ts';
import { eventKeys } from '../../src/stores/keys.ts';
import { writeMilestones } from '../../src/stores/milestones.ts';
import type { EventDraft, TaskEvent } from '../../src/task/event.ts';
import { parseTaskInput } from '../../src/task/input.ts';
import type { TestStores } from '../support/stores.ts';

export type StagedTask = { readonly taskId: string; readonly runId: string; readonly tenantId: string };

export const CAPACITY = 512;
const MOST_PASSES = 1_000;

export const step = (id: string): EventDraft => ({ id, type: 'step_started', stepId: id });
export const steps = (count: number, prefix = 'e'): EventDraft[] =>
  Array.from({ length: count }, (_, n) => step(`${prefix}${n + 1}`));
export const END: EventDraft = { id: 'end', type: 'stream_end' };
/** A piece of the call's only attempt, unless it says another. */
export function delta(k: number, text = `t${k}`, attempt = 1, call = 'call'): Delta {
  return { callKey: call, stepId: 'answer', attemptKey: `${call}#0.1.${attempt}.0`, k, text };
}

/** Helpers on the stores of one test file, which are open by the time one of them is called. */
export function eventsStage(test: () => TestStores) {
  let tasks = 0;

  /** A task of its own that has begun. */
  async function begin(runId = 'run-1', known?: string) {
    tasks += 1;
    const taskId = known ?? `task-${tasks}`;
    const parsed = parseTaskInput({ userId: 'ada', query: 'why' });
    if (parsed.kind === 'invalid') throw new Error('the input of the test is invalid');
    await test().stores.tasks.begin(
      { taskId, runId, input: parsed.input, strategy: 'simple', model: 'a/b', limits: [] },
      [],
    );
    return { taskId, runId, tenantId: 'default' };
  }

  const write = (task: StagedTask, events: readonly EventDraft[]) =>
    writeMilestones(test().postgres, task, events);
  const publish = (task: StagedTask) => test().stores.events.publishPending(task);

  async function ring(task: StagedTask): Promise<readonly TaskEvent[]> {
    return test().stores.events.ring(task.taskId, undefined, 1_000);
  }

  let persister: Persister | undefined;

  /** Numbers of everything that was published reach their rows. */
  async function persist(): Promise<void> {
    persister ??= test().stores.eventLog.openPersister('test');
    for (let passes = 0; passes < MOST_PASSES; passes += 1)
      if (!(await persister.pass()) && (await test().stores.eventLog.state()).backlog === 0) return;
    throw new Error('the event log is not empty after so many passes');
  }

  /** The rows of a task's milestones once all numbers are in them. */
  async function rows(task: StagedTask) {
    await persist();
    return rowsNow(task);
  }

  /** What has a number in its order, then the rest. */
  async function rowsNow(task: StagedTask) {
    const { rows: found } = await test().postgres.query<{
      id: string;
      seq: bigint | null;
      epoch: number | null;
    }>('select id, seq, epoch from events where task_id = $1 order by seq nulls last, ordinal', [
      task.taskId,
    ]);
    return found.map((row) => ({ ...row, seq: row.seq === null ? null : Number(row.seq) }));
  }

  /** Redis as it is after a flush, for one task. */
  async function lose(task: StagedTask, ...calls: string[]): Promise<void> {
    const keys = eventKeys(test().prefix, task.taskId);
    await test().redis.command((client) =>
      client.del(keys.ring, keys.meta, ...calls.map((call) => keys.text(call))),
    );
  }

  return { begin, write, publish, ring, persist, rows, rowsNow, lose };
}
