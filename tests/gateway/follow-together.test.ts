// Readers of one task beside each other on real Redis and Postgres: what one of them was told the next need not fetch, and a connection
// with room is given it without a detour.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { catchUp } from '../../src/gateway/catch-up.ts';
import type { EventBatch } from '../../src/gateway/event-batch.ts';
import { follow } from '../../src/gateway/follow.ts';
import type { LiveSubscription } from '../../src/stores/live-subscription.ts';
import type { Cursor, TaskEvent } from '../../src/task/event.ts';
import { eventually } from '../support/eventually.ts';
import { openTestStores, storesOn, type TestStores } from '../support/stores.ts';
import { createStoredTask, followEvents, followStoresOf, textOf } from './events.ts';

const RING = 64;
let servers: TestStores;

beforeAll(async () => {
  servers = await openTestStores({ events: { ringCapacity: RING, onPublished: () => undefined } });
});
afterAll(() => servers[Symbol.asyncDispose]());

/** What readers need, and the subscriptions that they make of it, with how often each has asked for what comes next. */
function watchedStores() {
  const { liveFeed, ...stores } = followStoresOf(servers);
  const subscriptions: { readonly subscription: LiveSubscription; waits: number }[] = [];
  const feed: typeof liveFeed = {
    subscribe: (taskId, reader) => {
      const subscription = liveFeed.subscribe(taskId, reader);
      const watched = { subscription, waits: 0 };
      const next = subscription.next.bind(subscription);
      subscription.next = (forMs) => {
        watched.waits += 1;
        return next(forMs);
      };
      subscriptions.push(watched);
      return subscription;
    },
    opened: () => liveFeed.opened(),
    recent: (taskId, at) => liveFeed.recent(taskId, at),
    saw: (taskId, at) => liveFeed.saw(taskId, at),
  };
  return { stores: { ...stores, liveFeed: feed }, subscriptions };
}

const newTask = () => createStoredTask(servers, `task-${randomUUID()}`);

describe('readers of a task that others follow', () => {
  test('come back without asking a store', async () => {
    const task = newTask();
    await task.begin();
    const stop = new AbortController();
    const told: TaskEvent[] = [];
    const follows = async () => {
      for await (const event of followEvents(followStoresOf(servers), task.taskId, { signal: stop.signal }))
        told.push(event);
    };
    const other = follows();
    const untilTold = (count: number) =>
      eventually(() => {
        if (told.length < count) throw new Error(`${told.length} events were told`);
      });
    await untilTold(2);
    await task.startCall();
    for (let piece = 0; piece < 20; piece += 1) await task.delta(`${piece} `);
    await untilTold(23);
    const stores = followStoresOf(servers);
    let asked = 0;
    const presents = {
      of: (taskId: string) => {
        asked += 1;
        return stores.presents.of(taskId);
      },
    };
    const read = async (after: TaskEvent | undefined) => {
      const events: TaskEvent[] = [];
      const signal = AbortSignal.timeout(20_000);
      for await (const event of followEvents({ ...stores, presents }, task.taskId, { signal, after })) {
        events.push(event);
        if (event.seq === told.at(-1)?.seq) break;
      }
      return events;
    };
    for (const from of [2, 5, 20]) expect(await read(told[from])).toEqual(told.slice(from + 1));
    expect(asked).toBe(0);
    stop.abort();
    await other;
    expect(textOf(await read(told[5]))).not.toBe('');
    expect(asked).toBe(1);
  });

  test('are told the same objects where they come together', async () => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    for (let piece = 0; piece < 2 * RING; piece += 1) await task.delta(`${piece} `);
    const { presents, ...stores } = followStoresOf(servers);
    const present = await presents.of(task.taskId);
    const shared = { ...stores, presents: { of: async () => present } };
    const [one, two] = await Promise.all([1, 2].map(() => catchUp(shared, task.taskId, undefined)));
    expect(one?.events.map(({ type }) => type)).toContain('call_snapshot');
    expect(two).toBe(one);
    expect(await catchUp(shared, task.taskId, { epoch: 1, seq: 3 })).not.toBe(one);
  });
});

