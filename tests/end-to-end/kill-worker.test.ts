import { expect, it } from 'vitest';
import { openFleet } from '../support/fleet.ts';
import { killInMidStream } from '../support/kill-workers.ts';

// Shorter than the defaults, so that a lost attempt is noticed in two seconds; the long run under tests/faults uses the defaults.
const IMPATIENT = {
  WEIR_CALL_HEARTBEAT_TIMEOUT: '2s',
  WEIR_CALL_LEASE: '2s',
  WEIR_CALL_LEASE_RENEWAL: '500ms',
} as const;
const SLOW = { firstTokenMs: 200, chunkDelayMs: 100, tokensPerChunk: 2 } as const;

it('charges every request once when the only worker is killed in mid-stream twice', {
  timeout: 120_000,
}, async () => {
  await using fleet = await openFleet({ provider: SLOW, env: IMPATIENT });
  const report = await killInMidStream(fleet, 2);
  expect(report.faults).toEqual([]);
  expect(report).toMatchObject({ kills: 2, completed: 2, openHolds: 0 });
  expect(report.estimates + report.voids).toBeLessThanOrEqual(report.lostAttempts);
  expect(report.charges + report.estimates).toBeGreaterThanOrEqual(report.requests);
});
