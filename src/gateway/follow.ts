// A task's events as one stream without gap or repeat, from any position, until they end: first what was missed, then what the live feed
// brings. Whatever does not join on to the reader's position sends it back to catching up.

import { pause } from '../calls/pause.ts';
import type { LiveFeed } from '../stores/live-feed.ts';
import type { LiveBatch, LiveSubscription } from '../stores/live-subscription.ts';
import type { Cursor, EventType, TaskEvent } from '../task/event.ts';
import { type CatchUpStores, catchUp, lackingText, withAnswers } from './catch-up.ts';
import { EventBatch, type TypeFilter, toEventBatch, toFilter, toPieces } from './event-batch.ts';

export type FollowStores = CatchUpStores & {
  readonly liveFeed: Pick<LiveFeed, 'subscribe' | 'opened' | 'recent' | 'saw'>;
};

export type FollowOptions = {
  /** The last event the reader has; absent: from the beginning. */
  readonly after?: Cursor | undefined;
  /** Only these; `reset` and `stream_end` always come, and `call_snapshot` where `call_delta` does. */
  readonly types?: ReadonlySet<EventType> | undefined;
  /** Ends the stream without an error. */
  readonly signal: AbortSignal;
  /** Bytes that were taken and are not sent yet: they count towards what a reader may stay behind. */
  readonly unsent?: () => number;
  /** Takes a batch at once, past the generator, which is waiting for one; false: it is yielded. */
  readonly accept?: (batch: EventBatch) => boolean;
  /** The reader stays too far behind, while it waits for its connection to take what it has. */
  readonly onSlow?: () => void;
  /** How a task ended that leaves no events: asked while nothing has come. */
  readonly endedSilently?: () => Promise<string | undefined>;
  /** A store did not answer; the stream goes on when it does. */
  readonly onOutage?: (error: unknown) => void;
};

/** A reader had more to take than is kept for one; it may come back with the id of the last event it has. */
export class SlowReaderError extends Error {
  constructor(taskId: string) {
    super(`a reader of ${taskId} stayed too far behind`);
    this.name = 'SlowReaderError';
  }
}

/** How often a task is asked after of which nothing has come. */
const POLL_MS = 2_000;
const AGAIN_MS = 500;
/**
 * Batches are shared by all readers of a task: change nothing in them. Ends after `stream_end`, at once for a reader that has it already.
 * Never throws for a store that is away: it waits.
 * @throws SlowReaderError
 */
