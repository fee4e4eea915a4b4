import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEvents } from '../../src/stores/events.ts';
import { eventKeys } from '../../src/stores/keys.ts';
import type { EventType } from '../../src/task/event.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { CAPACITY, delta, END, eventsStage, step, steps } from './events-stage.ts';

let test: TestStores;
let published: EventType[] = [];
const { begin, write, publish, ring, persist, rows, rowsNow, lose } = eventsStage(() => test);

beforeAll(async () => {
  test = await openTestStores({
    persists: false,
    events: { ringCapacity: CAPACITY, onPublished: (type) => void published.push(type) },
  });
});

afterAll(() => test[Symbol.asyncDispose]());

describe('publishPending', () => {
  it('makes milestones visible in the order in which they were written, numbered without a gap', async () => {
    const task = await begin();
    await write(task, [
      { id: 'a', type: 'task_started', message: 'why', data: { strategy: 'simple' } },
      step('b'),
    ]);
    await write(task, [step('c')]);
    expect(await ring(task)).toEqual([]);
    expect(await publish(task)).toBe(3);
    const events = await ring(task);
    expect(events.map((event) => [event.epoch, event.seq, event.type, event.stepId])).toEqual([
      [1, 1, 'task_started', undefined],
      [1, 2, 'step_started', 'b'],
      [1, 3, 'step_started', 'c'],
    ]);
    expect(events[0]).toMatchObject({
      taskId: task.taskId,
      message: 'why',
      data: { strategy: 'simple' },
      at: expect.stringMatching(/Z$/),
    });
    expect((await rowsNow(task)).map((row) => row.seq)).toEqual([null, null, null]);
    expect(await rows(task)).toEqual([1, 2, 3].map((seq) => ({ id: 'abc'[seq - 1], seq, epoch: 1 })));
    expect(await test.stores.events.stored(task.taskId, 0, 100)).toEqual(events);
    expect(await test.stores.events.head(task.taskId)).toEqual({ epoch: 1, seq: 3, ended: false });
  });

  it('publishes nothing twice when it is repeated, and tells of each event once', async () => {
    const task = await begin();
    published = [];
    await write(task, steps(3));
    expect(await publish(task)).toBe(3);
    expect(await publish(task)).toBe(0);
    await persist();
    expect(await publish(task)).toBe(0);
    expect((await ring(task)).map((event) => event.seq)).toEqual([1, 2, 3]);
    expect((await rows(task)).map((row) => row.seq)).toEqual([1, 2, 3]);
    expect(published).toHaveLength(3);
  });

  it('is safe when many publish the same task at once', async () => {
    const task = await begin();
    published = [];
    await write(task, steps(30));
    await Promise.all(Array.from({ length: 20 }, () => publish(task)));
    expect((await ring(task)).map((event) => event.stepId)).toEqual(steps(30).map((event) => event.stepId));
    expect((await rows(task)).map((row) => row.seq)).toEqual(Array.from({ length: 30 }, (_, n) => n + 1));
    expect(published).toHaveLength(30);
  });

  it('numbers without a gap what many writers add while they publish', async () => {
    const task = await begin();
    await Promise.all(
      Array.from({ length: 40 }, (_, n) =>
        n % 2 === 0
          ? test.stores.events.append(task, [step(`w${n}`)])
          : test.stores.events.publishDelta(task, delta(0, 'x', 1, `call-${n}`)),
      ),
    );
    await publish(task);
    await persist();
    const events = await ring(task);
    expect(events.map((event) => event.seq)).toEqual(Array.from({ length: 40 }, (_, n) => n + 1));
    const milestones = events.filter((event) => event.type !== 'call_delta');
    expect(await test.stores.events.stored(task.taskId, 0, 100)).toEqual(milestones);
    expect(new Set(milestones.map((event) => event.stepId)).size).toBe(20);
  });

  it('takes a draft with an id that was there for a repetition', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('same')]);
    await test.stores.events.append(task, [{ ...step('same'), stepId: 'other' }, step('next')]);
    expect((await ring(task)).map((event) => event.stepId)).toEqual(['same', 'next']);
  });

  it('cleans what an event says, and leaves whom it speaks of as it is, whatever that looks like', async () => {
    const task = await begin('run-1', 'sk-learn-experiment-42');
    const callKey = `${task.taskId}:run-1:answer:1`;
    const ids = { callKey, attempt: `${callKey}#0.1.1.0`, stepId: 'answer' };
    const secret = 'sk-0123456789abcdefgh';
    await test.stores.events.append(task, [
      { id: 'a', type: 'call_started', ...ids, message: `with ${secret}`, data: { text: secret } },
    ]);
    expect(await ring(task)).toMatchObject([
      { ...ids, message: 'with [redacted]', data: { text: '[redacted]' } },
    ]);
  });

  it('gives epoch -1 to events of a task that has no row, and does not ask for them again', async () => {
    const task = { taskId: 'no-row', runId: 'run-1', tenantId: 'default' };
    await test.stores.events.append(task, [step('a')]);
    expect(await rows(task)).toEqual([{ id: 'a', seq: null, epoch: -1 }]);
    expect(await publish(task)).toBe(0);
  });
});

