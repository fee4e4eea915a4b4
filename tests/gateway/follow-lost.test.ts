// Readers that leave at the worst moment, of tasks whose text was lost in part, or with a position that nobody gave them.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { catchUp } from '../../src/gateway/catch-up.ts';
import type { FollowOptions } from '../../src/gateway/follow.ts';
import { createPresents } from '../../src/gateway/presents.ts';
import type { EventType, TaskEvent } from '../../src/task/event.ts';
import { eventually } from '../support/eventually.ts';
import { openTestStores, storesOn, type TestStores } from '../support/stores.ts';
import { createStoredTask, followEvents, followStoresOf, startFollowing, textOf, typesOf } from './events.ts';

let servers: TestStores;
beforeAll(async () => {
  servers = await openTestStores({ events: { ringCapacity: 8, onPublished: () => undefined } });
});
afterAll(() => servers[Symbol.asyncDispose]());

const newTask = () => createStoredTask(servers, `task-${randomUUID()}`);
const startReading = (taskId: string, options: Partial<FollowOptions> = {}) =>
  startFollowing(followStoresOf(servers), taskId, options);
const has = (type: EventType) => (events: readonly TaskEvent[]) =>
  events.some((event) => event.type === type);

async function readAll(taskId: string, after?: TaskEvent): Promise<TaskEvent[]> {
  const reader = startReading(taskId, { after });
  await reader.done;
  return reader.events;
}

/** Redis is emptied; the task's milestones have their numbers by then. */
async function emptyRedis(task: ReturnType<typeof newTask>): Promise<void> {
  await task.persisted();
  await servers.redis.command(async (client) => client.del(...(await client.keys(`${servers.prefix}:*`))));
}

describe('a text', () => {
  test('of which the end was dropped and the beginning has left the ring is whole for who comes late', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    for (let piece = 0; piece < 20; piece += 1) await task.delta(`${piece} `);
    task.loseDelta();
    const text = `${Array.from({ length: 20 }, (_, piece) => `${piece} `).join('')}the lost end`;
    await task.completeCall(text);
    const early = startReading(task.taskId);
    await early.until(has('call_completed'));
    await task.end();
    await early.done;
    const late = await readAll(task.taskId);
    for (const events of [early.events, late]) {
      expect(textOf(events)).toBe(text);
      expect(events.filter((event) => 'textLost' in event)).toEqual([]);
    }
  });

  test('that began before Redis was emptied, and has all its pieces after it, is whole for who leaves among them', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    await emptyRedis(task);
    let text = '';
    for (let piece = 0; piece < 20; piece += 1) {
      await task.delta(`${piece} `);
      text += `${piece} `;
    }
    await task.completeCall(text);
    await task.end();
    const mine: TaskEvent[] = [];
    const signal = AbortSignal.timeout(20_000);
    for await (const event of followEvents(followStoresOf(servers), task.taskId, { signal })) {
      mine.push(event);
      if (event.type === 'call_delta') break;
    }
    mine.push(...(await readAll(task.taskId, mine.at(-1))));
    expect(textOf(mine)).toBe(text);
  });

  describe('beyond what Redis keeps of it', () => {
    const pieces = Array.from({ length: 26 }, (_, n) => `${n}:${'x'.repeat(100_000)} `);

    test('is whole where the ring has none of it', async () => {
      const events = { ringCapacity: 512, keepsDeltas: () => false, onPublished: () => undefined };
      const task = createStoredTask(
        { ...servers, stores: storesOn(servers, { events }) },
        `task-${randomUUID()}`,
      );
      await task.begin();
      await task.startCall();
      for (const piece of pieces.slice(0, 13)) await task.delta(piece);
      const reader = startReading(task.taskId);
      await reader.until(has('call_snapshot'));
      for (const piece of pieces.slice(13, 15)) await task.delta(piece);
      await task.completeCall(pieces.slice(0, 15).join(''));
      await task.end();
      await reader.done;
      expect(textOf(reader.events) === pieces.slice(0, 15).join('')).toBe(true);
    });

    test('is whole for who leaves after a part of it', async () => {
      const task = newTask();
      await task.begin();
      await task.startCall();
      for (const piece of pieces.slice(0, 25)) await task.delta(piece);
      const reader = startReading(task.taskId);
      await reader.until((events) => events.at(-1)?.type === 'call_delta');
      await reader.stop();
      const back = startReading(task.taskId, { after: reader.events.at(-1) });
      for (const piece of pieces.slice(25)) await task.delta(piece);
      await task.completeCall(pieces.join(''));
      await task.end();
      await back.done;
      expect(textOf([...reader.events, ...back.events]) === pieces.join('')).toBe(true);
    });
  });

  test('is not lost to a snapshot of another one in the same place', async () => {
    const told = (seq: number, epoch: number, type: EventType, call: string): TaskEvent => ({
      ...{ taskId: 't', seq, epoch, type, at: '2030-01-01T00:00:00.000Z' },
      ...{ stepId: call, callKey: call, attempt: `${call}#0.1.1.0`, data: { textBytes: 8 } },
    });
    const history = [
      told(1, 1, 'call_started', 'a'),
      told(2, 1, 'call_started', 'b'),
      told(20, 2, 'call_completed', 'a'),
    ];
    // Both were streamed from 3 to 19, which the ring has not.
    const texts = [{ callKey: 'b', attempt: 'b#0.1.1.0', text: 'all of b' }];
    const standing = {
      epoch: 2,
      seq: 20,
      runId: 'r',
      ended: false,
      ring: history.slice(2),
      texts,
      milestones: [],
    };
    const present = { origin: 0, newest: 2, standing, history: async () => history };
    const stores = {
      presents: { of: async () => present },
      ledger: { result: async () => ({ attemptKey: 'a#0.1.1.0', text: 'all of a' }) as never },
    };
    const { events } = await catchUp(stores, 't', { epoch: 2, seq: 2 });
    expect(typesOf(events)).toBe('call_snapshot call_snapshot call_completed');
    const [first] = events;
    const rest = await catchUp(stores, 't', first);
    expect(textOf([first, ...rest.events].filter((event) => event?.callKey === 'b') as TaskEvent[])).toBe(
      'all of b',
    );
  });
});

