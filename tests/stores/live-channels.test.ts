// When gathered events go on to their readers, on a clock that the test moves.

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LiveChannels } from '../../src/stores/live-channels.ts';
import type { TaskEvent } from '../../src/task/event.ts';

const COALESCE_MS = 50;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

/** A reader of each task that notes when it gets something, in milliseconds. */
function open(...taskIds: string[]) {
  const channels = new LiveChannels({
    coalesceMs: COALESCE_MS,
    historyEvents: 100,
    onFault: (_, error) => {
      throw error;
    },
  });
  const since = performance.now();
  const seqs = new Map(taskIds.map((taskId) => [taskId, 0]));
  const got = new Map<string, { at: number; first: number; last: number }[]>();
  const subscriptions = taskIds.map((taskId) => {
    const batches: { at: number; first: number; last: number }[] = [];
    got.set(taskId, batches);
    const subscription = channels.subscribe(taskId, {
      backlogEvents: 1_000,
      backlogBytes: 1_000_000,
      onClose: () => undefined,
      accept: ({ first, last }) => {
        batches.push({ at: Math.round(performance.now() - since), first, last });
        return true;
      },
    });
    subscription.begin();
    subscription.join({ epoch: 1, seq: 0 });
    void subscription.next();
    return subscription;
  });
  return {
    got,
    subscriptions,
    recent: (taskId: string, seq: number) =>
      channels.recent(taskId, { epoch: 1, seq })?.events.map((event) => event.seq),
    publish(taskId: string, isInRing = true) {
      const seq = (seqs.get(taskId) ?? 0) + 1;
      seqs.set(taskId, seq);
      const event: TaskEvent = { taskId, epoch: 1, seq, type: 'call_delta', at: '2030-01-01T00:00:00.000Z' };
      channels.take({ taskId, epoch: 1, first: seq, bytes: 10, isInRing, events: () => [event] });
      channels.settle();
    },
  };
}

describe('events of one task', () => {
  it('go on at once after a rest, then together, never twice within their time', () => {
    const { got, publish } = open('a');
    for (let ms = 0; ms < 300; ms += 10) {
      publish('a');
      vi.advanceTimersByTime(10);
    }
    const batches = got.get('a') ?? [];
    expect(batches[0]).toEqual({ at: 0, first: 1, last: 1 });
    const gaps = batches.slice(1).map(({ at }, index) => at - (batches[index]?.at ?? 0));
    expect(gaps).toEqual(gaps.map(() => COALESCE_MS));
    expect(batches.at(-1)?.last).toBeGreaterThanOrEqual(26);
  });

  it('wait for their own time only, beside those of other tasks', () => {
    const { got, publish } = open('a', 'b');
    publish('a');
    vi.advanceTimersByTime(30);
    publish('b');
    publish('a');
    vi.advanceTimersByTime(10);
    publish('b');
    vi.advanceTimersByTime(100);
    expect(got.get('a')?.map(({ at }) => at)).toEqual([0, 50]);
    expect(got.get('b')?.map(({ at }) => at)).toEqual([30, 80]);
  });
});

it('tells nothing again of before an event that the ring has not', () => {
  const { publish, recent } = open('a');
  const publishAlone = (isInRing: boolean) => {
    publish('a', isInRing);
    vi.advanceTimersByTime(100);
  };
  for (const isInRing of [true, true, false]) publishAlone(isInRing);
  expect(recent('a', 3)).toBeUndefined();
  publishAlone(true);
  expect(recent('a', 3)).toEqual([4]);
  expect(recent('a', 2)).toBeUndefined();
  // Gathered together they count as what is worst among them.
  publishAlone(true);
  publish('a', true);
  publish('a', true);
  publish('a', false);
  publish('a', true);
  vi.advanceTimersByTime(100);
  expect([5, 6, 8].map((seq) => recent('a', seq))).toEqual([undefined, undefined, undefined]);
});

it('hands on nothing of a task whose last reader left meanwhile', () => {
  const { got, publish, subscriptions } = open('a');
  publish('a');
  publish('a');
  subscriptions[0]?.close();
  vi.advanceTimersByTime(100);
  expect(got.get('a')).toHaveLength(1);
});
