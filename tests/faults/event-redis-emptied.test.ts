import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { followThrough } from '../support/chaos-event-readers.ts';
import { openChaosServers } from '../support/chaos-servers.ts';

it('loses no milestone and no text of any reader while Redis is emptied, restarted and set back', async ({
  task,
}) => {
  await using chaos = await openChaosServers();
  const options = { servers: chaos.servers, tasks: 100, readersPerTask: 3, perSecond: 1_000 };
  const outages = [
    ...Array.from({ length: 5 }, () => () => chaos.flushRedis()),
    () => chaos.emptyRedis(3_000),
    () => chaos.emptyRedis(500),
    () => chaos.ageRedis(5_000),
    () => chaos.ageRedis(2_000),
  ];
  const { faults, ...figures } = await followThrough(options, async () => {
    for (const outage of outages) {
      await delay(2_000 + Math.random() * 2_000);
      await outage();
    }
    await delay(2_000);
  });
  task.meta.figures = { ...figures, outages: outages.length, faults: faults.length };
  expect(faults).toEqual([]);
  expect(figures.resets + figures.snapshots).toBeGreaterThan(0);
});
