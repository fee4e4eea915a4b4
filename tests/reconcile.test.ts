import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { reconcile } from '../src/reconcile.ts';
import { parseTaskInput } from '../src/task/input.ts';
import { openTestStores, type TestStores } from './support/stores.ts';

let test: TestStores;
beforeAll(async () => {
  test = await openTestStores();
});
afterAll(() => test[Symbol.asyncDispose]());

describe('a task that Temporal knows nothing of', () => {
  it('is told to its end, and again when its id was used again', async () => {
    for (let n = 0; n < 2; n += 1) {
      await queue('never');
      expect(await reconcile(test.stores, async () => undefined, 60_000)).toBe(1);
      const told = await test.stores.events.ring('never', undefined, 10);
      expect(told.map(({ type }) => type)).toEqual(['task_failed', 'stream_end']);
      expect(told[0]?.epoch).toBe(n + 1);
    }
    const { rows } = await test.postgres.query("select id from events where type = 'stream_end'");
    expect(rows).toHaveLength(2);
  });
});

/** A task that was accepted an hour ago. */
async function queue(taskId: string): Promise<void> {
  const parsed = parseTaskInput({ userId: 'ada', query: 'why' });
  if (parsed.kind === 'invalid') throw new Error('the input of the test is invalid');
  const task = {
    taskId,
    runId: undefined,
    input: parsed.input,
    strategy: 'simple',
    model: 'a/b',
    limits: [],
  };
  expect(await test.stores.tasks.queue(task)).toBe('queued');
  await test.postgres.query("update tasks set created_at = now() - interval '1 hour' where task_id = $1", [
    taskId,
  ]);
}
