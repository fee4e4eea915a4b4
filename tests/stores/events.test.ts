import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEvents, type Delta } from '../../src/stores/events.ts';
import { eventKeys } from '../../src/stores/keys.ts';
import { writeMilestones } from '../../src/stores/milestones.ts';
import type { Postgres } from '../../src/stores/postgres.ts';
import type { EventDraft, EventType, TaskEvent } from '../../src/task/event.ts';
import { parseTaskInput } from '../../src/task/input.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const CAPACITY = 512;

let test: TestStores;
let published: EventType[] = [];
let tasks = 0;

/** A task of its own that has begun. */
async function begin(runId = 'run-1', known?: string) {
  tasks += 1;
  const taskId = known ?? `task-${tasks}`;
  const parsed = parseTaskInput({ userId: 'ada', query: 'why' });
  if (parsed.kind === 'invalid') throw new Error('the input of the test is invalid');
  await test.stores.tasks.begin(
    { taskId, runId, input: parsed.input, strategy: 'simple', model: 'a/b', limits: [] },
    [],
  );
  return { taskId, runId, tenantId: 'default' };
}

type Task = Awaited<ReturnType<typeof begin>>;

const step = (id: string): EventDraft => ({ id, type: 'step_started', stepId: id });
const steps = (count: number, prefix = 'e'): EventDraft[] =>
  Array.from({ length: count }, (_, n) => step(`${prefix}${n + 1}`));
const END: EventDraft = { id: 'end', type: 'stream_end' };
const write = (task: Task, events: readonly EventDraft[]) => writeMilestones(test.postgres, task, events);
const publish = (task: Task) => test.stores.events.publishPending(task);

/** A piece of the call's only attempt, unless it says another. */
function delta(k: number, text = `t${k}`, attempt = 1, call = 'call'): Delta {
  return { callKey: call, stepId: 'answer', attemptKey: `${call}#0.1.${attempt}.0`, order: attempt, k, text };
}

async function ring(task: Task): Promise<readonly TaskEvent[]> {
  return test.stores.events.ring(task.taskId, undefined, 1_000);
}

/** The rows of a task's milestones: what has a number in its order, then the rest. */
async function rows(task: Task) {
  const { rows: found } = await test.postgres.query<{ id: string; seq: bigint | null; epoch: number | null }>(
    'select id, seq, epoch from events where task_id = $1 order by seq nulls last, ordinal',
    [task.taskId],
  );
  return found.map((row) => ({ ...row, seq: row.seq === null ? null : Number(row.seq) }));
}

/** Redis as it is after a flush, for one task. */
async function lose(task: Task, ...calls: string[]): Promise<void> {
  const keys = eventKeys(test.prefix, task.taskId);
  await test.redis.command((client) =>
    client.del(keys.ring, keys.meta, ...calls.map((call) => keys.text(call))),
  );
}

