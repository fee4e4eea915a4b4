import { expect, it } from 'vitest';
import { takePostgresAway } from '../support/chaos-event-outage.ts';

it('loses and doubles nothing of the event log while Postgres is away for some seconds', {
  timeout: 600_000,
}, async () => {
  const options = { tasks: 40, perSecond: 1_000, awayMs: 3_000, loadMs: 1_000 };
  const { faults, ...figures } = await takePostgresAway(options);
  expect(faults).toEqual([]);
  expect(figures.backlog).toBe(0);
  expect(figures.deltas).toBeGreaterThan(figures.milestones);
});
