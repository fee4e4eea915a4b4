// Tells the others that this process lives, and which calls it has under way without an activity; learns how many others there are.

import { randomUUID } from 'node:crypto';
import { pause } from './calls/pause.ts';
import type { Logger } from './log.ts';
import { PROCESS_RENEWAL_MS, type Processes, type ProcessKind } from './stores/processes.ts';

export type Presence = AsyncDisposable & {
  /** Owner of the holds of calls that no activity makes. */
  readonly owner: string;
  /** Their call keys: an entry is there before the call's hold and until after its end. */
  readonly calls: Set<string>;
};

const OWNER = /^process (.+)$/;

/** Renews the process's row until disposed, and removes it then. A renewal that fails is logged and comes again. */
export function startPresence(
  { kind, processes, log }: { kind: ProcessKind; processes: Processes; log: Logger },
  everyMs = PROCESS_RENEWAL_MS,
): Presence {
  const id = `${kind}-${randomUUID()}`;
  const calls = new Set<string>();
  const stopping = new AbortController();
  const renew = async () => {
    while (!stopping.signal.aborted) {
      try {
        await processes.renew(id, kind, [...calls]);
        await processes.liveCount();
      } catch (error) {
        log.warn('this process could not show that it lives, tries again', { error });
      }
      await pause(everyMs, stopping.signal).catch(() => undefined /* stopped while waiting */);
    }
  };
  const renewing = renew();
  return {
    owner: `process ${id}`,
    calls,
    async [Symbol.asyncDispose]() {
      stopping.abort(new Error('stopping'));
      await renewing;
      await processes.remove(id);
    },
  };
}

/** The life of every kind of owner: `process …` by its row, all others by `ofActivity`. */
export function ownerLife(
  processes: Pick<Processes, 'lifeOf'>,
  ofActivity: (owner: string) => Promise<number>,
): (owner: string, callKey: string) => Promise<number> {
  return (owner, callKey) => {
    const id = OWNER.exec(owner)?.[1];
    return id === undefined ? ofActivity(owner) : processes.lifeOf(id, callKey);
  };
}
