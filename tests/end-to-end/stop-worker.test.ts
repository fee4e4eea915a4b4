// SIGTERM of a worker: what runs within the grace time finishes, the rest goes on elsewhere, and no user pays for it twice.

import { expect, it } from 'vitest';
import {
  STOP_FLEET,
  STOP_QUERY,
  startWithProvider,
  stopDuringStreams,
  untilStreamed,
} from '../support/chaos-stop.ts';
import { eventually } from '../support/eventually.ts';
import { openFleet } from '../support/fleet.ts';

const PATIENCE = { timeout: 600_000 };

it(
  'finishes its streams or hands them over to another worker, billed once and without an estimate',
  PATIENCE,
  async () => {
    await using fleet = await openFleet(STOP_FLEET);
    const report = await stopDuringStreams(fleet, 20);
    expect(report.faults).toEqual([]);
    expect(report).toMatchObject({ exitCodes: [0, 0], completed: 20, billable: 20, estimates: 0 });
    expect(report).toMatchObject({ handedOver: 20, requests: 40, charges: 40 });
    expect(report.finished).toBeGreaterThan(0);
  },
);

it('says that it is not ready once it stops, and ends at once at the second signal', PATIENCE, async () => {
  await using fleet = await openFleet(STOP_FLEET);
  await using stopping = await startWithProvider(fleet, { grace: '1h', chunkDelayMs: 10_000 });
  const { worker, provider } = stopping;
  await fleet.tasks.start({ userId: 'user', query: STOP_QUERY });
  await untilStreamed(provider, 1);
  const ready = worker.metricsUrl.replace('/metrics', '/health/ready');
  expect((await fetch(ready)).status).toBe(200);
  process.kill(worker.pid, 'SIGTERM');
  await eventually(async () => {
    const answer = await fetch(ready);
    expect([answer.status, await answer.json()]).toMatchObject([503, { checks: { worker: 'failed' } }]);
  });
  // It waits for its stream still.
  expect(provider.requests().map((one) => one.outcome)).toEqual([null]);
  process.kill(worker.pid, 'SIGTERM');
  expect(await worker.exited).toBe(null);
});