beforeAll(async () => {
  test = await openTestStores({
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
    expect(await rows(task)).toEqual([1, 2, 3].map((seq) => ({ id: 'abc'[seq - 1], seq, epoch: 1 })));
    expect(await test.stores.events.stored(task.taskId, 0, 100)).toEqual(events);
    expect(await test.stores.events.head(task.taskId)).toEqual({ epoch: 1, seq: 3, ended: false });
  });

  it('publishes nothing twice when it is repeated, and tells of each event once', async () => {
    const task = await begin();
    published = [];
    await write(task, steps(3));
    await publish(task);
    expect(await publish(task)).toBe(0);
    // As after a crash between publishing and writing the numbers back.
    await test.postgres.query('update events set seq = null, epoch = null where task_id = $1', [task.taskId]);
    expect(await publish(task)).toBe(3);
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

  it('refuses a piece that was there, and an older one that comes late', async () => {
    const task = await begin();
    for (const k of [0, 1]) expect(await test.stores.events.publishDelta(task, delta(k))).toBe(true);
    for (const k of [1, 0]) expect(await test.stores.events.publishDelta(task, delta(k))).toBe(false);
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
    const order = 9_000_000 * 10_000 * 10_000;
    expect(await test.stores.events.publishDelta(task, { ...delta(0), order: order + 1 })).toBe(true);
    expect(await test.stores.events.publishDelta(task, { ...delta(0), order })).toBe(false);
    expect(await test.stores.events.publishDelta(task, { ...delta(0), order: order + 2 })).toBe(true);
  });
});

describe('the ring', () => {
  it('keeps as many events as it may, the newest, while Postgres keeps every milestone', async () => {
    const task = await begin();
    const events = createEvents(test.postgres, test.redis, { ringCapacity: 5, onPublished: () => undefined });
    await events.append(task, steps(12));
    expect((await events.ring(task.taskId, undefined, 100)).map((event) => event.seq)).toEqual([
      8, 9, 10, 11, 12,
    ]);
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

  it('wakes a reader that waits, and answers nothing when nothing comes', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a')]);
    const reader = test.stores.events.openReader(task.taskId);
    try {
      expect((await reader.read({ epoch: 0, seq: 0 }, 10)).map((event) => event.seq)).toEqual([1]);
      expect(await reader.read({ epoch: 1, seq: 1 }, 20)).toEqual([]);
      const waiting = reader.read({ epoch: 1, seq: 1 }, 10_000);
      await test.stores.events.append(task, [step('b')]);
      expect((await waiting).map((event) => event.stepId)).toEqual(['b']);
    } finally {
      reader.close();
    }
  });
});

describe('a Redis that lost a task', () => {
  it('begins another epoch and goes on from the highest stored number', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(3));
    await test.stores.events.publishDelta(task, delta(0));
    await lose(task, 'call');
    expect(await test.stores.events.head(task.taskId)).toBeUndefined();
    await test.stores.events.append(task, [step('next')]);
    expect((await ring(task)).map((event) => [event.epoch, event.seq, event.stepId])).toEqual([
      [2, 4, 'next'],
    ]);
    expect((await rows(task)).map((row) => row.seq)).toEqual([1, 2, 3, 4]);
  });

  it('is not trusted when it is another server with an old snapshot', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(3));
    const { meta } = eventKeys(test.prefix, task.taskId);
    await test.redis.command((client) => client.hset(meta, { server: 'another', seq: '1' }));
    expect(await test.stores.events.head(task.taskId)).toBeUndefined();
    await test.stores.events.append(task, [step('next')]);
    expect((await ring(task)).map((event) => [event.epoch, event.seq])).toEqual([[2, 4]]);
    expect((await rows(task)).map((row) => row.seq)).toEqual([1, 2, 3, 4]);
  });

  it('publishes again what was visible and not written back, and loses nothing', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(2));
    await write(task, [step('open')]);
    await publish(task);
    await test.postgres.query(
      "update events set seq = null, epoch = null where task_id = $1 and id = 'open'",
      [task.taskId],
    );
    await lose(task);
    await test.stores.events.append(task, [step('next')]);
    expect((await ring(task)).map((event) => [event.epoch, event.seq, event.stepId])).toEqual([
      [2, 3, 'open'],
      [2, 4, 'next'],
    ]);
    expect((await rows(task)).map((row) => [row.id, row.seq])).toEqual([
      ['e1', 1],
      ['e2', 2],
      ['open', 3],
      ['next', 4],
    ]);
  });

  it.each(['older', 'newer'])(
    'settles a number that two epochs gave, where the %s is written back first',
    async (first) => {
      const task = await begin();
      await test.stores.events.append(task, steps(2));
      // A publisher that is held up between its script and its write-back, while Redis is lost and another one goes on.
      const slow = delayedWriteBack(test.postgres);
      const events = createEvents(slow.postgres, test.redis, {
        ringCapacity: CAPACITY,
        onPublished: () => undefined,
      });
      await write(task, [step('slow')]);
      const held = events.publishPending(task);
      await slow.reached;
      await lose(task);
      // The other publisher must not take the first one's event along: as if it had looked a moment before.
      await test.postgres.query("update events set epoch = -2 where task_id = $1 and id = 'slow'", [
        task.taskId,
      ]);
      if (first === 'older') {
        const other = delayedWriteBack(test.postgres);
        const quick = createEvents(other.postgres, test.redis, {
          ringCapacity: CAPACITY,
          onPublished: () => undefined,
        });
        await write(task, [step('quick')]);
        const waiting = quick.publishPending(task);
        await other.reached;
        await test.postgres.query("update events set epoch = null where task_id = $1 and id = 'slow'", [
          task.taskId,
        ]);
        slow.go();
        await held;
        other.go();
        await waiting;
      } else {
        await test.stores.events.append(task, [step('quick')]);
        await test.postgres.query("update events set epoch = null where task_id = $1 and id = 'slow'", [
          task.taskId,
        ]);
        slow.go();
        await held;
      }
      await test.stores.events.sweep(0);
      expect(await rows(task)).toEqual([
        { id: 'e1', seq: 1, epoch: 1 },
        { id: 'e2', seq: 2, epoch: 1 },
        { id: 'quick', seq: 3, epoch: 2 },
        { id: 'slow', seq: 4, epoch: 2 },
      ]);
      expect((await ring(task)).map((event) => [event.seq, event.stepId])).toEqual([
        [3, 'quick'],
        [4, 'slow'],
      ]);
      expect(await test.stores.events.sweep(0)).toBe(0);
    },
  );

  it('neither loses nor doubles a milestone while it is lost again and again', async () => {
    const task = await begin();
    const all = Array.from({ length: 60 }, (_, n) => `m${n}`);
    await Promise.all(
      [0, 1, 2].map(async (lane) => {
        for (let n = lane; n < all.length; n += 3) {
          await test.stores.events.append(task, [step(`m${n}`)]);
          await test.stores.events.publishDelta(task, delta(n, `d${n}`, 1, `lane-${lane}`));
          if (n % 7 === 0) await lose(task, `lane-${lane}`);
        }
      }),
    );
    while ((await test.stores.events.sweep(0)) > 0) await publish(task);
    const found = await rows(task);
    expect(found.map((row) => row.id).sort()).toEqual([...all].sort());
    expect(found.filter((row) => row.seq === null)).toEqual([]);
    const stored = await test.stores.events.stored(task.taskId, 0, 1_000);
    expect(stored.map((event) => event.seq)).toEqual(
      [...new Set(stored.map((event) => event.seq))].sort((left, right) => left - right),
    );
    const visible = (await ring(task)).map(
      (event) => `${event.type} ${event.stepId} ${event.data?.['text'] ?? ''}`,
    );
    expect(new Set(visible).size).toBe(visible.length);
  });
});

