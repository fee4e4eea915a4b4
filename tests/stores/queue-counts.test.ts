import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { countQueues } from '../../src/count-queues.ts';
import { PRIORITIES, type Priority, parseTaskInput } from '../../src/task/input.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

const NONE = { critical: 0, high: 0, normal: 0, low: 0 };
const EMPTY = { waiting: 0, oldestSeconds: 0, addedPerSecond: 0, takenPerSecond: 0 };
const BUSY = { waiting: 3, oldestSeconds: 1.5, addedPerSecond: 2, takenPerSecond: 1 };

async function wait(
  taskId: string,
  priority: Priority,
  waiting: { readonly kind: string; readonly untilMs: number },
): Promise<void> {
  const parsed = parseTaskInput({ userId: 'ada', query: 'why', priority });
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.faults));
  const task = { taskId, runId: 'run', input: parsed.input, strategy: 'simple', model: 'a/b', limits: [] };
  await test.stores.tasks.begin(task, []);
  const { kind, untilMs } = waiting;
  const until = new Date(Date.now() + untilMs).toISOString();
  await test.stores.tasks.note(taskId, 'run', {
    status: 'waiting',
    phase: 'waiting',
    waiting: { reason: 'a limit', until, kind },
  });
}

const backlogs = PRIORITIES.map((priority) => ({
  queue: `weir-${priority}`,
  priority,
  workflows: EMPTY,
  activities: priority === 'low' ? BUSY : EMPTY,
  backlog: priority === 'low' ? { ...NONE, low: 3 } : NONE,
}));

const count = (priorityQueues: boolean) =>
  countQueues({
    queueCounts: test.stores.queueCounts,
    describeQueues: async () => backlogs,
    priorityQueues,
  });

describe('counts of queues', () => {
  it('are unknown, and not zero, before anybody has counted', async () => {
    expect(await test.stores.queueCounts.read()).toBeUndefined();
  });

  it('tell waits for a quota from every other wait, and none whose time is over', async () => {
    await wait('rate', 'high', { kind: 'rate', untilMs: 60_000 });
    await wait('throttled', 'low', { kind: 'provider_limit', untilMs: 60_000 });
    await wait('slowed', 'low', { kind: 'backpressure', untilMs: 60_000 });
    await wait('held', 'low', { kind: 'held', untilMs: 60_000 });
    await wait('over', 'low', { kind: 'rate', untilMs: -1_000 });
    await wait('ended', 'low', { kind: 'rate', untilMs: 60_000 });
    await test.stores.tasks.end({ taskId: 'ended', runId: 'run' }, { status: 'cancelled' }, []);
    expect(await test.stores.queueCounts.quotaWaiting()).toEqual({ ...NONE, high: 1, low: 1 });
  });

  it('stand with the queue that a task comes back to', async () => {
    await count(true);
    const counts = await test.stores.queueCounts.read();
    expect(counts?.queues.map(({ queue, quotaWaiting }) => [queue, quotaWaiting])).toEqual([
      ['weir-critical', NONE],
      ['weir-high', { ...NONE, high: 1 }],
      ['weir-normal', NONE],
      ['weir-low', { ...NONE, low: 1 }],
    ]);
    expect(counts?.queues.at(-1)).toMatchObject({ activities: BUSY, backlog: { low: 3 } });
  });

  it('stand with the queue normal when all tasks share it', async () => {
    await count(false);
    const counts = await test.stores.queueCounts.read();
    const waiting = counts?.queues.filter(({ quotaWaiting }) => Object.values(quotaWaiting).some(Boolean));
    expect(waiting?.map(({ queue, quotaWaiting }) => [queue, quotaWaiting])).toEqual([
      ['weir-normal', { ...NONE, high: 1, low: 1 }],
    ]);
  });

  it('are forgotten when nobody has counted for a minute', async () => {
    await count(true);
    await test.postgres.query("update queue_counts set at = now() - interval '61 seconds'");
    expect(await test.stores.queueCounts.read()).toBeUndefined();
    await count(true);
    expect(await test.stores.queueCounts.read()).toBeDefined();
  });
});
