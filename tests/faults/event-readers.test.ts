import { setTimeout as delay } from 'node:timers/promises';
import { expect, inject, it } from 'vitest';
import { followThrough } from '../support/chaos-event-readers.ts';

const DROPS = 20;

it('tells a thousand readers that are cut off at random every milestone once and the whole text of every call', async ({
  task,
}) => {
  const options = { servers: inject('servers'), tasks: 50, readersPerTask: 20, perSecond: 250 };
  const { faults, ...figures } = await followThrough(options, async ({ relay }) => {
    // Half of those that are there at a time, until each was cut off twenty times in the mean.
    for (let cuts = 0; cuts < DROPS * options.tasks * options.readersPerTask; cuts += relay.cut(0.5))
      await delay(500 + Math.random() * 1_000);
  });
  task.meta.figures = { ...figures, faults: faults.length };
  expect(faults).toEqual([]);
  expect(figures.reconnects).toBeGreaterThanOrEqual(figures.readers * DROPS);
});
