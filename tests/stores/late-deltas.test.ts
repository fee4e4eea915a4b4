// Streamed text that arrives behind the end of its call: its trip to Redis was given up, and went on all the same.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { delta, eventsStage } from './events-stage.ts';

let test: TestStores;
beforeAll(async () => {
  test = await openTestStores();
});
afterAll(() => test[Symbol.asyncDispose]());

const { begin, write, publish, ring } = eventsStage(() => test);
const { attemptKey, callKey, stepId } = delta(0);
const COMPLETED = {
  id: 'completed',
  type: 'call_completed',
  stepId,
  callKey,
  attempt: attemptKey,
  data: { textBytes: 4 },
} as const;

describe('text that comes when its call is complete', () => {
  it('is refused, so that nothing stands behind the whole answer', async () => {
    const task = await begin();
    await test.stores.events.publishDelta(task, delta(0));
    await write(task, [COMPLETED]);
    await publish(task);
    expect(await test.stores.events.publishDeltas(task, [delta(1), delta(2)])).toEqual([false, false]);
    expect((await ring(task)).map(({ type }) => type)).toEqual(['call_delta', 'call_completed']);
    expect((await test.stores.events.callTexts(task.taskId)).map(({ text }) => text)).toEqual(['t0']);
  });

  it('is refused also where Redis knows nothing of its attempt', async () => {
    const task = await begin();
    await write(task, [COMPLETED]);
    await publish(task);
    expect(await test.stores.events.publishDelta(task, delta(0))).toBe(false);
    expect(await ring(task)).toMatchObject([{ type: 'call_completed', textLost: true }]);
  });

  it('leaves other calls of the task alone', async () => {
    const task = await begin();
    await write(task, [COMPLETED]);
    await publish(task);
    expect(await test.stores.events.publishDelta(task, delta(0, 'x', 1, 'other'))).toBe(true);
  });
});
