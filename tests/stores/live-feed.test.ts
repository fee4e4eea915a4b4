// The live feeds as one process reads them for its readers: what they share, and what is noticed when something is missing.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventShardOf, feedKeys } from '../../src/stores/keys.ts';
import { LiveFeed, type LiveFeedOptions } from '../../src/stores/live-feed.ts';
import type { LiveBatch, LiveStep, LiveSubscription } from '../../src/stores/live-subscription.ts';
import { createStoredTask } from '../gateway/events.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

function openFeed(options: Partial<LiveFeedOptions> = {}) {
  const feed = new LiveFeed(test.redis, {
    coalesceMs: 50,
    ringCapacity: 512,
    backlogEvents: 1_000,
    backlogBytes: 262_144,
    ...options,
  });
  return { feed, [Symbol.asyncDispose]: () => feed.close() };
}

/** A subscription that is told of everything after the two events with which every task begins. */
async function followed(feed: LiveFeed, taskId: string): Promise<LiveSubscription> {
  const subscription = feed.subscribe(taskId);
  await feed.opened();
  subscription.begin();
  subscription.join({ epoch: 1, seq: 2 });
  return subscription;
}

async function begun(taskId: string) {
  const task = createStoredTask(test, taskId);
  await task.begin();
  return task;
}

function batchOf(step: LiveStep): LiveBatch {
  if (typeof step === 'string') throw new Error(`expected events, got ${step}`);
  return step;
}

async function textOf(subscription: LiveSubscription, length: number): Promise<string> {
  let text = '';
  while (text.length < length)
    for (const event of batchOf(await subscription.next(10_000)).events) text += event.data?.['text'] ?? '';
  return text;
}

describe('readers of one task', () => {
  it('are given the same batch, and those of another task nothing', async () => {
    await using own = openFeed();
    const task = await begun('shared');
    await begun('other');
    const readers = [await followed(own.feed, 'shared'), await followed(own.feed, 'shared')];
    const stranger = await followed(own.feed, 'other');
    await task.delta('a');
    const [first, second] = await Promise.all(readers.map((reader) => reader.next(10_000)));
    expect(batchOf(first ?? 'idle').events).toMatchObject([{ type: 'call_delta', seq: 3 }]);
    expect(first).toBe(second);
    expect(await stranger.next(50)).toBe('idle');
  });

  it('get what comes close together in one batch, in order', async () => {
    await using own = openFeed({ coalesceMs: 1_000 });
    const task = await begun('gathered');
    const reader = await followed(own.feed, 'gathered');
    await task.delta('0');
    expect(batchOf(await reader.next(10_000)).events).toHaveLength(1);
    for (let n = 1; n < 6; n += 1) await task.delta(String(n));
    expect(
      batchOf(await reader.next(10_000))
        .events.map(({ data }) => data?.['text'])
        .join(''),
    ).toBe('12345');
  });

  it('get each batch by itself where nothing is gathered', async () => {
    await using own = openFeed({ coalesceMs: 0 });
    const task = await begun('single');
    const reader = await followed(own.feed, 'single');
    for (let n = 0; n < 5; n += 1) await task.delta(String(n));
    for (let n = 0; n < 5; n += 1) expect(batchOf(await reader.next(10_000)).events).toHaveLength(1);
  });
});

describe('a reader', () => {
  it('that takes nothing is given up at its backlog, and the others go on', async () => {
    await using own = openFeed({ coalesceMs: 0, backlogEvents: 20 });
    const task = await begun('behind');
    const [slow, quick] = [await followed(own.feed, 'behind'), await followed(own.feed, 'behind')];
    const text = textOf(quick, 40);
    for (let n = 0; n < 40; n += 1) await task.delta('x');
    expect(await text).toBe('x'.repeat(40));
    expect(await slow.next(10_000)).toBe('slow');
  });

  it('whose connection holds more than its backlog is given up as well', async () => {
    await using own = openFeed({ backlogBytes: 1_000 });
    const task = await begun('unsent');
    const reader = own.feed.subscribe('unsent', { unsent: () => 2_000 });
    await own.feed.opened();
    reader.begin();
    reader.join({ epoch: 1, seq: 2 });
    await task.delta('x');
    expect(await reader.next(10_000)).toBe('slow');
  });

  it('keeps what comes while it catches up, and drops what it has by then', async () => {
    await using own = openFeed({ coalesceMs: 0 });
    const task = await begun('joining');
    const reader = own.feed.subscribe('joining');
    await own.feed.opened();
    reader.begin();
    const other = await followed(own.feed, 'joining');
    for (const text of ['a', 'b', 'c']) await task.delta(text);
    expect(await textOf(other, 3)).toBe('abc');
    reader.join({ epoch: 1, seq: 3 });
    expect(await textOf(reader, 2)).toBe('bc');
  });

  it('that lacks something before what comes is told', async () => {
    await using own = openFeed();
    const task = await begun('gap');
    const reader = own.feed.subscribe('gap');
    await own.feed.opened();
    reader.begin();
    await task.delta('a');
    await task.delta('b');
    reader.join({ epoch: 1, seq: 2 });
    expect(await textOf(reader, 2)).toBe('ab');
    reader.begin();
    reader.join({ epoch: 1, seq: 3 });
    await task.delta('c');
    expect(await reader.next(10_000)).toBe('lost');
  });
});

describe('a loss', () => {
  it('is noticed when entries were trimmed before they were read', async () => {
    await using own = openFeed();
    const task = await begun('trimmed');
    const reader = await followed(own.feed, 'trimmed');
    const { count } = feedKeys(test.redis.prefix, eventShardOf('trimmed'));
    // As if an entry had come and gone.
    await test.redis.command((client) => client.incr(count));
    await task.delta('a');
    expect(await reader.next(10_000)).toBe('lost');
  });

  it('is noticed when Redis was emptied, also while nothing comes', async () => {
    await using own = openFeed();
    const task = await begun('emptied');
    const reader = await followed(own.feed, 'emptied');
    await task.delta('a');
    expect(await textOf(reader, 1)).toBe('a');
    const { live, count } = feedKeys(test.redis.prefix, eventShardOf('emptied'));
    await test.redis.command((client) => client.del(live, count));
    expect(await reader.next(15_000)).toBe('lost');
  });

  it('is told to everybody when the feed ends', async () => {
    const own = openFeed();
    await begun('closed');
    const reader = await followed(own.feed, 'closed');
    const step = reader.next();
    await own.feed.close();
    expect(await step).toBe('closed');
    expect(await own.feed.subscribe('closed').next()).toBe('closed');
  });
});
