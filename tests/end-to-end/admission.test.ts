import { expect, it } from 'vitest';
import { ADMISSION_FLEET, admission, TEN_CENTS } from '../support/chaos-admission.ts';
import { openFleet } from '../support/fleet.ts';

const FIVE_DOLLARS = 5_000_000_000n;

it('lets exactly fifty of seventy tasks through a limit of fifty times their cost', {
  timeout: 600_000,
}, async () => {
  await using fleet = await openFleet(ADMISSION_FLEET);
  const input = { ...TEN_CENTS, maxOutputTokens: 100 };
  const report = await admission(fleet, { tasks: 70, clients: 2, workers: 2, input });
  expect(report).toMatchObject({ reached: 50, completed: 50, refused: 20, settled: FIVE_DOLLARS });
  expect(report).toMatchObject({ refusedWithRoom: [], otherwise: [] });
  expect(report.highest).toBeLessThanOrEqual(FIVE_DOLLARS);
});
