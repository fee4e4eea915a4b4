// Who follows which task in this process, and the gathering of what comes for them: a task's events of 50 ms make one batch for all its
// readers, the first after a rest goes at once. It reads nothing itself.

import type { Cursor, TaskEvent } from '../task/event.ts';
import { EVENT_SHARDS, eventShardOf } from './keys.ts';
import { type HistoryRoom, LiveHistory, type Recent } from './live-history.ts';
import { type LiveBatch, LiveSubscription, type SubscriptionOptions } from './live-subscription.ts';

/** One entry of a shard's live feed. `events` reads it, which nobody does for a task without a reader. */
export type LiveEntry = {
  readonly taskId: string;
  readonly epoch: number;
  readonly first: number;
  readonly bytes: number;
  /** Whether the ring has all of it. */
  readonly isInRing: boolean;
  readonly events: () => readonly TaskEvent[];
};

type Gathered = { epoch: number; first: number; events: TaskEvent[]; bytes: number; isInRing: boolean };

type Channel = {
  readonly taskId: string;
  readonly subscriptions: Set<LiveSubscription>;
  readonly history: LiveHistory;
  gathered: Gathered | undefined;
  flushedAt: number;
};

export type ChannelOptions = {
  /** 0: every entry goes on as it is. */
  readonly coalesceMs: number;
  /** How many of a task's events are told again from here. */
  readonly historyEvents: number;
  /** An entry that cannot be read. */
  readonly onFault: (taskId: string, error: unknown) => void;
};

/** What is gathered beyond this goes on at once. */
const MAX_GATHERED_BYTES = 65_536;
/** Between two looks at the channels that wait: with thousands of them each look costs something. */
const MIN_WAIT_MS = 5;

export class LiveChannels {
  readonly #options: ChannelOptions;
  readonly #shards: readonly Map<string, Channel>[] = Array.from({ length: EVENT_SHARDS }, () => new Map());
  /** Channels whose time has not come. */
  readonly #waiting = new Set<Channel>();
  /** Channels that got something since `settle`. */
  readonly #touched = new Set<Channel>();
  readonly #room: HistoryRoom = { bytes: 0 };
  #timer: NodeJS.Timeout | undefined;
  #size = 0;

  constructor(options: ChannelOptions) {
    this.#options = options;
  }

  /** How many subscriptions there are. */
  get size(): number {
    return this.#size;
  }

  subscribe(taskId: string, options: SubscriptionOptions): LiveSubscription {
    const channels = this.#of(taskId);
    let channel = channels.get(taskId);
    if (channel === undefined) {
      channel = {
        taskId,
        subscriptions: new Set(),
        history: new LiveHistory(this.#room, this.#options.historyEvents),
        gathered: undefined,
        flushedAt: Number.NEGATIVE_INFINITY,
      };
      channels.set(taskId, channel);
    }
    const { subscriptions, history } = channel;
    const subscription = new LiveSubscription({
      ...options,
      onClose: () => {
        if (!subscriptions.delete(subscription)) return;
        this.#size -= 1;
        if (subscriptions.size === 0) {
          channels.delete(taskId);
          channel.gathered = undefined;
          history.clear();
        }
        options.onClose();
      },
    });
    subscriptions.add(subscription);
    this.#size += 1;
    return subscription;
  }

  /** What was handed to readers of a task after a position, while one of them is still there. */
  recent(taskId: string, at: Cursor): Recent | undefined {
    const channel = this.#of(taskId).get(taskId);
    return channel?.history.after(at, channel.gathered?.events.length);
  }

  saw(taskId: string, at: Cursor): void {
    this.#of(taskId).get(taskId)?.history.saw(at);
  }

  /** Hands an entry to the readers of its task, now or with what comes next. `settle` follows after the last one of a read. */
  take(entry: LiveEntry): void {
    const channel = this.#of(entry.taskId).get(entry.taskId);
    if (channel === undefined) return;
    let events: readonly TaskEvent[];
    try {
      events = entry.events();
    } catch (error) {
      // Its readers find the same in the ring, and say what is wrong there.
      this.#options.onFault(entry.taskId, error);
      this.#lose(channel);
      return;
    }
    if (events.length === 0) return;
    const { epoch, first, bytes, isInRing } = entry;
    const { gathered } = channel;
    if (
      gathered !== undefined &&
      gathered.epoch === epoch &&
      gathered.first + gathered.events.length === first
    ) {
      gathered.events.push(...events);
      gathered.bytes += bytes;
      gathered.isInRing &&= isInRing;
    } else {
      this.#flush(channel);
      channel.gathered = { epoch, first, events: [...events], bytes, isInRing };
    }
    if (this.#options.coalesceMs === 0) this.#flush(channel);
    else this.#touched.add(channel);
  }

  /** Sends on what need not wait. */
  settle(): void {
    const now = performance.now();
    for (const channel of this.#touched) {
      const { gathered, flushedAt } = channel;
      const isDue =
        now - flushedAt >= this.#options.coalesceMs ||
        (gathered?.bytes ?? 0) > MAX_GATHERED_BYTES ||
        gathered?.events.at(-1)?.type === 'stream_end';
      if (isDue) this.#flush(channel);
      else this.#waiting.add(channel);
    }
    this.#touched.clear();
    this.#await();
  }

  /** Tells the readers of a shard, or of all, that something is missing. */
  lose(shard?: number): void {
    for (const channels of shard === undefined ? this.#shards : this.#shards.slice(shard, shard + 1))
      for (const channel of channels.values()) this.#lose(channel);
  }

  /** Ends all subscriptions. */
  close(): void {
    clearTimeout(this.#timer);
    for (const channels of this.#shards)
      for (const channel of channels.values())
        for (const subscription of channel.subscriptions) subscription.close();
  }

  #of(taskId: string): Map<string, Channel> {
    const channels = this.#shards[eventShardOf(taskId)];
    if (channels === undefined) throw new Error(`no shard for ${taskId}`);
    return channels;
  }

  #lose(channel: Channel): void {
    channel.gathered = undefined;
    channel.history.clear();
    for (const subscription of channel.subscriptions) subscription.fail('lost');
  }

  /** One timer for all channels that wait: no channel is sent on twice within its time, and none waits much longer. */
  #await(): void {
    if (this.#waiting.size === 0 || this.#timer !== undefined) return;
    const now = performance.now();
    let left = this.#options.coalesceMs;
    for (const { flushedAt } of this.#waiting)
      left = Math.min(left, flushedAt + this.#options.coalesceMs - now);
    this.#timer = setTimeout(() => this.#flushWaiting(), Math.max(left, MIN_WAIT_MS));
  }

  #flushWaiting(): void {
    this.#timer = undefined;
    const before = performance.now() - this.#options.coalesceMs;
    for (const channel of [...this.#waiting]) if (channel.flushedAt <= before) this.#flush(channel);
    this.#await();
  }

  #flush(channel: Channel): void {
    this.#waiting.delete(channel);
    const { gathered, taskId } = channel;
    if (gathered === undefined) return;
    channel.gathered = undefined;
    channel.flushedAt = performance.now();
    const { epoch, first, events, bytes, isInRing } = gathered;
    const batch: LiveBatch = { taskId, epoch, first, last: first + events.length - 1, events, bytes };
    if (isInRing) channel.history.push(batch);
    else channel.history.clear();
    for (const subscription of channel.subscriptions) subscription.push(batch);
  }
}
