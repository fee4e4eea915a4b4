// The event streams that are open now: counted, told when the gateway stops, and given a moment to say goodbye.

import type { ServerResponse } from 'node:http';
import type { Metrics } from '../metrics.ts';
import type { OpenRequests } from './open-requests.ts';

/** A stream that does not end within this time is cut with its connection. */
const GOODBYE_MS = 1_000;

export type OpenStreams = ReturnType<typeof createOpenStreams>;

export function createOpenStreams(
  metrics: Pick<Metrics, 'streamReaders'>,
  requests: Pick<OpenRequests, 'leave'>,
) {
  const stop = new AbortController();
  const open = new Set<Promise<void>>();
  metrics.streamReaders.set(0);
  return {
    /** Fires when the gateway stops: whoever waits for events ends. */
    closing: stop.signal,

    /** Runs a stream to its end. A stopping gateway does not wait for it longer than for a goodbye. */
    async run(response: ServerResponse, stream: () => Promise<void>): Promise<void> {
      requests.leave(response);
      const running = stream();
      open.add(running);
      metrics.streamReaders.set(open.size);
      try {
        await running;
      } finally {
        open.delete(running);
        metrics.streamReaders.set(open.size);
      }
    },

    /** Ends all streams; resolves when they have ended, or after a second. */
    async close(): Promise<void> {
      stop.abort();
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, GOODBYE_MS);
      });
      await Promise.race([Promise.allSettled(open), late]);
      clearTimeout(timer);
    },
  };
}
