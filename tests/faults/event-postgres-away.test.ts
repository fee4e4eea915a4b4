import { expect, it } from 'vitest';
import { takePostgresAway } from '../support/chaos-event-outage.ts';

const AWAY_MS = Number(process.env['WEIR_FAULT_EVENT_AWAY_MS'] ?? 60_000);

it('keeps its memory and loses nothing but deltas while Postgres is away for a minute', async ({ task }) => {
  const options = { tasks: 1_000, perSecond: 5_000, awayMs: AWAY_MS, loadMs: 5_000 };
  const { faults, ...figures } = await takePostgresAway(options);
  task.meta.figures = { ...figures, faults: faults.length };
  expect(faults).toEqual([]);
  expect(figures.backlog).toBe(0);
  // What is kept is at most a batch and the calls under way, however long it takes.
  expect(figures.peakMb).toBeLessThan(figures.peakMbEarly + 50);
});
