import { setTimeout as delay } from 'node:timers/promises';
import { expect, inject, it } from 'vitest';
import { followThrough } from '../support/chaos-event-readers.ts';

it('tells readers that are cut off again and again every milestone once and the whole text of every call', {
  timeout: 600_000,
}, async () => {
  const options = { servers: inject('servers'), tasks: 10, readersPerTask: 5, perSecond: 300 };
  const { faults, ...figures } = await followThrough(options, async ({ relay }) => {
    for (let drop = 0; drop < 8; drop += 1) {
      await delay(100 + Math.random() * 300);
      relay.cut(0.5);
    }
  });
  expect(faults).toEqual([]);
  expect(figures.reconnects).toBeGreaterThan(figures.readers);
});
