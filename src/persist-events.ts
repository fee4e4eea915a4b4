// Keeps the event log going in one process: numbers of milestones go from Redis into their rows, batch by batch. Every worker and gateway
// runs one; they share the work and take over from each other.

import { setTimeout as pause } from 'node:timers/promises';
import type { Logger } from './log.ts';
import type { EventLog, Persister } from './stores/event-log.ts';

export type PersistOptions = {
  readonly eventLog: Pick<EventLog, 'openPersister'>;
  /** Of this process alone. */
  readonly name: string;
  /** Between two batches. */
  readonly intervalMs: number;
  readonly log: Logger;
};

/** After a failure: long enough to leave a server alone that comes back, short enough to be there when it does. */
const AGAIN_MS = 250;

/** Stores what comes until disposed; what it has under way then is finished, or left to the others where a store is away. */
export function startPersisting({ eventLog, name, intervalMs, log }: PersistOptions): AsyncDisposable {
  const persister = eventLog.openPersister(name);
  const stopping = new AbortController();
  const running = persist(persister, { intervalMs, log, signal: stopping.signal });
  return {
    async [Symbol.asyncDispose]() {
      stopping.abort(new Error('stopping'));
      await running;
      await persister
        .leave()
        .catch((error: unknown) => log.debug('the persister stays known to its group', { error }));
    },
  };
}

async function persist(
  persister: Persister,
  { intervalMs, log, signal }: { intervalMs: number; log: Logger; signal: AbortSignal },
): Promise<void> {
  let isWaiting = false;
  while (!signal.aborted) {
    let waitMs = intervalMs;
    try {
      if (await persister.pass()) waitMs = 0;
      if (isWaiting) log.info('the event log goes on');
      isWaiting = false;
    } catch (error) {
      if (isWaiting) log.debug('the event log waits', { error });
      else log.warn('the event log waits: a store did not answer', { error });
      isWaiting = true;
      waitMs = Math.max(intervalMs, AGAIN_MS);
    }
    await pause(waitMs, undefined, { signal }).catch(() => undefined /* stopped while waiting */);
  }
}
