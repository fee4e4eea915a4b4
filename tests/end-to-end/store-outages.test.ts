import { expect, it } from 'vitest';
import { openChaosServers } from '../support/chaos-servers.ts';
import { IMPATIENT, STORM_FLEET, storm } from '../support/chaos-storm.ts';
import { openFleet } from '../support/fleet.ts';

it('charges every request once when Redis is flushed and emptied and Postgres stops', {
  timeout: 600_000,
}, async () => {
  await using chaos = await openChaosServers();
  await using fleet = await openFleet({
    ...STORM_FLEET,
    env: { ...STORM_FLEET.env, ...IMPATIENT },
    servers: chaos.servers,
  });
  const report = await storm(fleet, {
    ...{ seed: 11, calls: 30, kills: 1, workers: 2, perSecond: 10, drainMs: 300_000 },
    outages: [() => chaos.flushRedis(), () => chaos.emptyRedis(500), () => chaos.stopPostgres(500)],
  });
  expect(report.faults).toEqual([]);
  expect(report).toMatchObject({ completed: 30, billable: 30 });
  expect(report.counters).toBeGreaterThan(0);
});
