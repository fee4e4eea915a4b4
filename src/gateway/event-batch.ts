// Events on their way to readers, a batch at a time. What is made of a batch (the choice of types, the bytes for a wire) is made once and
// shared by all readers of it, so that a thousand readers cost one encoding.

import type { LiveBatch } from '../stores/live-subscription.ts';
import type { EventType, TaskEvent } from '../task/event.ts';

/** What a reader asked for; readers that asked for the same have the same key. */
export type TypeFilter = { readonly key: string; readonly wants: (event: TaskEvent) => boolean };

/** Bytes of events as a wire carries them; a function of its own for each wire, kept as long as the program runs. */
export type Encoding = (events: readonly TaskEvent[]) => Buffer;

export class EventBatch {
  readonly events: readonly TaskEvent[];
  readonly #encoded = new Map<Encoding, Buffer>();
  readonly #selected = new Map<string, EventBatch>();
  readonly #derived = new Map<string, Promise<EventBatch>>();

  constructor(events: readonly TaskEvent[]) {
    this.events = events;
  }

  /** Only the events that a reader wants; all without a filter. */
  select(filter: TypeFilter | undefined): EventBatch {
    if (filter === undefined) return this;
    let selected = this.#selected.get(filter.key);
    if (selected === undefined) {
      const events = this.events.filter(filter.wants);
      selected = events.length === this.events.length ? this : new EventBatch(events);
      this.#selected.set(filter.key, selected);
    }
    return selected;
  }

  encode(encoding: Encoding): Buffer {
    let encoded = this.#encoded.get(encoding);
    if (encoded === undefined) {
      encoded = encoding(this.events);
      this.#encoded.set(encoding, encoded);
    }
    return encoded;
  }

  /** Another batch that is made of this one; made once for all that name the same key, and again after a failure. */
  derive(key: string, make: () => Promise<EventBatch>): Promise<EventBatch> {
    let derived = this.#derived.get(key);
    if (derived === undefined) {
      derived = make().catch((error: unknown) => {
        this.#derived.delete(key);
        throw error;
      });
      this.#derived.set(key, derived);
    }
    return derived;
  }
}

const batches = new WeakMap<LiveBatch, EventBatch>();

/** The same batch for every reader. */
export function toEventBatch(live: LiveBatch): EventBatch {
  let batch = batches.get(live);
  if (batch === undefined) {
    batch = new EventBatch(live.events);
    batches.set(live, batch);
  }
  return batch;
}

/** Events between two pieces' boundaries: a connection is not handed megabytes at once. */
const PIECE = 64;

const pieces = new WeakMap<TaskEvent, EventBatch>();

/**
 * What was missed, in pieces that end at fixed numbers: readers that come back together begin at different places, and share all pieces
 * but their first.
 */
export function toPieces(events: readonly TaskEvent[]): EventBatch[] {
  const batches: EventBatch[] = [];
  for (let at = 0; at < events.length; ) {
    let end = at + 1;
    while (end < events.length && end - at < 2 * PIECE && blockOf(events[end]) === blockOf(events[at]))
      end += 1;
    batches.push(toPiece(events.slice(at, end)));
    at = end;
  }
  return batches;
}

function blockOf(event: TaskEvent | undefined): number {
  return Math.floor((event?.seq ?? 0) / PIECE);
}

/** The same for the same events: those that were read together are the same objects. */
function toPiece(events: readonly TaskEvent[]): EventBatch {
  const [first] = events;
  const known = first === undefined ? undefined : pieces.get(first);
  if (known?.events.length === events.length && known.events.every((event, at) => event === events[at]))
    return known;
  const piece = new EventBatch(events);
  if (first !== undefined) pieces.set(first, piece);
  return piece;
}

const texts = new WeakMap<TaskEvent, string>();

/** JSON of an event, without line breaks; made once, whatever batches and wires it is in. */
export function jsonOf(event: TaskEvent): string {
  let text = texts.get(event);
  if (text === undefined) {
    text = JSON.stringify(event);
    texts.set(event, text);
  }
  return text;
}

/** @param types undefined: all. `reset` and `stream_end` always come, and `call_snapshot` where `call_delta` does */
export function toFilter(types: ReadonlySet<EventType> | undefined): TypeFilter | undefined {
  if (types === undefined) return undefined;
  return {
    key: [...types].sort().join(),
    wants: ({ type }) =>
      type === 'reset' ||
      type === 'stream_end' ||
      types.has(type) ||
      (type === 'call_snapshot' && types.has('call_delta')),
  };
}
