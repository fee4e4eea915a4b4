// Streamed text on its way to Redis, with a Redis that the test answers for: what waits, what is dropped, and that nothing comes twice
// or after a hole.

import { setImmediate } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { BreakerOpen } from '../../src/calls/breaker.ts';
import { createDeltaRoom, type DeltaRoom } from '../../src/calls/delta-room.ts';
import { createDeltaBatcher } from '../../src/calls/deltas.ts';
import type { Delta } from '../../src/stores/publish-events.ts';
import { eventually } from '../support/eventually.ts';
import { QUIET } from '../support/stores.ts';

type Trip = readonly Delta[];

const VISIBLE = (trip: Trip) => trip.map(() => true);

/** A batcher whose trips to Redis the test answers, one after the other. */
function batcher({
  answer = VISIBLE,
  settings = {},
  room = createDeltaRoom(),
  taskId = 'task',
  begun = Promise.resolve(),
}: {
  answer?: (trip: Trip, n: number) => readonly boolean[] | Promise<readonly boolean[]>;
  settings?: { deltaIntervalMs?: number; deltaBytes?: number; deltaFlushMs?: number };
  room?: DeltaRoom;
  taskId?: string;
  begun?: Promise<void>;
} = {}) {
  const trips: Trip[] = [];
  const dropped: Record<string, number> = {};
  const task = { taskId, runId: 'run', tenantId: 'tenant' };
  const made = createDeltaBatcher(
    {
      events: {
        publishDeltas: async (_task, trip) => {
          trips.push(trip);
          return answer(trip, trips.length);
        },
      },
      deltaRoom: room,
      settings: { deltaIntervalMs: 5, deltaBytes: 100, deltaFlushMs: 1_000, ...settings },
      meter: {
        deltaDropped: (reason, pieces) => {
          dropped[reason] = (dropped[reason] ?? 0) + pieces;
        },
      },
      log: QUIET,
    },
    { attemptKey: 'call#0.1.1.0', callKey: 'call', stepId: 'answer' },
    { task, begun },
  );
  const text = () => trips.flatMap((trip) => trip.map((delta) => delta.text)).join('');
  return { ...bound(made), trips, dropped, room, text };
}

function bound(made: ReturnType<typeof createDeltaBatcher>) {
  return { push: (text: string) => made.push(text), flush: () => made.flush() };
}

const AWAY = () => Promise.reject(new Error('connection refused'));

