import { expect, inject, it } from 'vitest';
import { freezeWhileStreaming } from '../support/chaos-event-freeze.ts';
import { openFleet } from '../support/fleet.ts';

/** Half of the defaults: a freeze is over sooner, and a worker that is merely slow is not taken for dead. */
const LEASES = {
  WEIR_CALL_HEARTBEAT_TIMEOUT: '5s',
  WEIR_CALL_LEASE: '5s',
  WEIR_CALL_LEASE_RENEWAL: '1s',
} as const;
const FREEZES = Number(process.env['WEIR_FAULT_FREEZES'] ?? 10);

it('shows nothing of workers that were frozen in mid-stream and wake after stream_end', async ({ task }) => {
  await using fleet = await openFleet({ env: LEASES });
  const { faults, ...figures } = await freezeWhileStreaming(fleet, inject('servers').redis, FREEZES);
  task.meta.figures = { ...figures, faults: faults.length };
  expect(faults).toEqual([]);
  expect(figures.refusedPieces).toBeGreaterThanOrEqual(FREEZES);
});
