import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NewTask } from '../../src/stores/tasks.ts';
import { parseTaskInput } from '../../src/task/input.ts';
import { openTestStores, storesOn, type TestStores } from '../support/stores.ts';

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

function taskOf(tenantId: string, taskId: string): NewTask {
  const parsed = parseTaskInput({ tenantId, userId: 'ada', query: 'why' });
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.faults));
  return {
    taskId: `${tenantId}-${taskId}`,
    runId: undefined,
    input: parsed.input,
    strategy: 'simple',
    model: 'a/b',
    limits: [],
  };
}

const tasksUpTo = (maxQueued: number | undefined) => storesOn(test, { maxQueued }).tasks;

describe('submitting with a cap', () => {
  it('accepts exactly as many as the cap when many processes submit at once', async () => {
    const processes = [tasksUpTo(7), tasksUpTo(7), tasksUpTo(7)];
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, n) => processes[n % 3]?.queue(taskOf('flood', `${n}`))),
    );
    expect(answers.filter((answer) => answer === 'queued')).toHaveLength(7);
    expect(answers.filter((answer) => answer === 'full')).toHaveLength(23);
  });

  it('has a place again for each task that ends, and none more', async () => {
    const tasks = tasksUpTo(1);
    await tasks.queue(taskOf('one', 'a'));
    expect(await tasks.queue(taskOf('one', 'b'))).toBe('full');
    await tasks.end({ taskId: 'one-a', runId: 'run' }, { status: 'completed' }, []);
    expect(await tasks.queue(taskOf('one', 'b'))).toBe('queued');
    expect(await tasks.queue(taskOf('one', 'c'))).toBe('full');
  });

  it('keeps one tenant from no other', async () => {
    const tasks = tasksUpTo(1);
    expect(await tasks.queue(taskOf('left', 'a'))).toBe('queued');
    expect(await tasks.queue(taskOf('right', 'a'))).toBe('queued');
  });

  it('counts nothing without a cap', async () => {
    const tasks = tasksUpTo(undefined);
    for (const id of ['a', 'b', 'c']) expect(await tasks.queue(taskOf('free', id))).toBe('queued');
    expect(await tasks.isOverCap({ tenantId: 'free', taskId: 'free-c' })).toBe(false);
  });

  it('counts again for each task where the cap may be reached within moments', async () => {
    const tasks = tasksUpTo(1_000);
    await tasks.queue(taskOf('large', 'first'));
    await test.postgres.query(
      `insert into tasks (task_id, tenant_id, user_id, status, phase, strategy, priority, input)
       select 'large-' || n, 'large', 'ada', 'running', 'running', 'simple', 'normal', '{}' from generate_series(1, 999) as n`,
    );
    expect(await tasks.queue(taskOf('large', 'last'))).toBe('full');
  });
});

describe('a task that was started past the gateway', () => {
  const begin = (tasks: ReturnType<typeof tasksUpTo>, tenantId: string, id: string) =>
    tasks.begin({ ...taskOf(tenantId, id), runId: 'run' }, []);

  it('is over the cap when as many as that were accepted before it, however often it asks', async () => {
    const tasks = tasksUpTo(2);
    for (const id of ['a', 'b', 'c']) await begin(tasks, 'plain', id);
    const isOver = (id: string) => tasks.isOverCap({ tenantId: 'plain', taskId: `plain-${id}` });
    expect(await Promise.all(['a', 'b', 'c', 'c'].map(isOver))).toEqual([false, false, true, true]);
    await tasks.end({ taskId: 'plain-a', runId: 'run' }, { status: 'completed' }, []);
    expect(await isOver('c')).toBe(false);
  });

  it('is never over the cap when the gateway gave it its place', async () => {
    const tasks = tasksUpTo(2);
    await tasks.queue(taskOf('both', 'a'));
    await tasks.queue(taskOf('both', 'b'));
    for (const id of ['p', 'q']) await begin(tasks, 'both', id);
    await begin(tasks, 'both', 'b');
    expect(await tasks.isOverCap({ tenantId: 'both', taskId: 'both-b' })).toBe(false);
    expect(await tasks.isOverCap({ tenantId: 'both', taskId: 'both-p' })).toBe(true);
  });
});
