import { expect, inject, it } from 'vitest';
import { killPublishersAndPersisters } from '../support/chaos-event-kills.ts';

const KILLS = Number(process.env['WEIR_FAULT_EVENT_KILLS'] ?? 20);

it('stores each milestone of a thousand tasks once and in order while publishers and persisters are killed', async ({
  task,
}) => {
  const options = { tasks: 1_000, perSecond: 6_000, kills: KILLS, everyMs: 2_000 };
  const { faults, ...figures } = await killPublishersAndPersisters({
    servers: inject('servers'),
    ...options,
  });
  task.meta.figures = { ...figures, faults: faults.length };
  expect(faults).toEqual([]);
  expect(figures.deltas).toBeGreaterThan(figures.milestones);
});