describe('a reader that left behind a gap, and before the snapshot for it', () => {
  test.each([
    ['where the ring is short', { ringCapacity: 8 }],
    ['where memory is', { ringCapacity: 512, keepsDeltas: () => false }],
  ])('gets the whole text though others follow all along, %s', async (_, options) => {
    const stores = storesOn(servers, { events: { ...options, onPublished: () => undefined } });
    const task = createStoredTask({ ...servers, stores }, `task-${randomUUID()}`);
    const from = followStoresOf({ ...servers, stores });
    const signal = AbortSignal.timeout(20_000);
    const told: Record<'other' | 'mine', TaskEvent[]> = { other: [], mine: [] };
    const read = async (who: 'other' | 'mine', until: (event: TaskEvent) => boolean) => {
      for await (const event of followEvents(from, task.taskId, { signal, after: told[who].at(-1) })) {
        told[who].push(event);
        if (until(event)) return;
      }
    };
    const other = read('other', () => false);
    await task.begin();
    await task.startCall();
    const text = Array.from({ length: 25 }, (_, piece) => `${piece} `);
    for (const piece of text.slice(0, 10)) await task.delta(piece);
    await task.milestone({ id: 'wait', type: 'rate_wait', stepId: 'answer' });
    for (const piece of text.slice(10)) await task.delta(piece);
    await eventually(() => expect(textOf(told.other)).toBe(text.join('')));
    await read('mine', ({ type }) => type === 'rate_wait');
    const back = read('mine', () => false);
    await eventually(() => expect(told.mine.at(-1)?.seq).toBe(told.other.at(-1)?.seq));
    await task.completeCall(text.join(''));
    await task.end();
    await Promise.all([other, back]);
    expect(textOf(told.other)).toBe(text.join(''));
    expect(textOf(told.mine)).toBe(text.join(''));
    await stores.liveFeed.close();
  });
});

describe('a reader that comes back twice before anything is new', () => {
  test.each([
    ['alone', false],
    ['beside another one', true],
  ])('is told nothing again, %s', async (_, isFollowed) => {
    const task = newTask();
    await task.begin();
    await task.startCall();
    await task.delta('0 ');
    const stop = new AbortController();
    const { stores, subscriptions } = watchedStores();
    const readAfter = (after: Cursor | undefined, signal = stop.signal) =>
      followEvents(stores, task.taskId, { after, signal });
    const other = readAfter(undefined);
    for (let count = 0; isFollowed && count < 4; count += 1) await other.next();
    const after = { epoch: 1, seq: 4 };
    for (let comeback = 0; comeback < 2; comeback += 1) {
      const leave = new AbortController();
      const reader = readAfter(after, leave.signal);
      const next = reader.next();
      await eventually(() => {
        if (subscriptions.at(-1)?.waits !== 1) throw new Error('the reader is not live yet');
      });
      leave.abort();
      expect(await next).toEqual({ done: true, value: undefined });
    }
    const reader = readAfter(after);
    const next = reader.next();
    await task.delta('1 ');
    expect((await next).value).toMatchObject({ seq: 5, data: { text: '1 ' } });
    stop.abort();
    expect((await reader.next()).done).toBe(true);
  });
});

describe('a connection with room', () => {
  test('is given batches past the generator, and what it refuses through it, in order', async () => {
    const task = newTask();
    await task.begin();
    const taken: TaskEvent[] = [];
    let offers = 0;
    const accept = (batch: EventBatch) => {
      offers += 1;
      if (offers % 2 === 0 && batch.events.at(-1)?.type !== 'stream_end') return false;
      taken.push(...batch.events);
      return true;
    };
    const { stores, subscriptions } = watchedStores();
    const options = { signal: AbortSignal.timeout(20_000), accept };
    const read = async () => {
      for await (const batch of follow(stores, task.taskId, options)) taken.push(...batch.events);
    };
    const done = read();
    await eventually(() => {
      if (taken.length < 2) throw new Error('nothing was told');
    });
    await task.startCall();
    for (let piece = 0; piece < 8; piece += 1) {
      await task.delta(`${piece} `);
      await eventually(() => {
        if (taken.length < 4 + piece) throw new Error(`${taken.length} events were told`);
      });
      // It goes on from the last event, whichever way that came.
      for (const { subscription } of subscriptions) subscription.fail('lost');
    }
    await task.completeCall('0 1 2 3 4 5 6 7 ');
    await task.end();
    await done;
    expect(options.signal.aborted).toBe(false);
    expect(offers).toBeGreaterThan(4);
    expect(taken.map(({ seq }) => seq)).toEqual(Array.from({ length: 14 }, (_, index) => index + 1));
    expect(taken.at(-1)?.type).toBe('stream_end');
  });
});
