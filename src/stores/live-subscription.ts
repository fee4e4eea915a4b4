// What one reader of a task has yet to take of the live feed. It holds no more than its bounds, notices what does not join on to the
// reader's position, and never makes anybody wait.

import type { Cursor, TaskEvent } from '../task/event.ts';

/** Events of one task that were made visible one after the other. All its readers get the same object. */
export type LiveBatch = {
  readonly taskId: string;
  readonly epoch: number;
  /** Numbers of the first and the last event; none is missing between them. */
  readonly first: number;
  readonly last: number;
  readonly events: readonly TaskEvent[];
  /** Of their JSON, as it came. */
  readonly bytes: number;
};

/** `lost`: something is missing from here on, the reader must catch up. `slow`: it had too much to take. `idle`: nothing came in time. */
export type LiveStep = LiveBatch | 'lost' | 'slow' | 'idle' | 'closed';

export type SubscriptionOptions = {
  /** A reader that has more than this to take is given up. */
  readonly backlogEvents: number;
  readonly backlogBytes: number;
  /** Bytes that the reader took and that are not sent yet: they count as well. */
  readonly unsent?: (() => number) | undefined;
  /**
   * Takes the next batch at once, while the reader waits for it: that spares it a way through its queue and promises. False: it goes that
   * way. It must not throw.
   */
  readonly accept?: ((batch: LiveBatch) => boolean) | undefined;
  /** The reader is given up: it may be waiting for its connection, and not for the next step. */
  readonly onSlow?: (() => void) | undefined;
  readonly onClose: () => void;
};

export class LiveSubscription {
  readonly #options: SubscriptionOptions;
  #queue: LiveBatch[] = [];
  #events = 0;
  #bytes = 0;
  /** The last number that is in the queue or was taken; undefined while the reader catches up. */
  #at: Cursor | undefined;
  #flaw: 'lost' | 'slow' | 'closed' | undefined = 'lost';
  #wake: ((step: LiveStep) => void) | undefined;

  constructor(options: SubscriptionOptions) {
    this.#options = options;
  }

  /** Before the reader reads what it missed: from now on everything is kept for `join`. */
  begin(): void {
    this.#forget();
    this.#at = undefined;
    if (this.#flaw !== 'closed') this.#flaw = undefined;
  }

  /** The reader has everything up to here; what was kept meanwhile goes on from there, or is lost. */
  join(at: Cursor): void {
    const kept = this.#queue;
    this.#forget();
    this.#at = at;
    for (const batch of kept) this.push(batch);
  }

  /** The next batch, in order. What was kept before a loss comes before it. @param forMs left out: waits for ever */
  next(forMs?: number): Promise<LiveStep> {
    const step = this.#take();
    if (step !== undefined) return Promise.resolve(step);
    return new Promise((resolve) => {
      const timer = forMs === undefined ? undefined : setTimeout(() => this.#answer('idle'), forMs);
      this.#wake = (given) => {
        clearTimeout(timer);
        resolve(given);
      };
    });
  }

  push(batch: LiveBatch): void {
    if (this.#flaw !== undefined) return;
    const at = this.#at;
    const isFull = this.#isFull();
    if (at === undefined) {
      // Whoever still catches up is not slow yet: it catches up once more.
      if (isFull) this.fail('lost');
      else this.#keep(batch);
      return;
    }
    const joined = joining(batch, at);
    if (joined === 'old') return;
    if (joined === 'lost') this.fail('lost');
    else if (isFull) this.fail('slow');
    else {
      this.#at = { epoch: batch.epoch, seq: batch.last };
      if (this.#wake === undefined) this.#keep(joined);
      else if (this.#options.accept?.(joined) !== true) this.#answer(joined);
    }
  }

  /** From here on something is missing. */
  fail(flaw: 'lost' | 'slow'): void {
    if (this.#flaw !== undefined) return;
    this.#flaw = flaw;
    if (flaw === 'slow' || this.#at === undefined) this.#forget();
    if (this.#wake !== undefined) this.#answer(flaw);
    else if (flaw === 'slow') this.#options.onSlow?.();
  }

  close(): void {
    if (this.#flaw === 'closed') return;
    this.#flaw = 'closed';
    this.#forget();
    if (this.#wake !== undefined) this.#answer('closed');
    this.#options.onClose();
  }

  #isFull(): boolean {
    const { backlogEvents, backlogBytes, unsent } = this.#options;
    return this.#events > backlogEvents || this.#bytes + (unsent?.() ?? 0) > backlogBytes;
  }

  #take(): LiveStep | undefined {
    if (this.#flaw === 'closed' || this.#flaw === 'slow') return this.#flaw;
    const batch = this.#at === undefined ? undefined : this.#queue.shift();
    if (batch === undefined) return this.#flaw;
    this.#events -= batch.events.length;
    this.#bytes -= batch.bytes;
    return batch;
  }

  #keep(batch: LiveBatch): void {
    this.#queue.push(batch);
    this.#events += batch.events.length;
    this.#bytes += batch.bytes;
  }

  #forget(): void {
    this.#queue = [];
    this.#events = 0;
    this.#bytes = 0;
  }

  #answer(step: LiveStep): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.(step);
  }
}

/** The part of a batch that is news at a position; `old` where nothing is, `lost` where something is missing before it. */
function joining(batch: LiveBatch, at: Cursor): LiveBatch | 'old' | 'lost' {
  if (batch.epoch < at.epoch || (batch.epoch === at.epoch && batch.last <= at.seq)) return 'old';
  if (batch.epoch > at.epoch || batch.first > at.seq + 1) return 'lost';
  if (batch.first === at.seq + 1) return batch;
  const events = batch.events.slice(at.seq + 1 - batch.first);
  return { ...batch, first: at.seq + 1, events };
}