describe('while Redis answers', () => {
  test('pieces that come together are one event, and each event has the next number', async () => {
    const { push, flush, trips } = batcher();
    for (const piece of ['a', 'b', 'c']) push(piece);
    await eventually(() => expect(trips).toHaveLength(1));
    push('d');
    await flush();
    expect(trips.flat().map(({ k, text }) => [k, text])).toEqual([
      [0, 'abc'],
      [1, 'd'],
    ]);
  });

  test('a full batch does not wait for its time', async () => {
    const { push, trips } = batcher({ settings: { deltaIntervalMs: 60_000, deltaBytes: 10 } });
    push('0123456789');
    await eventually(() => expect(trips).toHaveLength(1));
  });

  test('what came during a slow trip goes in one next trip, several events at once', async () => {
    const first = Promise.withResolvers<void>();
    const { push, flush, trips } = batcher({
      answer: async (trip, n) => {
        if (n === 1) await first.promise;
        return VISIBLE(trip);
      },
    });
    push('x'.repeat(100));
    await eventually(() => expect(trips).toHaveLength(1));
    for (let n = 0; n < 5; n += 1) push(`${n}`.repeat(100));
    first.resolve();
    await flush();
    expect(trips.map((trip) => trip.map(({ k }) => k))).toEqual([[0], [1, 2, 3, 4, 5]]);
  });

  test('no trip is longer than Redis may be held up', async () => {
    const first = Promise.withResolvers<void>();
    const { push, flush, trips, text } = batcher({
      answer: async (trip, n) => {
        if (n === 1) await first.promise;
        return VISIBLE(trip);
      },
    });
    push('-'.repeat(100));
    await eventually(() => expect(trips).toHaveLength(1));
    for (let n = 0; n < 200; n += 1) push('x'.repeat(100));
    for (let n = 0; n < 4; n += 1) push('y'.repeat(150_000));
    first.resolve();
    await flush();
    expect(Math.max(...trips.map((trip) => trip.length))).toBe(64);
    for (const trip of trips.filter((one) => one.length > 1))
      expect(trip.reduce((sum, { text: part }) => sum + part.length, 0)).toBeLessThanOrEqual(262_144);
    expect(text()).toBe('-'.repeat(100) + 'x'.repeat(20_000) + 'y'.repeat(600_000));
    expect(trips.flat().map(({ k }) => k)).toEqual(trips.flat().map((_, index) => index));
  });

  test('a character that comes in two halves is not torn', async () => {
    const { push, flush, trips, text } = batcher();
    push('a\ud83c');
    await eventually(() => expect(trips).toHaveLength(1));
    push('\udf0ab');
    await flush();
    expect(text()).toBe('a🌊b'.replace('🌊', '\ud83c\udf0a'));
    expect(text().isWellFormed()).toBe(true);
  });

  test('a half that stays alone is told at the end', async () => {
    const { push, flush, text } = batcher();
    push('a\ud83c');
    await flush();
    expect(text()).toBe('a\ud83c');
  });

  test('nothing is sent where nothing was streamed', async () => {
    const { flush, trips } = batcher();
    await flush();
    expect(trips).toEqual([]);
  });

  test('what is out gives its room back', async () => {
    const { push, flush, room } = batcher();
    push('some text');
    expect(room.heldBytes()).toBe(9);
    await flush();
    expect(room.heldBytes()).toBe(0);
  });
});

