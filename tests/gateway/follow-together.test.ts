// Readers of one task beside each other on real Redis and Postgres: what one of them was told the next need not fetch, and a connection
// with room is given it without a detour.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { catchUp } from '../../src/gateway/catch-up.ts';
import type { EventBatch } from '../../src/gateway/event-batch.ts';
import { follow } from '../../src/gateway/follow.ts';
import type { LiveSubscription } from '../../src/stores/live-subscription.ts';
import type { TaskEvent } from '../../src/task/event.ts';
import { eventually } from '../support/eventually.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { createStoredTask, followEvents, followStoresOf, textOf } from './events.ts';

const RING = 8;
let servers: TestStores;

beforeAll(async () => {
  servers = await openTestStores({ events: { ringCapacity: RING, onPublished: () => undefined } });
});
afterAll(() => servers[Symbol.asyncDispose]());

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
    // Text that has left the ring of eight is among it.
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
    for (let piece = 0; piece < 20; piece += 1) await task.delta(`${piece} `);
    const { presents, ...stores } = followStoresOf(servers);
    const present = await presents.of(task.taskId);
    const shared = { ...stores, presents: { of: async () => present } };
    const [one, two] = await Promise.all([1, 2].map(() => catchUp(shared, task.taskId, undefined)));
    expect(one?.events.map(({ type }) => type)).toContain('call_snapshot');
    expect(two).toBe(one);
    expect(await catchUp(shared, task.taskId, { epoch: 1, seq: 3 })).not.toBe(one);
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
    const { liveFeed, ...stores } = followStoresOf(servers);
    const subscriptions: LiveSubscription[] = [];
    const feed: typeof liveFeed = {
      subscribe: (taskId, reader) => {
        const subscription = liveFeed.subscribe(taskId, reader);
        subscriptions.push(subscription);
        return subscription;
      },
      opened: () => liveFeed.opened(),
      recent: (taskId, at) => liveFeed.recent(taskId, at),
    };
    const options = { signal: AbortSignal.timeout(20_000), accept };
    const read = async () => {
      for await (const batch of follow({ ...stores, liveFeed: feed }, task.taskId, options))
        taken.push(...batch.events);
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
      for (const subscription of subscriptions) subscription.fail('lost');
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
