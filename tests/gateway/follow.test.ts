// Readers of a task's events on real Redis and Postgres: wherever they begin and whatever is lost on the way, they end with the same
// text, in order, without a repeat, or are told that they must begin anew.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { FollowOptions } from '../../src/gateway/follow.ts';
import type { TaskEvent } from '../../src/task/event.ts';
import { openTestStores, storesOn, type TestStores } from '../support/stores.ts';
import { createStoredTask, followEvents, followStoresOf, startFollowing, textOf, typesOf } from './events.ts';

const RING = 8;
let servers: TestStores;

beforeAll(async () => {
  servers = await openTestStores({ events: { ringCapacity: RING, onPublished: () => undefined } });
});
afterAll(() => servers[Symbol.asyncDispose]());

const newTask = (runId?: string, taskId = `task-${randomUUID()}`) => createStoredTask(servers, taskId, runId);

/** Reads to the end, or until the signal. */
async function readAll(taskId: string, options: Partial<FollowOptions> = {}): Promise<TaskEvent[]> {
  const events: TaskEvent[] = [];
  for await (const event of followEvents(followStoresOf(servers), taskId, {
    signal: AbortSignal.timeout(20_000),
    ...options,
  }))
    events.push(event);
  return events;
}

/** A reader in the background whose events can be looked at while it reads. */
const startReading = (taskId: string, options: Partial<FollowOptions> = {}) =>
  startFollowing(followStoresOf(servers), taskId, options);

/** Empties Redis. What was published is in Postgres by then, with its numbers. */
async function removeFromRedis(...tasks: ReturnType<typeof newTask>[]): Promise<void> {
  for (const task of tasks) await task.persisted();
  await servers.redis.command(async (client) => {
    const keys = await client.keys(`${servers.prefix}:*`);
    if (keys.length > 0) await client.del(...keys);
  });
}

function expectInOrder(events: readonly TaskEvent[]): void {
  const numbers = events.filter((event) => event.type !== 'call_snapshot').map((event) => event.seq);
  expect(numbers).toEqual(numbers.toSorted((left, right) => left - right));
  expect(new Set(numbers).size).toBe(numbers.length);
}

async function stream(task: ReturnType<typeof newTask>, pieces: number, from = 0): Promise<string> {
  let text = '';
  for (let piece = from; piece < from + pieces; piece += 1) {
    await task.delta(`${piece} `);
    text += `${piece} `;
  }
  return text;
}