describe('sweep', () => {
  it('publishes what its own publisher left behind, once it is old enough', async () => {
    const some = [await begin(), await begin(), await begin()];
    for (const task of some) await write(task, steps(2));
    expect(await test.stores.events.sweep(60_000)).toBe(0);
    await test.postgres.query("update events set at = now() - interval '2 minutes' where task_id = any($1)", [
      some.slice(0, 2).map((task) => task.taskId),
    ]);
    expect(await test.stores.events.sweep(60_000)).toBe(2);
    expect(await Promise.all(some.map(async (task) => (await ring(task)).length))).toEqual([2, 2, 0]);
    expect(await test.stores.events.sweep(60_000)).toBe(0);
    expect(await test.stores.events.sweep(0)).toBe(1);
  });

  it('takes many tasks in several passes', async () => {
    for (let n = 0; n < 110; n += 1) await write(await begin(), [step('a')]);
    expect(await test.stores.events.sweep(0)).toBe(100);
    expect(await test.stores.events.sweep(0)).toBe(10);
    expect(await test.stores.events.sweep(0)).toBe(0);
  });
});

describe('hostile payloads', () => {
  const deep: unknown = JSON.parse(`${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`);

  it.each<[string, unknown, unknown]>([
    ['a NUL', { text: 'a\u0000b', 'k\u0000': 1 }, { text: 'ab', k: 1 }],
    ['lone surrogates', { text: '\ud800', '\udc00': 1 }, { text: '�', '�': 1 }],
    ['an escape of a NUL as text', { text: '\\u0000' }, { text: '\\u0000' }],
    ['base64', { image: 'QUJD'.repeat(1_000) }, { image: '[base64]' }],
    [
      'secrets',
      { apiKey: 'x', note: 'key sk-abcdefghijklmnop1234' },
      { apiKey: '[redacted]', note: 'key [redacted]' },
    ],
    [
      'numbers that JSON has not',
      { nan: Number.NaN, far: Number.POSITIVE_INFINITY, big: 1e308 },
      { nan: null, far: null, big: 1e308 },
    ],
    ['big integers', { nano: 12_345_678_901_234_567_890n }, { nano: '12345678901234567890' }],
    ['a hundred thousand levels', { deep }, { deep: { a: { a: { a: { a: { a: { a: '[too deep]' } } } } } } }],
    ['dangerous names', JSON.parse('{"constructor":1,"toString":2}'), { constructor: 1, toString: 2 }],
    ['quotes and Lua', { text: `"'\\]]--[[ {} %s \u2028` }, { text: `"'\\]]--[[ {} %s \u2028` }],
    ['empty objects and lists', { list: [], object: {} }, { list: [], object: {} }],
  ])('of %s blocks no batch and comes out safe', async (_title, data, safe) => {
    const task = await begin();
    const hostile: EventDraft = { id: 'b', type: 'tool_completed', data: data as Record<string, unknown> };
    await test.stores.events.append(task, [step('a'), hostile, step('c')]);
    const events = await ring(task);
    expect(events.map((event) => event.seq)).toEqual([1, 2, 3]);
    expect(events[1]?.data).toEqual(safe);
    expect(await test.stores.events.stored(task.taskId, 0, 10)).toEqual(events);
  });
});

/** A connection whose first write of numbers waits until `go`. */
function delayedWriteBack(inner: Postgres) {
  const reached = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  let isFirst = true;
  const query: Postgres['query'] = async (text, values) => {
    if (isFirst && text.startsWith('update events as e')) {
      isFirst = false;
      reached.resolve();
      await gate.promise;
    }
    return inner.query(text, values);
  };
  return { postgres: { ...inner, query }, reached: reached.promise, go: gate.resolve };
}
