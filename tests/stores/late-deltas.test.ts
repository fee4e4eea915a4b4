// Streamed text that arrives when its attempt is over: its trip to Redis was given up and went on all the same, or its worker was frozen.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EventDraft, TaskEvent } from '../../src/task/event.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { delta, eventsStage, step } from './events-stage.ts';

let test: TestStores;
beforeAll(async () => {
  test = await openTestStores({ persists: false });
});
afterAll(() => test[Symbol.asyncDispose]());

const { begin, write, publish, ring, persist, lose } = eventsStage(() => test);
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

  it('is refused also in an epoch that began after it', async () => {
    const task = await begin();
    await test.stores.events.publishDelta(task, delta(0));
    await test.stores.events.append(task, [COMPLETED]);
    await persist();
    await lose(task, callKey);
    await test.stores.events.append(task, [step('next')]);
    expect(await test.stores.events.publishDelta(task, delta(1))).toBe(false);
  });

  it('leaves other calls of the task alone', async () => {
    const task = await begin();
    await write(task, [COMPLETED]);
    await publish(task);
    expect(await test.stores.events.publishDelta(task, delta(0, 'x', 1, 'other'))).toBe(true);
  });
});

describe('text of an attempt', () => {
  const told = (type: 'call_started' | 'attempt_reset', attempt: number): EventDraft => ({
    ...{ id: `${type}-${attempt}`, type, stepId, callKey, attempt: `call#0.1.${attempt}.0` },
  });

  it('is refused once the beginning of a newer one was told, which has written nothing yet', async () => {
    const task = await begin();
    await test.stores.events.append(task, [told('call_started', 1)]);
    await test.stores.events.publishDelta(task, delta(0, 'old ', 1));
    await test.stores.events.append(task, [told('call_started', 2)]);
    expect(await test.stores.events.publishDelta(task, delta(1, 'late ', 1))).toBe(false);
    expect(await test.stores.events.callTexts(task.taskId)).toMatchObject([{ text: '' }]);
    expect(await test.stores.events.publishDelta(task, delta(0, 'new', 2))).toBe(true);
    expect(textIn(await ring(task))).toBe('old new');
    expect(await test.stores.events.callTexts(task.taskId)).toMatchObject([
      { attempt: 'call#0.1.2.0', text: 'new' },
    ]);
  });

  it('is refused once it was declared void; that of the next one is not', async () => {
    const task = await begin();
    await test.stores.events.append(task, [told('call_started', 1)]);
    await test.stores.events.publishDelta(task, delta(0, 'old', 1));
    await test.stores.events.append(task, [told('attempt_reset', 1)]);
    expect(await test.stores.events.publishDelta(task, delta(1, 'late', 1))).toBe(false);
    expect(await test.stores.events.callTexts(task.taskId)).toMatchObject([{ text: '' }]);
    const next = { ...delta(0, 'new'), attemptKey: 'call#0.1.1.1' };
    expect(await test.stores.events.publishDelta(task, next)).toBe(true);
  });

  it('is void for readers that hear of it when the next one is writing: its text stays', async () => {
    const task = await begin();
    await test.stores.events.append(task, [told('call_started', 2)]);
    await test.stores.events.publishDelta(task, delta(0, 'new', 2));
    await test.stores.events.append(task, [told('attempt_reset', 1)]);
    expect(await test.stores.events.publishDelta(task, delta(1, 'er', 2))).toBe(true);
    expect(await test.stores.events.callTexts(task.taskId)).toMatchObject([{ text: 'newer' }]);
  });

  it('may come before its beginning is told, where a store was slow', async () => {
    const task = await begin();
    await test.stores.events.publishDelta(task, delta(0, 'te'));
    await test.stores.events.append(task, [told('call_started', 1)]);
    expect(await test.stores.events.publishDelta(task, delta(1, 'xt'))).toBe(true);
    await test.stores.events.append(task, [COMPLETED]);
    expect((await ring(task)).at(-1)).not.toHaveProperty('textLost');
  });

  it('goes on in an epoch that began meanwhile, and that of the attempt before is refused there', async () => {
    const task = await begin();
    await test.stores.events.append(task, [told('call_started', 1), told('call_started', 2)]);
    await test.stores.events.publishDelta(task, delta(0, 'lost ', 2));
    await persist();
    await lose(task);
    await test.stores.events.append(task, [step('next')]);
    expect(await test.stores.events.publishDelta(task, delta(4, 'late', 1))).toBe(false);
    expect(await test.stores.events.publishDelta(task, delta(1, 'rest', 2))).toBe(true);
    expect(await test.stores.events.callTexts(task.taskId)).toMatchObject([{ text: 'rest' }]);
  });
});

function textIn(events: readonly TaskEvent[]): string {
  return events.map((event) => event.data?.['text'] ?? '').join('');
}
