import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { followThrough } from '../support/chaos-event-readers.ts';
import { openChaosServers } from '../support/chaos-servers.ts';

it('tells every reader the whole story when Redis is emptied and comes back with old data', {
  timeout: 600_000,
}, async () => {
  await using chaos = await openChaosServers();
  const options = { servers: chaos.servers, tasks: 10, readersPerTask: 2, perSecond: 300 };
  const { faults, ...figures } = await followThrough(options, async () => {
    await delay(500);
    await chaos.flushRedis();
    await delay(1_000);
    await chaos.ageRedis(1_000);
    await delay(1_000);
  });
  expect(faults).toEqual([]);
  expect(figures.resets + figures.snapshots).toBeGreaterThan(0);
});
