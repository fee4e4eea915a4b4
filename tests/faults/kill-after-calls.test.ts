import { expect, it } from 'vitest';
import { killAfterCalls } from '../support/chaos-calls.ts';
import { openFleet } from '../support/fleet.ts';

it('has two hundred charges in the ledger when its worker is killed right after two hundred calls', async ({
  task,
}) => {
  await using fleet = await openFleet();
  const charges = await killAfterCalls(fleet, 200);
  task.meta.figures = { calls: 200, 'charges at the kill': charges };
  expect(charges).toBe(200);
});