export async function* follow(
  stores: FollowStores,
  taskId: string,
  options: FollowOptions,
): AsyncGenerator<EventBatch> {
  const { signal } = options;
  const filter = toFilter(options.types);
  const subscription = stores.liveFeed.subscribe(taskId, {
    ...options,
    accept: (live) => follower.accept(live, filter),
  });
  const close = () => subscription.close();
  signal.addEventListener('abort', close, { once: true });
  const follower = new Follower(stores, taskId, { ...options, subscription });
  try {
    for (;;) {
      const batch = await follower.next();
      if (batch === undefined) return;
      const wanted = batch.select(filter);
      if (wanted.events.length > 0) yield wanted;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', close);
    close();
  }
}

/** One reader's way: catching up, then live, then perhaps catching up again. */
class Follower {
  readonly #stores: FollowStores;
  readonly #taskId: string;
  readonly #options: FollowOptions & { readonly subscription: LiveSubscription };
  /** The last event that the reader was given; undefined while there was none. */
  #told: Cursor | undefined;
  /** What was missed and is not given yet. */
  #pieces: EventBatch[] = [];
  /** The position after them, while there are some. */
  #joinAt: Cursor | undefined;
  /** Calls under way of whose text the reader cannot have all. */
  #broken: readonly string[] = [];
  #isLive = false;
  #isOver = false;
  #idleRounds = 0;

  constructor(
    stores: FollowStores,
    taskId: string,
    options: FollowOptions & { readonly subscription: LiveSubscription },
  ) {
    this.#stores = stores;
    this.#taskId = taskId;
    this.#options = options;
    this.#told = options.after;
  }

  /** Events begin with the first epoch. */
  get #hasNothing(): boolean {
    return (this.#told?.epoch ?? 0) === 0;
  }

  /** Undefined after the end. */
  async next(): Promise<EventBatch | undefined> {
    const { subscription } = this.#options;
    for (;;) {
      const piece = this.#pieces.shift();
      if (piece !== undefined) return piece;
      if (this.#isOver) return undefined;
      if (!this.#isLive) {
        await this.#catchUp();
        continue;
      }
      if (this.#joinAt !== undefined) subscription.join(this.#joinAt);
      this.#joinAt = undefined;
      const step = await subscription.next(this.#hasNothing ? POLL_MS : undefined);
      if (step === 'slow') throw new SlowReaderError(this.#taskId);
      if (step === 'closed') return undefined;
      if (typeof step === 'string') this.#isLive = false;
      else return this.#given(step);
    }
  }

  /** From what this process has just handed to others, where that reaches back far enough. */
  #takeRecent(): boolean {
    if (this.#told === undefined) return false;
    this.#options.subscription.begin();
    const recent = this.#stores.liveFeed.recent(this.#taskId, this.#told);
    // A whole answer has to be read from a store.
    if (recent === undefined || lackingText(recent.events, this.#broken).length > 0) return false;
    this.#pieces = toPieces(recent.events);
    this.#isOver = recent.events.at(-1)?.type === 'stream_end';
    this.#told = recent.at;
    this.#joinAt = recent.at;
    this.#isLive = true;
    return true;
  }

  async #catchUp(): Promise<void> {
    const { signal, subscription } = this.#options;
    signal.throwIfAborted();
    if (this.#takeRecent()) return;
    // What does not join on and is not news either (leftovers of a run before) must not become a busy loop.
    this.#idleRounds += 1;
    if (this.#idleRounds > 2) await pause(AGAIN_MS, signal);
    await this.#stores.liveFeed.opened();
    subscription.begin();
    const caught = await this.#untilAnswered(() => catchUp(this.#stores, this.#taskId, this.#told));
    this.#stores.liveFeed.saw(this.#taskId, caught.cursor);
    if (caught.events.length > 0) this.#idleRounds = 0;
    if (this.#told !== undefined || caught.events.length > 0) this.#told = caught.cursor;
    this.#pieces = toPieces(caught.events);
    this.#broken = caught.broken;
    this.#isOver = caught.isOver;
    this.#isLive = true;
    this.#joinAt = caught.cursor;
    if (!this.#hasNothing || caught.isOver) return;
    const status = await this.#endedSilently();
    if (status === undefined) return;
    this.#pieces = [new EventBatch([silentEnd(this.#taskId, status)])];
    this.#isOver = true;
  }

  /** Hands a batch on at once, where nothing has to be read for it and nothing ends with it. */
  accept(live: LiveBatch, filter: TypeFilter | undefined): boolean {
    const { accept } = this.#options;
    if (accept === undefined || live.events.at(-1)?.type === 'stream_end') return false;
    const batch = toEventBatch(live);
    if (lackingText(batch.events, this.#broken).length > 0) return false;
    const wanted = batch.select(filter);
    if (wanted.events.length > 0 && !accept(wanted)) return false;
    this.#idleRounds = 0;
    this.#told = { epoch: live.epoch, seq: live.last };
    return true;
  }

  #given(live: LiveBatch): EventBatch | Promise<EventBatch> {
    this.#idleRounds = 0;
    this.#told = { epoch: live.epoch, seq: live.last };
    this.#isOver = live.events.at(-1)?.type === 'stream_end';
    const batch = toEventBatch(live);
    const lacking = lackingText(batch.events, this.#broken);
    if (lacking.length === 0) return batch;
    // Not the reader is slow now, but a store: it catches up on what comes meanwhile.
    this.#options.subscription.begin();
    this.#isLive = false;
    return this.#untilAnswered(() => withAnswers(this.#stores, batch, lacking));
  }

  /** Repeats until the stores answer, or throws once the signal fires. */
  async #untilAnswered<Result>(work: () => Promise<Result>): Promise<Result> {
    const { signal, onOutage } = this.#options;
    for (;;) {
      try {
        return await work();
      } catch (error) {
        signal.throwIfAborted();
        onOutage?.(error);
        await pause(AGAIN_MS, signal);
      }
    }
  }

  /** Temporal's silence is no end. */
  async #endedSilently(): Promise<string | undefined> {
    try {
      return await this.#options.endedSilently?.();
    } catch (error) {
      this.#options.onOutage?.(error);
      return undefined;
    }
  }
}

function silentEnd(taskId: string, status: string): TaskEvent {
  return { taskId, epoch: 0, seq: 0, type: 'stream_end', at: new Date().toISOString(), data: { status } };
}