describe('an end that is in Postgres before all that came before it', () => {
  test.each([
    ['is not told while Redis is away', () => Promise.reject(new Error('away'))],
    ['is not told while Redis has nothing', async () => undefined],
  ])('%s', async (_, standing) => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    await task.delta('an answer');
    await task.completeCall('an answer');
    await task.end();
    await task.persisted();
    const { rows } = await servers.postgres.query(
      `update events e set seq = null, epoch = null from events b
       where e.task_id = $1 and e.type = 'call_started' and b.task_id = e.task_id and b.id = e.id returning b.id, b.seq, b.epoch`,
      [task.taskId],
    );
    const ask = vi.fn(standing);
    const presents = createPresents({ ...servers.stores.events, standing: ask });
    const reader = startFollowing({ ...followStoresOf(servers), presents }, task.taskId);
    // It has what it gets, or asks again.
    await eventually(() => expect(ask.mock.calls.length + reader.events.length).toBeGreaterThan(1));
    expect(typesOf(reader.events)).toMatch(/^(task_started step_started)?$/);
    await servers.postgres.query('update events set seq = $3, epoch = $4 where task_id = $1 and id = $2', [
      ...[task.taskId, rows[0]?.['id'], rows[0]?.['seq'], rows[0]?.['epoch']],
    ]);
    await reader.stop();
    expect(typesOf((await readAll(task.taskId)).filter(({ type }) => type !== 'call_delta'))).toBe(
      'task_started step_started call_started call_completed task_completed stream_end',
    );
  });
});

describe('a position that nobody was given', () => {
  test('of a task that has not begun is not kept', async () => {
    const task = newTask();
    await task.queue();
    const reader = startReading(task.taskId, { after: { epoch: 1, seq: 57 } });
    await reader.until(has('reset'));
    await task.begin();
    await task.end();
    await reader.done;
    expect(typesOf(reader.events)).toMatch(/reset task_started step_started task_completed stream_end$/);
  });

  test('of an epoch that never was is not kept where Redis has nothing of the task', async () => {
    const task = newTask();
    await task.begin();
    await emptyRedis(task);
    const reader = startReading(task.taskId, { after: { epoch: 7, seq: 2 } });
    await reader.until(has('reset'));
    await task.end();
    await reader.done;
    expect(typesOf(reader.events)).toMatch(/reset task_started step_started task_completed stream_end$/);
  });

  test.each([[{ epoch: 0, seq: 0 }], [{ epoch: 1, seq: 5 }]])(
    'of a task without events ends with the word of Temporal: %j',
    async (after) => {
      const reader = startReading('task-without-row', { after, endedSilently: async () => 'failed' });
      await reader.done;
      expect(reader.events.at(-1)).toMatchObject({ type: 'stream_end', data: { status: 'failed' } });
    },
  );
});

test('a reader for which Postgres is slow is not slow itself', async () => {
  const task = newTask();
  await task.begin();
  const hung = Promise.withResolvers<void>();
  let asked = 0;
  const ledger = {
    result: async (callKey: string) => {
      asked += 1;
      await hung.promise;
      return servers.stores.ledger.result(callKey);
    },
  };
  const stores = { ...followStoresOf(servers), ledger };
  const reader = startFollowing(stores, task.taskId);
  await reader.until((events) => events.length === 2);
  const feed = servers.stores.liveFeed.subscribe(task.taskId);
  feed.begin();
  feed.join({ epoch: 1, seq: 2 });
  await task.startCall();
  task.loseDelta();
  await task.completeCall('never seen');
  await eventually(() => expect(asked).toBe(1));
  const attemptKey = 'other#0.1.1.0';
  for (let k = 0; k < 1_500; k += 100) {
    const deltas = Array.from({ length: 100 }, (_, n) => ({
      ...{ callKey: 'other', stepId: 's', attemptKey, k: k + n, text: 'x' },
    }));
    await servers.stores.events.publishDeltas({ ...task, tenantId: 'default' }, deltas);
    // Each has come to the readers of this process before the next is published.
    for (let last = 0; last < 4 + k + 100; ) {
      const step = await feed.next();
      if (typeof step === 'string') throw new Error(`the feed is ${step}`);
      last = step.last;
    }
  }
  feed.close();
  hung.resolve();
  await task.end();
  await reader.done;
  expect(reader.events.at(-1)?.type).toBe('stream_end');
});
