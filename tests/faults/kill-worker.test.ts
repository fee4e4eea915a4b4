import { expect, it } from 'vitest';
import { openFleet } from '../support/fleet.ts';
import { killInMidStream } from '../support/kill-workers.ts';

const SLOW = { firstTokenMs: 200, chunkDelayMs: 100, tokensPerChunk: 2 } as const;
const KILLS = Number(process.env['WEIR_FAULT_KILLS'] ?? 20);

it('charges every request once when the only worker is killed in mid-stream twenty times', async () => {
  await using fleet = await openFleet({ provider: SLOW });
  const report = await killInMidStream(fleet, KILLS);
  process.stdout.write(
    `kills ${report.kills}, attempts lost ${report.lostAttempts}, tasks completed ${report.completed}, provider requests ${report.requests}, charges ${report.charges}, ` +
      `estimates ${report.estimates}, voids ${report.voids}, open holds ${report.openHolds}, faults ${report.faults.length}\n`,
  );
  expect(report.faults).toEqual([]);
  expect(report).toMatchObject({ kills: KILLS, completed: KILLS, openHolds: 0 });
  expect(report.estimates + report.voids).toBeLessThanOrEqual(report.lostAttempts);
  expect(report.charges + report.estimates).toBeGreaterThanOrEqual(report.requests);
});
