// From the events of a task to one reader's connection, whatever the wire. It waits for a connection that is full, and gives a reader up
// that stays too far behind; it never waits for another one.

import { once } from 'node:events';
import type { Writable } from 'node:stream';
import type { EventBatch } from './event-batch.ts';
import { SlowReaderError } from './follow.ts';
import type { OpenStreams } from './open-streams.ts';

/** One reader's connection. */
export type Outlet = {
  /** False when the connection has enough for now. */
  readonly write: (batch: EventBatch) => boolean;
  /** It has enough, and has not emitted `drain` yet. */
  readonly isFull: () => boolean;
  /** What emits `drain` then. */
  readonly emitter: () => Writable;
  /** Bytes that were written and the system has not taken yet. */
  readonly unsent: () => number;
  /** Bytes that the system has taken, ever. */
  readonly sent: () => number;
  /** Says that the stream is alive. */
  readonly beat: () => void;
  /** Ends the connection as it is. */
  readonly cut: () => void;
};

/** How a delivery ended: with its events, because the reader left, was too slow, or because the gateway stops. */
export type DeliveryEnd = 'over' | 'gone' | 'slow' | 'stopped';

/** What the making of events knows of who reads them. */
export type StreamReader = {
  /** Fires when nobody reads them any more. */
  readonly signal: AbortSignal;
  /** Bytes that were written and the system has not taken yet. */
  readonly unsent: () => number;
  /** Writes a batch at once, where the connection has room and everything before it is written; else false, and it must be yielded. */
  readonly accept: (batch: EventBatch) => boolean;
  /** It stays too far behind, and is waiting for its connection. */
  readonly onSlow: () => void;
};

export type Delivery = {
  /** Fires when the reader has left. */
  readonly gone: AbortSignal;
  readonly streams: OpenStreams;
  readonly events: (reader: StreamReader) => AsyncIterable<EventBatch>;
};

/** Resolves when nothing more is to be written. @throws what the events throw, but for slow readers */
export async function deliver(outlet: Outlet, { gone, streams, events }: Delivery): Promise<DeliveryEnd> {
  const slow = new AbortController();
  const signal = AbortSignal.any([gone, streams.closing]);
  // A connection that takes nothing would never say so by itself.
  const drained = AbortSignal.any([signal, slow.signal]);
  const accept = (batch: EventBatch) => {
    if (outlet.isFull()) return false;
    outlet.write(batch);
    return true;
  };
  const reader = { signal, unsent: outlet.unsent, accept, onSlow: () => slow.abort() };
  try {
    for await (const batch of events(reader))
      if (!outlet.write(batch) && !(await hasDrained(outlet, drained))) return 'gone';
  } catch (error) {
    if (error instanceof SlowReaderError || (slow.signal.aborted && !signal.aborted)) {
      streams.closed('slow');
      return 'slow';
    }
    if (!signal.aborted) throw error;
  }
  if (gone.aborted) return 'gone';
  if (!streams.closing.aborted) return 'over';
  streams.closed('stopped');
  return 'stopped';
}

/** False when the connection broke instead, of which its close is told a moment later. */
async function hasDrained(outlet: Outlet, signal: AbortSignal): Promise<boolean> {
  const emitter = outlet.emitter();
  try {
    await once(emitter, 'drain', { signal });
    return true;
  } catch (error) {
    if (signal.aborted || !emitter.destroyed) throw error;
    return false;
  }
}
