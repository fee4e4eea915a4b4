// What a process keeps of the events it has just handed on: only what joins on to a position without a gap, and no more than its bounds.

import { describe, expect, it } from 'vitest';
import { type HistoryRoom, LiveHistory } from '../../src/stores/live-history.ts';
import type { LiveBatch } from '../../src/stores/live-subscription.ts';
import type { EventType, TaskEvent } from '../../src/task/event.ts';

/** So many numbers, from `first` on; their types, where they are not deltas. */
function batchOf(
  first: number,
  count: number,
  {
    epoch = 1,
    bytes = 100,
    types = {},
  }: { epoch?: number; bytes?: number; types?: Record<number, EventType> } = {},
): LiveBatch {
  const events = Array.from({ length: count }, (_, index): TaskEvent => {
    const seq = first + index;
    return { taskId: 't', epoch, seq, type: types[seq] ?? 'call_delta', at: '2030-01-01T00:00:00.000Z' };
  });
  return { taskId: 't', epoch, first, last: first + count - 1, events, bytes };
}

function open(room: HistoryRoom = { bytes: 0 }) {
  return { room, history: new LiveHistory(room, 1_000) };
}

const numbersAfter = (history: LiveHistory, seq: number, epoch = 1) =>
  history.after({ epoch, seq })?.events.map((event) => event.seq);

describe('the live history of a task', () => {
  it('gives what came after a position, up to the last event', () => {
    const { history } = open();
    history.push(batchOf(5, 3));
    history.push(batchOf(8, 2));
    expect(numbersAfter(history, 4)).toEqual([5, 6, 7, 8, 9]);
    expect(numbersAfter(history, 6)).toEqual([7, 8, 9]);
    expect(numbersAfter(history, 9)).toEqual([]);
    expect(history.after({ epoch: 1, seq: 6 })?.at).toEqual({ epoch: 1, seq: 9 });
  });

  it('knows nothing of positions before, behind and beside it', () => {
    const { history } = open();
    expect(history.after({ epoch: 1, seq: 0 })).toBeUndefined();
    history.push(batchOf(5, 3));
    expect(history.after({ epoch: 1, seq: 3 })).toBeUndefined();
    expect(history.after({ epoch: 1, seq: 8 })).toBeUndefined();
    expect(history.after({ epoch: 2, seq: 6 })).toBeUndefined();
  });

  it.each([
    ['a number is missing', batchOf(9, 1)],
    ['an epoch begins', batchOf(8, 1, { epoch: 2 })],
  ])('begins anew where %s', (_, next) => {
    const { history } = open();
    history.push(batchOf(5, 3));
    history.push(next);
    expect(history.after({ epoch: 1, seq: 6 })).toBeUndefined();
    expect(numbersAfter(history, next.first - 1, next.epoch)).toEqual([next.first]);
  });

  it('tells a reader of the run before nothing, also where its end and the next run came together', () => {
    const { history, room } = open();
    history.push(batchOf(5, 3));
    history.push(batchOf(8, 4, { types: { 9: 'stream_end', 10: 'task_started' } }));
    expect(history.after({ epoch: 1, seq: 8 })).toBeUndefined();
    expect(numbersAfter(history, 9)).toEqual([10, 11]);
    history.clear();
    expect(room.bytes).toBe(0);
  });

  it('leaves a reader that has the end to those who know whether a run follows', () => {
    const { history } = open();
    history.push(batchOf(5, 3, { types: { 7: 'stream_end' } }));
    expect(numbersAfter(history, 6)).toEqual([7]);
    expect(history.after({ epoch: 1, seq: 7 })).toBeUndefined();
  });

  it('keeps the last events that its bound has room for', () => {
    const { history, room } = open();
    for (let first = 1; first <= 10; first += 1) history.push(batchOf(first, 1, { bytes: 32_768 }));
    expect(room.bytes).toBe(131_072);
    expect(history.after({ epoch: 1, seq: 5 })).toBeUndefined();
    expect(numbersAfter(history, 6)).toEqual([7, 8, 9, 10]);
    history.push(batchOf(11, 1, { bytes: 200_000 }));
    expect(history.after({ epoch: 1, seq: 10 })).toBeUndefined();
    expect(room.bytes).toBe(0);
  });

  it('goes back by so many events and no further', () => {
    const history = new LiveHistory({ bytes: 0 }, 3);
    for (let first = 1; first <= 9; first += 2) history.push(batchOf(first, 2));
    expect(numbersAfter(history, 7)).toEqual([8, 9, 10]);
    expect(history.after({ epoch: 1, seq: 6 })).toBeUndefined();
    expect(history.after({ epoch: 1, seq: 7 }, 1)).toBeUndefined();
    expect(history.after({ epoch: 1, seq: 8 }, 1)?.events).toHaveLength(2);
    history.saw({ epoch: 1, seq: 12 });
    history.saw({ epoch: 1, seq: 11 });
    expect(history.after({ epoch: 1, seq: 8 })).toBeUndefined();
    expect(numbersAfter(history, 9)).toEqual([10]);
    history.saw({ epoch: 0, seq: 99 });
    expect(history.after({ epoch: 1, seq: 8 })).toBeUndefined();
    history.saw({ epoch: 2, seq: 20 });
    expect(numbersAfter(history, 9)).toEqual([10]);
  });

  it('shares one bound with all others, and gives back what it forgets', () => {
    const { history, room } = open();
    const others = Array.from({ length: 63 }, () => new LiveHistory(room, 1_000));
    for (const other of others) other.push(batchOf(1, 1, { bytes: 131_072 }));
    history.push(batchOf(1, 1, { bytes: 131_072 }));
    expect(numbersAfter(history, 0)).toEqual([1]);
    others[0]?.clear();
    others[0]?.push(batchOf(1, 1, { bytes: 131_072 }));
    others[1]?.push(batchOf(2, 1, { bytes: 1 }));
    expect(room.bytes).toBeLessThanOrEqual(8 * 1_048_576);
    for (const one of [history, ...others]) one.clear();
    expect(room.bytes).toBe(0);
  });
});