describe('the end of a run', () => {
  it('refuses every event after stream_end', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a'), END]);
    expect(await test.stores.events.head(task.taskId)).toEqual({ epoch: 1, seq: 2, ended: true });
    await test.stores.events.append(task, [step('late')]);
    expect(await test.stores.events.publishDelta(task, delta(0))).toBe(false);
    expect(await rows(task)).toEqual([
      { id: 'a', seq: 1, epoch: 1 },
      { id: 'end', seq: 2, epoch: 1 },
      { id: 'late', seq: null, epoch: -1 },
    ]);
    expect(await ring(task)).toHaveLength(2);
    expect(await test.stores.events.sweep(0)).toBe(0);
  });

  it('is remembered after Redis has forgotten the task', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a'), END]);
    await persist();
    await lose(task);
    await test.stores.events.append(task, [step('late')]);
    expect(await test.stores.events.publishDelta(task, delta(0))).toBe(false);
    expect(await rows(task)).toContainEqual({ id: 'late', seq: null, epoch: -1 });
    expect(await ring(task)).toEqual([]);
    expect(await test.stores.events.head(task.taskId)).toMatchObject({ ended: true });
  });

  it('keeps the ring for a day while the task runs and for ten minutes after', async () => {
    const task = await begin();
    const keys = eventKeys(test.prefix, task.taskId);
    const ttls = () =>
      test.redis.command((client) => Promise.all([client.pttl(keys.ring), client.pttl(keys.meta)]));
    await test.stores.events.append(task, [step('a')]);
    for (const ttl of await ttls()) expect(Math.abs(ttl - 86_400_000)).toBeLessThan(60_000);
    await test.stores.events.append(task, [END]);
    for (const ttl of await ttls()) expect(Math.abs(ttl - 600_000)).toBeLessThan(60_000);
  });

  it('shuts out the run before once another one of the task has begun', async () => {
    const task = await begin('run-1');
    await test.stores.events.append(task, [step('old'), END]);
    await write(task, [step('old-late')]);
    const next = await begin('run-2', task.taskId);
    await test.stores.events.append(next, [step('new')]);
    expect(await test.stores.events.head(task.taskId)).toEqual({ epoch: 2, seq: 3, ended: false });
    await publish(task);
    expect(await test.stores.events.publishDelta(task, delta(0))).toBe(false);
    expect((await ring(next)).map((event) => [event.epoch, event.seq, event.stepId])).toEqual([
      [2, 3, 'new'],
    ]);
    expect(await rows(task)).toContainEqual({ id: 'old-late', seq: null, epoch: -1 });
    expect((await test.stores.events.stored(task.taskId, 0, 10)).map((event) => event.seq)).toEqual([
      1, 2, 3,
    ]);
  });
});

