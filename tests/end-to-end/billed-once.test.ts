import { expect, it } from 'vitest';
import { compareCharges } from '../../dev/oracle/compare.ts';
import { killAfterCalls } from '../support/chaos-calls.ts';
import { RACE_PACE, raceCancellations } from '../support/chaos-races.ts';
import { priceList } from '../support/chaos-storm.ts';
import { openFleet } from '../support/fleet.ts';

const PATIENCE = { timeout: 600_000 };

it('bills one attempt once when its success and a cancellation race', PATIENCE, async () => {
  await using fleet = await openFleet({ provider: RACE_PACE });
  await fleet.startWorker();
  const { faults, ...figures } = await raceCancellations(fleet, 20, 5);
  expect(faults).toEqual([]);
  expect(figures).toMatchObject({ requests: 20, charges: 20, billable: 20, estimates: 0 });
});

it('has every charge in the ledger when its worker is killed right after its calls', PATIENCE, async () => {
  await using fleet = await openFleet();
  expect(await killAfterCalls(fleet, 20)).toBe(20);
});

it('writes four rows for three attempts that broke after output and one that did not', PATIENCE, async () => {
  await using fleet = await openFleet({ env: { WEIR_CALL_ATTEMPTS_PER_CANDIDATE: '4' } });
  await fleet.startWorker();
  const { taskId } = await fleet.tasks.start({
    userId: 'user',
    query: 'What does a weir measure? [[sim:{"cutAfterChunks":5,"times":3,"id":"four rows"}]]',
  });
  await fleet.tasks.result(taskId);
  const rows = await fleet.test.stores.accounts.rows({ taskIds: [taskId] });
  const requests = fleet.provider.requests();
  expect(requests.map((one) => one.outcome)).toEqual(['cut', 'cut', 'cut', 'completed']);
  expect(rows.map((row) => row.kind)).toEqual(['charge', 'charge', 'charge', 'charge']);
  expect(rows.every((row) => row.outputTokens > 0n && row.nanoUsd > 0n)).toBe(true);
  expect(rows.map((row) => row.billable)).toEqual([false, false, false, true]);
  expect(rows.map((row) => row.usageSource)).toEqual(['recounted', 'recounted', 'recounted', 'measured']);
  const { faults } = compareCharges({
    requests,
    rows,
    pricesOf: priceList(fleet.configDir),
    mayBeEstimated: () => false,
    answeredTasks: [taskId],
  });
  expect(faults).toEqual([]);
});
