// Publishers and persisters that are killed at random moments under load. What Postgres holds in the end is compared with what a reader of
// the feeds saw.

import { setTimeout as delay } from 'node:timers/promises';
import { auditEvents } from './event-audit.ts';
import { openEventChaos } from './event-chaos.ts';
import { taskIds as namesOf } from './event-chaos-plan.ts';
import { observe } from './event-observer.ts';
import { eventually } from './eventually.ts';
import { openTestStores, type Servers } from './stores.ts';

export type EventKillsOptions = {
  readonly servers: Servers;
  readonly tasks: number;
  readonly perSecond: number;
  /** Of a publisher, and as many of a persister. */
  readonly kills: number;
  /** Between two kills. */
  readonly everyMs: number;
};

const LAG_SECONDS = 1;

export async function killPublishersAndPersisters(options: EventKillsOptions) {
  const { servers, kills, everyMs } = options;
  await using test = await openTestStores({}, servers);
  await using observer = await observe(servers.redis, test.prefix);
  const taskIds = namesOf('kill', options.tasks);
  await using chaos = await openEventChaos(test, { ...options, taskIds, publishers: 2, persisters: 2 });
  const since = performance.now();
  const before = observer.events();
  const recoveries: number[] = [];
  for (let kill = 0; kill < kills; kill += 1) {
    await delay(everyMs * (0.5 + Math.random()));
    await chaos.publishers[kill % 2]?.restart();
    await delay(everyMs * (0.5 + Math.random()));
    const killedAt = performance.now();
    await chaos.persisters[kill % 2]?.restart();
    await eventually(async () => {
      const { lagSeconds } = await chaos.state();
      if (lagSeconds > LAG_SECONDS) throw new Error(`the event log lags by ${lagSeconds} s`);
    }, 60_000);
    recoveries.push(performance.now() - killedAt);
  }
  const perSecond = ((observer.events() - before) / (performance.now() - since)) * 1_000;
  await chaos.finish();
  const drainedMs = await chaos.stored();
  await observer.caughtUp();
  const audit = await auditEvents(test, observer, { taskIds, epochs: 'one' });
  return {
    ...audit,
    kills: 2 * kills,
    tasks: taskIds.length,
    eventsPerSecond: Math.round(perSecond),
    recoveredWithinMs: Math.round(Math.max(...recoveries)),
    drainedMs,
    peakMb: Math.max(...[...chaos.publishers, ...chaos.persisters].map(({ peakMb }) => peakMb)),
  };
}
