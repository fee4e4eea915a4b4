import { expect, it } from 'vitest';
import { STOP_FLEET, stopDuringStreams } from '../support/chaos-stop.ts';
import { openFleet } from '../support/fleet.ts';

const STREAMS = Number(process.env['WEIR_FAULT_STREAMS'] ?? 50);

it('bills every call once, without an estimate, when workers are stopped in the middle of streams', async ({
  task,
}) => {
  await using fleet = await openFleet(STOP_FLEET);
  const { faults, exitCodes, ...report } = await stopDuringStreams(fleet, STREAMS);
  task.meta.figures = { streams: STREAMS, ...report, faults: faults.length };
  expect(faults).toEqual([]);
  expect(exitCodes).toEqual([0, 0]);
  expect(report).toMatchObject({ completed: STREAMS, billable: STREAMS, estimates: 0 });
  expect(report).toMatchObject({ handedOver: STREAMS, charges: 2 * STREAMS });
});
