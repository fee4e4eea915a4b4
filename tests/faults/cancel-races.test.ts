import { expect, it } from 'vitest';
import { RACE_PACE, raceCancellations } from '../support/chaos-races.ts';
import { SEED } from '../support/chaos-storm.ts';
import { openFleet } from '../support/fleet.ts';

const RACES = Number(process.env['WEIR_FAULT_RACES'] ?? 40);

it('bills one attempt once when its success and a cancellation race', async ({ task }) => {
  await using fleet = await openFleet({ provider: RACE_PACE });
  await fleet.startWorker();
  const { faults, ...figures } = await raceCancellations(fleet, RACES, SEED);
  task.meta.figures = { seed: SEED, ...figures, faults: faults.length };
  expect(faults).toEqual([]);
  expect(figures).toMatchObject({ requests: RACES, charges: RACES, billable: RACES, estimates: 0 });
});
