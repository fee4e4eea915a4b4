// Postgres goes away while events are published. Milestones wait, streamed text goes on; afterwards everything is stored, once.

import { setTimeout as delay } from 'node:timers/promises';
import { openChaosServers } from './chaos-servers.ts';
import { auditEvents } from './event-audit.ts';
import { openEventChaos } from './event-chaos.ts';
import { taskIds as namesOf } from './event-chaos-plan.ts';
import { observe } from './event-observer.ts';
import { eventually } from './eventually.ts';
import { openTestStores } from './stores.ts';

export type PostgresAwayOptions = {
  readonly tasks: number;
  readonly perSecond: number;
  readonly awayMs: number;
  /** Load before and after. */
  readonly loadMs: number;
};

export async function takePostgresAway({ tasks, perSecond, awayMs, loadMs }: PostgresAwayOptions) {
  await using servers = await openChaosServers();
  await using test = await openTestStores({}, servers.servers);
  await using observer = await observe(servers.servers.redis, test.prefix);
  const taskIds = namesOf('away', tasks);
  const options = { servers: servers.servers, taskIds, perSecond, publishers: 2, persisters: 2 };
  await using chaos = await openEventChaos(test, options);
  const all = [...chaos.publishers, ...chaos.persisters];
  await delay(loadMs);
  const peakMb = () => Math.max(...all.map((one) => one.peakMb));
  const before = peakMb();
  // Heaps grow to a size of their own at first; what is kept for Postgres would go on growing.
  const early = delay(awayMs / 3).then(peakMb);
  await servers.stopPostgres(awayMs);
  const backAt = performance.now();
  const during = peakMb();
  await eventually(async () => {
    const { lagSeconds } = await chaos.state();
    if (lagSeconds > 1) throw new Error(`the event log lags by ${lagSeconds} s`);
  }, 60_000);
  const caughtUpMs = Math.round(performance.now() - backAt);
  await delay(loadMs);
  await chaos.finish();
  const drainedMs = await chaos.stored();
  await observer.caughtUp();
  const audit = await auditEvents(test, observer, { taskIds, epochs: 'one' });
  const { backlog } = await chaos.state();
  const memory = { peakMbBefore: before, peakMbEarly: await early, peakMb: during };
  return { ...audit, tasks, awayMs, caughtUpMs, drainedMs, backlog, ...memory };
}