describe('publishDelta', () => {
  it('numbers pieces of text among the milestones, keeps them out of Postgres and gathers the text', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a')]);
    expect(await test.stores.events.publishDelta(task, delta(0, 'hello '))).toBe(true);
    expect(await test.stores.events.publishDelta(task, delta(1, 'wörld 😀'))).toBe(true);
    await test.stores.events.append(task, [step('b')]);
    expect((await ring(task)).map((event) => [event.seq, event.type, event.data?.['text']])).toEqual([
      [1, 'step_started', undefined],
      [2, 'call_delta', 'hello '],
      [3, 'call_delta', 'wörld 😀'],
      [4, 'step_started', undefined],
    ]);
    expect((await ring(task))[1]).toMatchObject({
      callKey: 'call',
      attempt: 'call#0.1.1.0',
      stepId: 'answer',
    });
    expect((await rows(task)).map((row) => row.seq)).toEqual([1, 4]);
    expect(await test.stores.events.callTexts(task.taskId)).toEqual([
      { callKey: 'call', attempt: 'call#0.1.1.0', text: 'hello wörld 😀' },
    ]);
  });

  it('shows a piece that comes again only once', async () => {
    const task = await begin();
    for (const k of [0, 1, 1, 0])
      expect(await test.stores.events.publishDelta(task, delta(k, `t${k}`))).toBe(true);
    expect(await ring(task)).toHaveLength(2);
    expect((await test.stores.events.callTexts(task.taskId))[0]?.text).toBe('t0t1');
  });

  it('refuses pieces of an older attempt once a newer one has begun, whose text starts anew', async () => {
    const task = await begin();
    await test.stores.events.publishDelta(task, delta(0, 'old', 1));
    expect(await test.stores.events.publishDelta(task, delta(0, 'new', 2))).toBe(true);
    expect(await test.stores.events.publishDelta(task, delta(1, 'old', 1))).toBe(false);
    expect(await test.stores.events.publishDelta(task, delta(1, 'er', 2))).toBe(true);
    expect(await test.stores.events.callTexts(task.taskId)).toEqual([
      { callKey: 'call', attempt: 'call#0.1.2.0', text: 'newer' },
    ]);
  });

  it('keeps calls apart that stream at the same time', async () => {
    const task = await begin();
    await Promise.all(
      ['x', 'y', 'z'].map(async (call) => {
        for (let k = 0; k < 5; k += 1)
          await test.stores.events.publishDelta(task, delta(k, `${call}${k}`, 1, call));
      }),
    );
    const texts = await test.stores.events.callTexts(task.taskId);
    expect(texts.map(({ callKey, text }) => [callKey, text]).sort()).toEqual(
      ['x', 'y', 'z'].map((call) => [call, [0, 1, 2, 3, 4].map((k) => `${call}${k}`).join('')]),
    );
    expect((await ring(task)).map((event) => event.seq)).toEqual(Array.from({ length: 15 }, (_, n) => n + 1));
  });

  it('cleans what no store takes and bounds the text that it gathers', async () => {
    const task = await begin();
    await test.stores.events.publishDelta(task, delta(0, 'a\u0000b\ud800c'));
    expect((await ring(task))[0]?.data).toEqual({ text: 'ab�c' });
    for (let k = 1; k <= 6; k += 1)
      await test.stores.events.publishDelta(task, delta(k, 'x'.repeat(250_000)));
    expect((await test.stores.events.callTexts(task.taskId))[0]?.text.length).toBeLessThanOrEqual(
      1_048_576 + 250_000,
    );
  });

  it('orders attempts also where their numbers are large', async () => {
    const task = await begin();
    const ofTry = (tries: number) => ({ ...delta(0), attemptKey: `call#0.9000000.9999.${tries}` });
    expect(await test.stores.events.publishDelta(task, ofTry(1))).toBe(true);
    expect(await test.stores.events.publishDelta(task, ofTry(0))).toBe(false);
    expect(await test.stores.events.publishDelta(task, ofTry(2))).toBe(true);
  });
});

