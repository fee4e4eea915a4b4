// Events where something goes wrong: Redis loses them, publishers are held up, payloads are hostile.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEvents } from '../../src/stores/events.ts';
import { eventKeys } from '../../src/stores/keys.ts';
import type { Postgres } from '../../src/stores/postgres.ts';
import type { EventDraft } from '../../src/task/event.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { CAPACITY, delta, eventsStage, step, steps } from './events-stage.ts';

let test: TestStores;
const { begin, write, publish, ring, rows, lose } = eventsStage(() => test);

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

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
