// The event streams that are open now: counted, kept alive by one heartbeat for all, told when the gateway stops, and given a moment to
// say goodbye. A connection that takes nothing for long is dead, whatever its other end claims.

import type { ServerResponse } from 'node:http';
import type { Metrics, ReaderClosed } from '../metrics.ts';
import type { Outlet } from './deliver.ts';
import type { OpenRequests } from './open-requests.ts';

export type OpenStreams = ReturnType<typeof createOpenStreams>;

export type OpenStreamsOptions = {
  readonly metrics: Pick<Metrics, 'streamReaders' | 'readersClosed'>;
  readonly requests: Pick<OpenRequests, 'leave'>;
  readonly heartbeatMs: number;
  /** How long a connection may take nothing of what it was given; left out: 15 seconds. */
  readonly deadAfterMs?: number | undefined;
};

type Open = { readonly outlet: Outlet; readonly ended: Promise<void>; sent: number; sentAt: number };

/** A stream that does not end within this time is cut with its connection. */
const GOODBYE_MS = 1_000;
const DEFAULT_DEAD_AFTER_MS = 15_000;
const REASONS: readonly ReaderClosed[] = ['slow', 'dead', 'stopped'];

export function createOpenStreams({ metrics, requests, heartbeatMs, deadAfterMs }: OpenStreamsOptions) {
  const stop = new AbortController();
  const open = new Set<Open>();
  let heartbeat: NodeJS.Timeout | undefined;
  metrics.streamReaders.set(0);
  // So that the first one is seen as one.
  for (const reason of REASONS) metrics.readersClosed(reason, 0);

  const beat = () => {
    const now = performance.now();
    for (const one of open) {
      const sent = one.outlet.sent();
      const isMoving = one.outlet.unsent() === 0 || sent !== one.sent;
      one.sent = sent;
      if (isMoving) one.sentAt = now;
      if (isMoving) one.outlet.beat();
      else if (now - one.sentAt >= (deadAfterMs ?? DEFAULT_DEAD_AFTER_MS)) {
        metrics.readersClosed('dead');
        one.outlet.cut();
      }
    }
  };
  const count = () => {
    metrics.streamReaders.set(open.size);
    if (open.size === 0) clearInterval(heartbeat);
    if (open.size === 0) heartbeat = undefined;
    else heartbeat ??= setInterval(beat, heartbeatMs);
  };

  return {
    /** Fires when the gateway stops: whoever waits for events ends. */
    closing: stop.signal,

    /** The request turned out to be a stream: a stopping gateway does not wait for its answer. */
    adopt: (response: ServerResponse): void => requests.leave(response),

    /** The gateway ended a stream before its events did. */
    closed: (reason: ReaderClosed): void => metrics.readersClosed(reason),

    /** Runs a stream to its end. A stopping gateway does not wait for it longer than for a goodbye. */
    async run(outlet: Outlet, stream: () => Promise<void>): Promise<void> {
      const ended = stream();
      const one = { outlet, ended, sent: 0, sentAt: performance.now() };
      open.add(one);
      count();
      try {
        await ended;
      } finally {
        open.delete(one);
        count();
      }
    },

    /** Ends all streams; resolves when they have ended, or after a second, when what is left is cut. */
    async close(): Promise<void> {
      stop.abort();
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, GOODBYE_MS);
      });
      await Promise.race([Promise.allSettled([...open].map(({ ended }) => ended)), late]);
      clearTimeout(timer);
      for (const { outlet } of open) outlet.cut();
    },
  };
}
