import { expect, inject, it } from 'vitest';
import { killPublishersAndPersisters } from '../support/chaos-event-kills.ts';

it('stores each milestone once and in order when publishers and persisters are killed', {
  timeout: 600_000,
}, async () => {
  const options = { tasks: 40, perSecond: 1_000, kills: 2, everyMs: 400 };
  const { faults, ...figures } = await killPublishersAndPersisters({
    servers: inject('servers'),
    ...options,
  });
  expect(faults).toEqual([]);
  expect(figures.deltas).toBeGreaterThan(figures.milestones);
});
