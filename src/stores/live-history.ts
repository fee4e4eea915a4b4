// The last events of a task that this process has handed to readers: whoever comes back soon is served from here, and costs no store
// anything. It is bounded, per task and in all, and never holds events between which one is missing. It goes back no further than rings
// do: a reader that was told events behind a gap, and left before the snapshot for it, has a position there at which only that helps.

import type { Cursor, TaskEvent } from '../task/event.ts';
import type { LiveBatch } from './live-subscription.ts';

/** Events after a position, none missing, up to the last one that readers have. */
export type Recent = { readonly events: readonly TaskEvent[]; readonly at: Cursor };

/** What the histories of all tasks hold together. */
export type HistoryRoom = { bytes: number };

/** Of JSON; as objects and as what was sent it is several times as much. */
const MAX_BYTES = 131_072;
const MAX_BYTES_IN_ALL = 8 * 1_048_576;

export class LiveHistory {
  readonly #room: HistoryRoom;
  readonly #mostEvents: number;
  #batches: LiveBatch[] = [];
  #bytes = 0;
  /** The newest event that somebody found elsewhere. */
  #seen: Cursor | undefined;

  constructor(room: HistoryRoom, mostEvents: number) {
    this.#room = room;
    this.#mostEvents = mostEvents;
  }

  push(batch: LiveBatch): void {
    const last = this.#batches.at(-1);
    const isNext = last?.epoch === batch.epoch && last.last + 1 === batch.first;
    // What a run before has told is nothing to the readers of the next one.
    const begin = batch.events.findLastIndex(({ type }) => type === 'task_started');
    if (!isNext || begin >= 0) this.clear();
    const events = begin < 0 ? batch.events : batch.events.slice(begin);
    this.#batches.push(begin <= 0 ? batch : { ...batch, first: batch.last - events.length + 1, events });
    this.#add(batch.bytes);
    while (this.#bytes > MAX_BYTES || this.#room.bytes > MAX_BYTES_IN_ALL) {
      const oldest = this.#batches.shift();
      if (oldest === undefined) return;
      this.#add(-oldest.bytes);
    }
  }

  /**
   * Undefined where the position is not one in here, or nothing can come after it.
   * @param waiting events that come next and are not in here yet
   */
  after(at: Cursor, waiting = 0): Recent | undefined {
    const first = this.#batches[0];
    const last = this.#batches.at(-1);
    if (first === undefined || last === undefined || at.epoch !== last.epoch) return undefined;
    const seen = this.#seen?.epoch === last.epoch ? this.#seen.seq : 0;
    const newest = Math.max(last.last + waiting, seen);
    const least = Math.max(first.first - 1, newest - this.#mostEvents);
    if (at.seq < least || at.seq > last.last) return undefined;
    if (at.seq === last.last && last.events.at(-1)?.type === 'stream_end') return undefined;
    const events = this.#batches.flatMap((batch) =>
      batch.last <= at.seq ? [] : batch.events.slice(Math.max(0, at.seq + 1 - batch.first)),
    );
    return { events, at: { epoch: last.epoch, seq: last.last } };
  }

  /** The stores have events up to here already: what readers were told behind a gap is measured by that. */
  saw(at: Cursor): void {
    const before = this.#seen;
    if (before?.epoch === at.epoch ? at.seq > before.seq : at.epoch > (before?.epoch ?? 0)) this.#seen = at;
  }

  clear(): void {
    this.#batches = [];
    this.#add(-this.#bytes);
  }

  #add(bytes: number): void {
    this.#bytes += bytes;
    this.#room.bytes += bytes;
  }
}