describe('while Redis does not answer', () => {
  test('a trip that failed is made again with the same numbers and texts, and later text comes behind', async () => {
    const { push, flush, trips } = batcher({ answer: (trip, n) => (n < 3 ? AWAY() : VISIBLE(trip)) });
    push('one');
    await eventually(() => expect(trips).toHaveLength(1));
    push('two');
    await flush();
    expect(trips.slice(0, 2).map((trip) => trip[0])).toEqual([trips[2]?.[0], trips[2]?.[0]]);
    const last = trips.at(-1) ?? [];
    expect(last.map(({ k, text }) => [k, text])).toEqual([
      [0, 'one'],
      [1, 'two'],
    ]);
  });

  test('small pieces share batches, so that little waits in many', async () => {
    const { push, trips, room, dropped } = batcher({ answer: AWAY, settings: { deltaBytes: 2_048 } });
    push('first');
    await eventually(() => expect(trips.length).toBeGreaterThan(0));
    for (let n = 0; n < 100_000; n += 1) push('12345');
    expect(dropped).toEqual({});
    expect(room.heldBytes()).toBe(500_005);
  });

  test('a task keeps a megabyte, and of what is beyond the rest of the attempt is dropped, not a piece in the middle', async () => {
    let isAway = true;
    const { push, flush, text, dropped, room } = batcher({
      answer: (trip) => (isAway ? AWAY() : VISIBLE(trip)),
      settings: { deltaBytes: 2_048, deltaFlushMs: 10_000 },
    });
    const piece = 'x'.repeat(1_000);
    for (let n = 0; n < 1_000; n += 1) push(piece);
    expect(room.heldBytes()).toBe(1_000_000);
    push('one too many');
    push('y');
    isAway = false;
    await flush();
    push('late');
    expect(text().replaceAll('x', '')).toBe('');
    expect(dropped).toEqual({ full: 3 });
    expect(room.heldBytes()).toBe(0);
  });

  test('a task keeps a thousand batches', async () => {
    const { push, dropped } = batcher({ answer: AWAY, settings: { deltaBytes: 1 } });
    for (let n = 0; n < 1_001; n += 1) push('x');
    expect(dropped).toEqual({ full: 1 });
  });

  test('two calls of a task share its room, and another task has its own', async () => {
    const room = createDeltaRoom();
    const [one, two, other] = [
      batcher({ answer: AWAY, room }),
      batcher({ answer: AWAY, room }),
      batcher({ answer: AWAY, room, taskId: 'other' }),
    ];
    one.push('x'.repeat(700_000));
    two.push('x'.repeat(700_000));
    other.push('x'.repeat(700_000));
    expect([one.dropped, two.dropped, other.dropped]).toEqual([{}, { full: 1 }, {}]);
  });

  test('all tasks of a process together have a bound', async () => {
    const room = createDeltaRoom(1_500_000);
    const batchers = [1, 2, 3].map((n) => batcher({ answer: AWAY, room, taskId: `task-${n}` }));
    for (const { push } of batchers) push('x'.repeat(600_000));
    expect(batchers.map(({ dropped }) => dropped)).toEqual([{}, {}, { full: 1 }]);
    expect(room.heldBytes()).toBe(1_200_000);
  });

  test('the end of a call does not wait for a Redis that says nothing, and what is left is counted', async () => {
    const { push, flush, dropped, room } = batcher({
      answer: () => new Promise(() => undefined),
      settings: { deltaFlushMs: 50 },
    });
    for (const piece of ['a', 'b', 'c']) push(piece);
    await flush();
    expect(dropped).toEqual({ redis: 3 });
    expect(room.heldBytes()).toBe(0);
  });

  test('an answer that comes after the end changes nothing', async () => {
    const late = Promise.withResolvers<readonly boolean[]>();
    const { push, flush, dropped, room, trips } = batcher({
      answer: () => late.promise,
      settings: { deltaFlushMs: 20 },
    });
    push('a');
    await flush();
    late.resolve([true]);
    await late.promise;
    push('b');
    await flush();
    expect([trips.length, dropped, room.heldBytes()]).toEqual([1, { redis: 2 }, 0]);
  });

  test('the end of a call tries a Redis that is back at once, however long it was left alone', async () => {
    let isAway = true;
    const { push, flush, trips, dropped } = batcher({
      answer: (trip) => (isAway ? AWAY() : trip.map(() => true)),
      settings: { deltaFlushMs: 400 },
    });
    push('a');
    // By then the next try would be half a second away.
    await eventually(() => expect(trips).toHaveLength(5));
    isAway = false;
    await flush();
    expect([trips.length, dropped]).toEqual([6, {}]);
  });

  test('an open breaker is not asked before its time, so that the end of a call does not wait for it', async () => {
    const { push, flush, trips, dropped } = batcher({
      answer: () => Promise.reject(new BreakerOpen('redis', 60_000)),
      settings: { deltaFlushMs: 30_000 },
    });
    push('a');
    await eventually(() => expect(trips).toHaveLength(1));
    push('b');
    await flush();
    expect([trips.length, dropped]).toEqual([1, { redis: 2 }]);
  });
});

describe('the beginning of the attempt', () => {
  test('is told before its text', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { push, flush, trips, text } = batcher({ begun: promise, settings: { deltaFlushMs: 60_000 } });
    push('a');
    push('x'.repeat(100));
    push('b');
    const flushed = flush();
    await setImmediate();
    expect(trips).toEqual([]);
    resolve();
    await flushed;
    expect(text()).toBe(`a${'x'.repeat(100)}b`);
  });

  test('costs no text where it cannot be told', async () => {
    const { push, flush, text, dropped } = batcher({
      begun: new Promise(() => undefined),
      settings: { deltaFlushMs: 100 },
    });
    push('a');
    await flush();
    expect([text(), dropped]).toEqual(['a', {}]);
  });
});

describe('an attempt that is not the newest any more', () => {
  test('drops what it has and all that comes', async () => {
    const { push, flush, trips, dropped, room } = batcher({ answer: (trip) => trip.map(() => false) });
    push('a');
    push('b');
    await eventually(() => expect(trips).toHaveLength(1));
    push('c');
    await flush();
    expect([trips.length, dropped, room.heldBytes()]).toEqual([1, { superseded: 3 }, 0]);
  });
});