describe('a reader from the beginning', () => {
  test('follows a task that is not begun yet to its end', async () => {
    const task = newTask();
    await task.queue();
    const reader = startReading(task.taskId);
    await task.begin();
    await task.startCall();
    const text = await stream(task, 5);
    await reader.until((events) => textOf(events) === text);
    await task.completeCall(text);
    await task.end();
    await reader.done;
    expect(typesOf(reader.events)).toBe(
      'task_started step_started call_started call_delta call_delta call_delta call_delta call_delta call_completed task_completed stream_end',
    );
    expect(reader.events.map((event) => event.seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });

  test('gets one snapshot for the text of a running call that is no longer in the ring', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    const first = await stream(task, 20);
    const reader = startReading(task.taskId);
    await reader.until((events) => textOf(events) === first);
    const snapshots = reader.events.filter((event) => event.type === 'call_snapshot');
    expect(snapshots).toHaveLength(1);
    expect(snapshots[0]).toMatchObject({
      callKey: task.callKey,
      attempt: task.attemptOf(1),
      seq: 23 - RING,
      epoch: 1,
    });
    const second = await stream(task, 3, 20);
    await task.completeCall(first + second);
    await task.end();
    await reader.done;
    expect(textOf(reader.events)).toBe(first + second);
    expectInOrder(reader.events);
    expect(typesOf(reader.events.slice(0, 4))).toBe('task_started step_started call_started call_snapshot');
  });

  test('gets an ended task from Postgres alone when Redis has forgotten it', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    const text = await stream(task, 30);
    await task.completeCall(text);
    await task.end();
    await removeFromRedis(task);
    const events = await readAll(task.taskId);
    expect(typesOf(events)).toBe(
      'task_started step_started call_started call_snapshot call_completed task_completed stream_end',
    );
    expect(textOf(events)).toBe(text);
    expectInOrder(events);
  });

  test('gets no text of an attempt that was given up', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall(1);
    await stream(task, 12);
    await task.milestone({
      id: `${task.attemptOf(1)}:reset`,
      type: 'attempt_reset',
      stepId: 'answer',
      callKey: task.callKey,
      attempt: task.attemptOf(1),
    });
    await task.startCall(2);
    for (let piece = 0; piece < 12; piece += 1) await task.delta(`b${piece} `, 2);
    const expected = Array.from({ length: 12 }, (_, piece) => `b${piece} `).join('');
    await task.completeCall(expected, 2);
    await task.end();
    const events = await readAll(task.taskId);
    const snapshots = events.filter((event) => event.type === 'call_snapshot');
    expect(snapshots.map((event) => event.attempt)).toEqual([task.attemptOf(2)]);
    expect(textOf(events)).toBe(expected);
    expectInOrder(events);
  });

  test('has every milestone while no persister has brought the numbers to their rows', async () => {
    await using lagging = await openTestStores({
      persists: false,
      events: { ringCapacity: RING, onPublished: () => undefined },
    });
    const task = createStoredTask(lagging, 'lagging');
    await task.begin();
    await task.startCall();
    const text = await stream(task, 12);
    await task.completeCall(text);
    await task.end();
    const { rows } = await lagging.postgres.query('select id from events where seq is not null');
    expect(rows).toEqual([]);
    const events: TaskEvent[] = [];
    const signal = AbortSignal.timeout(20_000);
    for await (const event of followEvents(followStoresOf(lagging), 'lagging', { signal }))
      events.push(event);
    // The ring of eight has neither of the first three.
    expect(typesOf(events.filter(({ type }) => type !== 'call_delta'))).toBe(
      'task_started step_started call_started call_snapshot call_completed task_completed stream_end',
    );
    expect(textOf(events)).toBe(text);
    expectInOrder(events);
  });

  test('gets the text of a running call whose deltas are kept out of the ring', async () => {
    const stores = storesOn(servers, {
      events: { ringCapacity: RING, keepsDeltas: () => false, onPublished: () => undefined },
    });
    const task = createStoredTask({ stores, postgres: servers.postgres }, `task-${randomUUID()}`);
    await task.begin();
    await task.startCall();
    const first = await stream(task, 3);
    const reader = startReading(task.taskId);
    await reader.until((events) => textOf(events) === first);
    expect(typesOf(reader.events)).toBe('task_started step_started call_started call_snapshot');
    expect(reader.events.at(-1)).toMatchObject({ seq: 6 });
    const second = await stream(task, 3, 3);
    await reader.until((events) => textOf(events) === first + second);
    await task.completeCall(first + second);
    await task.end();
    await reader.done;
    expect(textOf(reader.events)).toBe(first + second);
    expectInOrder(reader.events);
    expect(textOf(await readAll(task.taskId))).toBe(first + second);
    // In the middle of the call, of which nothing is in the ring.
    expect(typesOf(await readAll(task.taskId, { after: { epoch: 1, seq: 4 } }))).toBe(
      'call_snapshot call_completed task_completed stream_end',
    );
  });
});

