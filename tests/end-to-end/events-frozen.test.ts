import { expect, inject, it } from 'vitest';
import { freezeWhileStreaming } from '../support/chaos-event-freeze.ts';
import { IMPATIENT } from '../support/chaos-storm.ts';
import { openFleet } from '../support/fleet.ts';

it('shows nothing of a worker that was frozen in mid-stream and wakes after stream_end', {
  timeout: 600_000,
}, async () => {
  await using fleet = await openFleet({ env: IMPATIENT });
  const { faults, ...figures } = await freezeWhileStreaming(fleet, inject('servers').redis, 1);
  expect(faults).toEqual([]);
  expect(figures.refusedPieces).toBeGreaterThan(0);
});
