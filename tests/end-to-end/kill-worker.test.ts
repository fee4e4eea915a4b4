import { expect, it } from 'vitest';
import { IMPATIENT, STORM_FLEET, storm } from '../support/chaos-storm.ts';
import { openFleet } from '../support/fleet.ts';

it('charges every request once when workers are killed at random moments', {
  timeout: 600_000,
}, async () => {
  await using fleet = await openFleet({ ...STORM_FLEET, env: { ...STORM_FLEET.env, ...IMPATIENT } });
  const report = await storm(fleet, {
    seed: 7,
    calls: 24,
    kills: 2,
    workers: 2,
    perSecond: 4,
    patienceMs: 15_000,
    drainMs: 300_000,
  });
  expect(report.faults).toEqual([]);
  expect(report).toMatchObject({ completed: 24, billable: 24 });
  expect(report.cutRequests).toBeGreaterThan(0);
  expect(report.counters).toBeGreaterThan(0);
});
