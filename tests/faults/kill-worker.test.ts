import { expect, it } from 'vitest';
import { SEED, STORM_FLEET, storm, stormFigures } from '../support/chaos-storm.ts';
import { openFleet } from '../support/fleet.ts';

const KILLS = Number(process.env['WEIR_FAULT_KILLS'] ?? 100);

it('charges every request once while workers are killed at random moments', async ({ task }) => {
  await using fleet = await openFleet(STORM_FLEET);
  const options = { seed: SEED, calls: 15 * KILLS, kills: KILLS, workers: 4, perSecond: 4 };
  const report = await storm(fleet, options);
  task.meta.figures = stormFigures(options, report);
  expect(report.faults).toEqual([]);
  expect(report.completed).toBe(options.calls);
  expect(report.billable).toBe(options.calls);
  expect(report.cutRequests).toBeGreaterThan(0);
  expect(report.counters).toBeGreaterThan(0);
});