describe('text that never came to Redis', () => {
  const LOST =
    'task_started step_started call_started call_delta call_snapshot call_completed task_completed';

  test('comes whole before its call is complete, live and to those who come later', async () => {
    const task = newTask();
    await task.begin();
    const reader = startReading(task.taskId);
    await reader.until((events) => events.length === 2);
    await task.startCall();
    await task.delta('one ');
    task.loseDelta();
    await task.completeCall('one two ');
    await task.end();
    await reader.done;
    expect(textOf(reader.events)).toBe('one two ');
    expect(typesOf(reader.events)).toBe(`${LOST} stream_end`);
    expect(reader.events.every((event) => !('textLost' in event))).toBe(true);
    const late = await readAll(task.taskId);
    expect(typesOf(late)).toBe(`${LOST} stream_end`);
    expect(late.every((event) => !('textLost' in event))).toBe(true);
    // The snapshot carries the number before the call's end, and moves nobody.
    expect(typesOf(await readAll(task.taskId, { after: { epoch: 1, seq: 4 } }))).toBe(
      'call_snapshot call_completed task_completed stream_end',
    );
    expect(typesOf(await readAll(task.taskId, { after: { epoch: 1, seq: 5 } }))).toBe(
      'task_completed stream_end',
    );
    await removeFromRedis(task);
    expect(textOf(await readAll(task.taskId))).toBe('one two ');
  });

  test('comes from the stored answer where not a single piece had a number', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    task.loseDelta();
    await task.completeCall('never seen');
    await task.end();
    await removeFromRedis(task);
    const events = await readAll(task.taskId);
    expect(typesOf(events)).toBe(
      'task_started step_started call_started call_snapshot call_completed task_completed stream_end',
    );
    expect(textOf(events)).toBe('never seen');
  });
});

describe('a reader that comes back', () => {
  test('goes on after its cursor when the ring still has it', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    await stream(task, 4);
    await task.completeCall('0 1 2 3 ');
    await task.end();
    const all = await readAll(task.taskId);
    for (const event of all.slice(0, -1)) {
      const rest = await readAll(task.taskId, { after: event });
      // The first events have left the ring of eight; the text in between then comes as a snapshot.
      expect(rest.filter((one) => one.type !== 'call_delta' && one.type !== 'call_snapshot')).toEqual(
        all.filter((one) => one.seq > event.seq && one.type !== 'call_delta' && one.type !== 'call_snapshot'),
      );
      expectInOrder(rest);
      expect(rest.every((one) => one.seq > event.seq)).toBe(true);
    }
  });

  test('gets the text so far, once, when its place has left the ring', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    await stream(task, 2);
    const after = { epoch: 1, seq: 5 };
    await stream(task, 20, 2);
    await task.completeCall(Array.from({ length: 22 }, (_, piece) => `${piece} `).join(''));
    await task.end();
    const rest = await readAll(task.taskId, { after });
    expect(rest[0]).toMatchObject({ type: 'call_snapshot' });
    expect(rest.filter((event) => event.type === 'call_snapshot')).toHaveLength(1);
    expect(textOf(rest)).toBe(Array.from({ length: 22 }, (_, piece) => `${piece} `).join(''));
    const again = await readAll(task.taskId, { after: rest[0] });
    expect(again).toEqual(rest.slice(1));
  });

  test.each([
    ['of an older epoch', { epoch: 0, seq: 2 }],
    ['of a newer epoch', { epoch: 7, seq: 2 }],
    ['in the future', { epoch: 1, seq: 10_000 }],
  ])('is told to begin anew with a cursor %s', async (_, after) => {
    const task = newTask();
    await task.begin();
    await task.end();
    const inRedis = await readAll(task.taskId, { after });
    expect(typesOf(inRedis)).toBe('reset task_started step_started task_completed stream_end');
    expect(inRedis[0]).toMatchObject({ epoch: 1, seq: 0 });
    await removeFromRedis(task);
    expect(typesOf(await readAll(task.taskId, { after }))).toBe(typesOf(inRedis));
  });

  test('gets nothing but the end of the stream after the last event but one, and nothing after the end', async () => {
    const task = newTask();
    await task.begin();
    await task.end();
    expect(typesOf(await readAll(task.taskId, { after: { epoch: 1, seq: 3 } }))).toBe('stream_end');
    expect(await readAll(task.taskId, { after: { epoch: 1, seq: 4 } })).toEqual([]);
    await removeFromRedis(task);
    expect(await readAll(task.taskId, { after: { epoch: 1, seq: 4 } })).toEqual([]);
  });
});

