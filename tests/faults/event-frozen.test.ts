import { expect, inject, it } from 'vitest';
import { freezeWhileStreaming } from '../support/chaos-event-freeze.ts';
import { SHORT_LEASES } from '../support/chaos-freeze.ts';
import { openFleet } from '../support/fleet.ts';

const FREEZES = Number(process.env['WEIR_FAULT_FREEZES'] ?? 10);

it('shows nothing of workers that were frozen in mid-stream and wake after stream_end', async ({ task }) => {
  await using fleet = await openFleet({ env: SHORT_LEASES });
  const { faults, ...figures } = await freezeWhileStreaming(fleet, inject('servers').redis, FREEZES);
  task.meta.figures = { ...figures, faults: faults.length };
  expect(faults).toEqual([]);
  expect(figures.refusedPieces).toBeGreaterThanOrEqual(FREEZES);
});
