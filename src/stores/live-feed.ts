// The live feeds of all shards, read once for all readers of this process, for as long as somebody follows a task. A reader that is slow
// or gone holds up nobody; a Redis that is away is waited for.

import type { Logger } from '../log.ts';
import type { Cursor } from '../task/event.ts';
import { LiveChannels } from './live-channels.ts';
import type { Recent } from './live-history.ts';
import { LiveReader } from './live-reader.ts';
import type { LiveSubscription, SubscriptionOptions } from './live-subscription.ts';
import type { Redis } from './redis.ts';

export type LiveFeedOptions = {
  /** Events of a task that come within this time go to its readers together; 0: each as it comes. */
  readonly coalesceMs: number;
  /** Events that a ring keeps of each task. */
  readonly ringCapacity: number;
  /** How far a reader may stay behind. */
  readonly backlogEvents: number;
  readonly backlogBytes: number;
  /** How long the connection stays when nobody follows any more; left out: ten seconds. */
  readonly lingerMs?: number;
  readonly log?: Pick<Logger, 'debug' | 'error'>;
};

const AGAIN_MS = 500;
const OPEN_WITHIN_MS = 1_000;
const DEFAULT_LINGER_MS = 10_000;

export class LiveFeed {
  readonly #options: LiveFeedOptions;
  readonly #channels: LiveChannels;
  readonly #reader: LiveReader;
  #running: Promise<void> | undefined;
  #opening = Promise.withResolvers<void>();
  #idleSince: number | undefined;
  #isClosed = false;

  constructor(redis: Redis, options: LiveFeedOptions) {
    this.#options = options;
    const channels = new LiveChannels({
      coalesceMs: options.coalesceMs,
      // Half, since another process may know a ring that is further on by what has not come here yet.
      historyEvents: Math.floor(options.ringCapacity / 2),
      onFault: (taskId, error) =>
        options.log?.error('an entry of the live feed cannot be read', { taskId, error }),
    });
    this.#channels = channels;
    this.#reader = new LiveReader(redis, {
      onEntry: (entry) => channels.take(entry),
      onLost: (shard) => channels.lose(shard),
    });
  }

  /** Close it. It is lost until its reader calls `begin`, best after `opened`. */
  subscribe(
    taskId: string,
    reader: Pick<SubscriptionOptions, 'unsent' | 'onSlow' | 'accept'> = {},
  ): LiveSubscription {
    const { backlogEvents, backlogBytes } = this.#options;
    const onClose = () => {
      if (this.#channels.size === 0) this.#idleSince = performance.now();
    };
    const subscription = this.#channels.subscribe(taskId, {
      ...reader,
      backlogEvents,
      backlogBytes,
      onClose,
    });
    this.#idleSince = undefined;
    if (this.#isClosed) subscription.close();
    else this.#running ??= this.#run();
    return subscription;
  }

  /**
   * Resolves when the feeds are being read, at the latest after a second: what a reader finds elsewhere from then on joins on to what it
   * is sent. A reader that begins before is told of a loss when they are.
   */
  async opened(): Promise<void> {
    if (this.#reader.isOpen) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, OPEN_WITHIN_MS);
    });
    await Promise.race([this.#opening.promise, late]);
    clearTimeout(timer);
  }

  /**
   * What readers of a task were sent after a position. Somebody must follow the task still; a reader that takes it has begun before, so that
   * what comes next is kept for it.
   */
  recent(taskId: string, at: Cursor): Recent | undefined {
    return this.#channels.recent(taskId, at);
  }

  /** A reader has found everything up to here in the stores, which may be more than has come by the feeds. */
  saw(taskId: string, at: Cursor): void {
    this.#channels.saw(taskId, at);
  }

  /** Ends every subscription, then the connection. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#channels.close();
    this.#reader.disconnect();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isOver()) {
      try {
        if (!this.#reader.isOpen) {
          await this.#reader.open();
          this.#opening.resolve();
        }
        await this.#reader.read();
        this.#channels.settle();
      } catch (error) {
        if (this.#isClosed) break;
        this.#options.log?.debug('the live feed waits for redis', { error });
        this.#reader.disconnect();
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
    this.#reader.close();
    this.#opening = Promise.withResolvers();
    this.#running = undefined;
  }

  #isOver(): boolean {
    if (this.#isClosed) return true;
    const lingerMs = this.#options.lingerMs ?? DEFAULT_LINGER_MS;
    return this.#idleSince !== undefined && performance.now() - this.#idleSince >= lingerMs;
  }
}
