import { expect, it } from 'vitest';
import { openChaosServers } from '../support/chaos-servers.ts';
import { SEED, STORM_FLEET, storm, stormFigures } from '../support/chaos-storm.ts';
import { openFleet } from '../support/fleet.ts';

const KILLS = Number(process.env['WEIR_FAULT_KILLS'] ?? 100);

it('charges every request once while workers are killed and every server fails', async ({ task }) => {
  await using chaos = await openChaosServers();
  await using fleet = await openFleet({ ...STORM_FLEET, servers: chaos.servers });
  const outages = [
    ...Array.from({ length: 8 }, () => () => chaos.flushRedis()),
    () => chaos.emptyRedis(3_000),
    () => chaos.emptyRedis(3_000),
    () => chaos.ageRedis(5_000),
    () => chaos.stopPostgres(3_000),
    () => chaos.killPostgres(3_000),
    () => chaos.killTemporal(5_000),
  ];
  const options = { seed: SEED, calls: 15 * KILLS, kills: KILLS, workers: 4, perSecond: 4, outages };
  const report = await storm(fleet, options);
  task.meta.figures = { ...stormFigures(options, report), outages: outages.length };
  expect(report.faults).toEqual([]);
  expect(report.completed).toBe(options.calls);
  expect(report.billable).toBe(options.calls);
  expect(report.cutRequests).toBeGreaterThan(0);
  expect(report.counters).toBeGreaterThan(0);
});