describe('the ring', () => {
  it('keeps as many events as it may, the newest, while Postgres keeps every milestone', async () => {
    const task = await begin();
    const events = createEvents(test.postgres, test.redis, { ringCapacity: 5, onPublished: () => undefined });
    for (const one of steps(12)) await events.append(task, [one]);
    expect((await events.ring(task.taskId, undefined, 100)).map((event) => event.seq)).toEqual([
      8, 9, 10, 11, 12,
    ]);
    await persist();
    expect((await events.stored(task.taskId, 0, 100)).map((event) => event.seq)).toEqual(
      steps(12).map((_, n) => n + 1),
    );
    expect((await events.stored(task.taskId, 4, 3)).map((event) => event.seq)).toEqual([5, 6, 7]);
  });

  it('is read after a cursor, a part at a time', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(6));
    const seqs = async (after: { epoch: number; seq: number } | undefined, count: number) =>
      (await test.stores.events.ring(task.taskId, after, count)).map((event) => event.seq);
    expect(await seqs(undefined, 2)).toEqual([1, 2]);
    expect(await seqs({ epoch: 1, seq: 2 }, 3)).toEqual([3, 4, 5]);
    expect(await seqs({ epoch: 1, seq: 6 }, 3)).toEqual([]);
    expect(await seqs({ epoch: 0, seq: 99 }, 1)).toEqual([1]);
  });
});

describe('sweep', () => {
  /** Nothing that an earlier test left. */
  const sweepAll = async () => {
    await test.stores.events.sweep(0);
    await persist();
  };

  it('publishes what its own publisher left behind, once it is old enough', async () => {
    await sweepAll();
    const some = [await begin(), await begin(), await begin()];
    for (const task of some) await write(task, steps(2));
    expect(await test.stores.events.sweep(60_000)).toBe(0);
    await test.postgres.query("update events set at = now() - interval '2 minutes' where task_id = any($1)", [
      some.slice(0, 2).map((task) => task.taskId),
    ]);
    expect(await test.stores.events.sweep(60_000)).toBe(2);
    expect(await Promise.all(some.map(async (task) => (await ring(task)).length))).toEqual([2, 2, 0]);
    await persist();
    expect(await test.stores.events.sweep(60_000)).toBe(0);
    expect(await test.stores.events.sweep(0)).toBe(1);
  });

  it('takes more tasks than it reads at a time', async () => {
    await sweepAll();
    for (let n = 0; n < 210; n += 1) await write(await begin(), [step('a')]);
    expect(await test.stores.events.sweep(0)).toBe(210);
    await persist();
    expect(await test.stores.events.sweep(0)).toBe(0);
  });

  it('writes the number of what was visible already itself, since its entry in the log may be lost', async () => {
    await sweepAll();
    const task = await begin();
    await test.stores.events.append(task, steps(2));
    await test.redis.command((client) => client.del(eventKeys(test.prefix, task.taskId).log));
    await test.stores.events.append(task, [step('next')]);
    expect((await rows(task)).map((row) => row.seq)).toEqual([3, null, null]);
    expect(await test.stores.events.sweep(0)).toBe(1);
    expect((await rowsNow(task)).map((row) => [row.id, row.seq])).toEqual([
      ['e1', 1],
      ['e2', 2],
      ['next', 3],
    ]);
    expect(await ring(task)).toHaveLength(3);
  });

  it('publishes the others where one task cannot be published', async () => {
    const [bad, good] = [await begin(), await begin()];
    for (const task of [bad, good]) await write(task, [step('a')]);
    await test.redis.command((client) => client.set(eventKeys(test.prefix, bad.taskId).meta, 'no hash'));
    await expect(test.stores.events.sweep(0)).rejects.toThrow('1 tasks could not be swept');
    expect(await ring(good)).toHaveLength(1);
    await lose(bad);
    expect(await test.stores.events.sweep(0)).toBeGreaterThan(0);
    expect(await ring(bad)).toHaveLength(1);
  });

  it('comes to the others in the end where a whole page of tasks cannot be published', async () => {
    const bad = await Promise.all(Array.from({ length: 100 }, (_, n) => begin('run-1', `a-${n}`)));
    const good = await begin('run-1', 'b');
    for (const task of [...bad, good]) await write(task, [step('a')]);
    const metas = bad.map(({ taskId }) => eventKeys(test.prefix, taskId).meta);
    for (const meta of metas) await test.redis.command((client) => client.set(meta, 'no hash'));
    await expect(test.stores.events.sweep(0)).rejects.toThrow('100 tasks could not be swept');
    expect(await ring(good)).toEqual([]);
    await test.stores.events.sweep(0);
    expect(await ring(good)).toHaveLength(1);
    for (const task of bad) await lose(task);
    await test.stores.events.sweep(0);
    for (const task of bad) expect(await ring(task)).toHaveLength(1);
  });
});
