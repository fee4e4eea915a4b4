import { expect, it } from 'vitest';
import { freezeAndThaw, SHORT_LEASES } from '../support/chaos-freeze.ts';
import { openFleet } from '../support/fleet.ts';

const FREEZES = Number(process.env['WEIR_FAULT_FREEZES'] ?? 10);

it('fences workers that were frozen past their lease, and books the difference', async ({ task }) => {
  await using fleet = await openFleet({ env: SHORT_LEASES });
  const { faults, ...figures } = await freezeAndThaw(fleet, FREEZES);
  task.meta.figures = { ...figures, faults: faults.length };
  expect(faults).toEqual([]);
  expect(figures.frozenAttempts).toBeGreaterThanOrEqual(FREEZES);
  expect(figures).toMatchObject({ estimates: figures.frozenAttempts, adjustments: figures.frozenAttempts });
  expect(figures.billable).toBe(figures.tasks);
});
