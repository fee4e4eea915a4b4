// What a reader has missed, where the stores that are asked one after the other know of different moments.

import { describe, expect, it } from 'vitest';
import { catchUp } from '../../src/gateway/catch-up.ts';
import type { Standing } from '../../src/stores/events.ts';
import type { TaskEvent } from '../../src/task/event.ts';

const milestone = (seq: number, epoch = 2): TaskEvent => ({
  taskId: 'task',
  seq,
  epoch,
  type: 'step_started',
  at: '2026-01-01T00:00:00.000Z',
  stepId: `s${seq}`,
});

/** Redis as it was, and Postgres as it is when it is asked. */
function storesOf(standing: Partial<Standing>, history: readonly TaskEvent[]) {
  const present = {
    origin: 0,
    newest: 2,
    standing: {
      epoch: 2,
      seq: 0,
      runId: 'run',
      ended: false,
      ring: [],
      texts: [],
      milestones: [],
      ...standing,
    },
    history: async () => history,
  };
  return { presents: { of: async () => present }, ledger: { result: async () => undefined } };
}

describe('catching up', () => {
  it('tells nothing that became visible after Redis was asked, since the live feed will', async () => {
    // An epoch that has just begun: nothing is in the ring yet, and the first of it is in Postgres a moment later.
    const stores = storesOf({ seq: 2 }, [milestone(1, 1), milestone(2, 1), milestone(3), milestone(4)]);
    const { events, cursor } = await catchUp(stores, 'task', undefined);
    expect(events.map(({ epoch, seq }) => [epoch, seq])).toEqual([
      [2, 1],
      [2, 2],
    ]);
    expect(cursor).toEqual({ epoch: 2, seq: 2 });
  });

  it('takes from Postgres what comes before the ring, and the rest from the ring', async () => {
    const stores = storesOf(
      { seq: 4, ring: [milestone(3), milestone(4)] },
      [1, 2, 3, 4].map((seq) => milestone(seq)),
    );
    const { events } = await catchUp(stores, 'task', { epoch: 2, seq: 1 });
    expect(events.map(({ seq }) => seq)).toEqual([2, 3, 4]);
  });
});
