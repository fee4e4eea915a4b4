// A process that keeps the event log as workers and gateways do: persister and sweeper. Its one argument is JSON, see `ChaosOrder`.

import { setTimeout as pause } from 'node:timers/promises';
import { startPersisting } from '../../src/persist-events.ts';
import { createEventLog } from '../../src/stores/event-log.ts';
import { createEvents } from '../../src/stores/events.ts';
import { openChaosProcess, reportToParent } from './event-chaos-process.ts';

const SWEEP_AFTER_MS = 2_000;

async function main(): Promise<void> {
  const { order, log, postgres, redis } = openChaosProcess();
  let published = 0;
  reportToParent(() => ({ published, dropped: 0 }));
  await redis.ready(60_000);
  const eventLog = createEventLog(postgres, redis, {
    batchSize: 500,
    onRefused: ({ entry, error }) => log.error('an entry of the log was refused', { entry, error }),
  });
  const events = createEvents(postgres, redis, {
    ringCapacity: 512,
    onPublished: () => {
      published += 1;
    },
  });
  startPersisting({ eventLog, name: `${order.name}-${process.pid}`, intervalMs: 100, log });
  for (;;) {
    await pause(SWEEP_AFTER_MS);
    await postgres
      .exclusively('housekeeping.sweeper', () => events.sweep(SWEEP_AFTER_MS))
      .catch((error: unknown) => log.debug('comes again', { error }));
  }
}

await main();