describe('a reader that waits', () => {
  test('goes on after Redis was emptied, and is told to begin anew', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    await stream(task, 3);
    const reader = startReading(task.taskId);
    await reader.until((events) => textOf(events) === '0 1 2 ');
    await removeFromRedis(task);
    await stream(task, 2, 3);
    await reader.until((events) => events.some((event) => event.type === 'reset'));
    await task.completeCall('0 1 2 3 4 ');
    await task.end();
    await reader.done;
    const since = reader.events.slice(reader.events.findIndex((event) => event.type === 'reset'));
    expect(since[0]).toMatchObject({ epoch: 2, seq: 0 });
    expect(since.every((event) => event.epoch === 2)).toBe(true);
    expect(since.filter((event) => event.type === 'stream_end')).toHaveLength(1);
    // What was streamed before is gone from Redis: the whole answer comes before the call is called complete.
    expect(textOf(since)).toBe('0 1 2 3 4 ');
    expectInOrder(since.slice(1));
  });

  test('goes on when Redis was emptied in silence and the task ended meanwhile', async () => {
    const task = newTask();
    await task.begin();
    const reader = startReading(task.taskId);
    await reader.until((events) => events.length === 2);
    await removeFromRedis(task);
    await task.end();
    await reader.done;
    expect(typesOf(reader.events)).toBe(
      'task_started step_started reset task_started step_started task_completed stream_end',
    );
  });

  test('finds the end in Postgres when it came and was lost in Redis while nobody looked', async () => {
    const task = newTask();
    await task.begin();
    const reading = followEvents(followStoresOf(servers), task.taskId, {
      signal: AbortSignal.timeout(20_000),
    });
    const events: TaskEvent[] = [];
    for (let count = 0; count < 2; count += 1) events.push((await reading.next()).value);
    await task.end();
    await removeFromRedis(task);
    for await (const event of reading) events.push(event);
    expect(typesOf(events)).toBe('task_started step_started task_completed stream_end');
  });

  test('misses nothing when it is slower than the ring', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    const reading = followEvents(followStoresOf(servers), task.taskId, {
      signal: AbortSignal.timeout(20_000),
    });
    const events: TaskEvent[] = [];
    for (let count = 0; count < 3; count += 1) events.push((await reading.next()).value);
    const text = await stream(task, 40);
    await task.completeCall(text);
    await task.end();
    for await (const event of reading) events.push(event);
    expect(textOf(events)).toBe(text);
    expect(events.filter((event) => event.type === 'call_delta')).toHaveLength(40);
    expectInOrder(events);
  });
});

describe('an id that is used again', () => {
  test('shows the events of its present run only', async () => {
    const first = newTask('run-1');
    await first.begin();
    await first.end();
    const second = newTask('run-2', first.taskId);
    await second.queue();
    const reader = startReading(first.taskId);
    await second.begin();
    await reader.until((events) => events.length === 2);
    await second.end();
    await reader.done;
    expect(typesOf(reader.events)).toBe('task_started step_started task_completed stream_end');
    expect(reader.events.map((event) => event.seq)).toEqual([5, 6, 7, 8]);
    expect(typesOf(await readAll(first.taskId))).toBe(typesOf(reader.events));
    await removeFromRedis(first, second);
    expect(typesOf(await readAll(first.taskId))).toBe(typesOf(reader.events));
  });
});

describe('what a reader asks for', () => {
  test('is all it gets, with the end of the stream', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    await task.completeCall(await stream(task, 20));
    await task.end();
    expect(typesOf(await readAll(task.taskId, { types: new Set(['task_started', 'call_completed']) }))).toBe(
      'task_started call_completed stream_end',
    );
    expect(typesOf(await readAll(task.taskId, { types: new Set(['call_delta']) }))).toMatch(
      /^call_snapshot( call_delta)+ stream_end$/,
    );
  });

  test('ends with the word of Temporal where a task leaves no events', async () => {
    const events = await readAll('task-without-row', { endedSilently: async () => 'failed' });
    expect(events).toMatchObject([{ type: 'stream_end', data: { status: 'failed' } }]);
  });
});
