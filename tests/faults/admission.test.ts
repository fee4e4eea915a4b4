import { expect, it } from 'vitest';
import { ADMISSION_FLEET, type AdmissionReport, admission, TEN_CENTS } from '../support/chaos-admission.ts';
import { openFleet } from '../support/fleet.ts';

const TASKS = Number(process.env['WEIR_FAULT_TASKS'] ?? 1_000);
const FIVE_DOLLARS = 5_000_000_000n;

it('lets exactly fifty of many tasks through a limit of fifty times their cost', async ({ task }) => {
  await using fleet = await openFleet(ADMISSION_FLEET);
  const input = { ...TEN_CENTS, maxOutputTokens: 100 };
  const report = await admission(fleet, { tasks: TASKS, clients: 4, workers: 3, input });
  task.meta.figures = figuresOf(report);
  expect(report).toMatchObject({ reached: 50, completed: 50, refused: TASKS - 50, settled: FIVE_DOLLARS });
  expect(report).toMatchObject({ refusedWithRoom: [], otherwise: [] });
  expect(report.highest).toBeLessThanOrEqual(FIVE_DOLLARS);
});

it('refuses nobody while the largest answer would fit beside what was settled', async ({ task }) => {
  await using fleet = await openFleet(ADMISSION_FLEET);
  const report = await admission(fleet, { tasks: TASKS, clients: 4, workers: 3, input: TEN_CENTS });
  task.meta.figures = figuresOf(report);
  // Each may cost $1.00 and costs $0.10: the last one is let in at $4.00.
  expect(report).toMatchObject({ reached: 41, completed: 41, refused: TASKS - 41, settled: 4_100_000_000n });
  expect(report).toMatchObject({ refusedWithRoom: [], otherwise: [] });
  expect(report.highest).toBeLessThanOrEqual(FIVE_DOLLARS);
});

function figuresOf({ reached, completed, refused, refusedWithRoom, highest, settled }: AdmissionReport) {
  const usd = (nano: bigint) => `$${(Number(nano) / 1e9).toFixed(2)}`;
  return {
    ...{ tasks: TASKS, reached, completed, refused, 'refused with room': refusedWithRoom.length },
    ...{ 'settled and held at most': usd(highest), settled: usd(settled) },
  };
}
