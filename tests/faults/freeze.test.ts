import { expect, it } from 'vitest';
import { freezeAndThaw } from '../support/chaos-freeze.ts';
import { openFleet } from '../support/fleet.ts';

/** Half of the defaults: a freeze is over sooner, and a worker that is merely slow is not taken for dead. */
const LEASES = {
  WEIR_CALL_HEARTBEAT_TIMEOUT: '5s',
  WEIR_CALL_LEASE: '5s',
  WEIR_CALL_LEASE_RENEWAL: '1s',
} as const;
const FREEZES = Number(process.env['WEIR_FAULT_FREEZES'] ?? 10);

it('fences workers that were frozen past their lease, and books the difference', async ({ task }) => {
  await using fleet = await openFleet({ env: LEASES });
  const { faults, ...figures } = await freezeAndThaw(fleet, FREEZES);
  task.meta.figures = { ...figures, faults: faults.length };
  expect(faults).toEqual([]);
  expect(figures.frozenAttempts).toBeGreaterThanOrEqual(FREEZES);
  expect(figures).toMatchObject({ estimates: figures.frozenAttempts, adjustments: figures.frozenAttempts });
  expect(figures.billable).toBe(figures.tasks);
});
