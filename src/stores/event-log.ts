// The way of numbers into the rows of milestones: entries of the log feeds, which a consumer group hands to one persister each. An entry
// is acknowledged and removed only after its numbers were committed, so that what is in the feeds is what Postgres has not. Any number of
// persisters may run; one that takes what another had already stored changes nothing.

import { eventFunctions } from './event-functions.ts';
import { type EventNumber, writeNumbers } from './event-numbers.ts';
import { EVENT_SHARDS, feedKeys } from './keys.ts';
import type { Postgres } from './postgres.ts';
import type { Redis } from './redis.ts';

export type EventLogOptions = {
  /** Entries written by one statement, at most. */
  readonly batchSize: number;
  /** How long another persister may have an entry before it is taken from it; left out: 750 ms. */
  readonly claimAfterMs?: number;
  /** An entry that Postgres refuses for what is in it. It is given up: its milestones stay rows without a number, for the sweeper. */
  readonly onRefused: (refused: RefusedEntry) => void;
};

export type RefusedEntry = { readonly feed: string; readonly entry: string; readonly error: unknown };

/** What is not stored yet: how many batches, and the age of the oldest. */
export type EventLogState = { readonly backlog: number; readonly lagSeconds: number };

export type EventLog = ReturnType<typeof createEventLog>;

export const PERSISTERS = 'persisters';
const CLAIM_AFTER_MS = 750;
/** Looked for that often in the time after which an entry is taken. */
const CLAIMS = 3;
/** A consumer that was not seen for so long, and has nothing, belonged to a process that died. */
const GONE_AFTER_MS = 3_600_000;

export function createEventLog(postgres: Postgres, redis: Redis, options: EventLogOptions) {
  const feeds = Array.from({ length: EVENT_SHARDS }, (_, shard) => feedKeys(redis.prefix, shard).log);
  return {
    /** @param name of this process alone */
    openPersister: (name: string): Persister => new Persister(postgres, redis, { ...options, name, feeds }),

    /** Of the whole system. */
    async state(): Promise<EventLogState> {
      const nowMs = await redis.nowMs();
      const states = await Promise.all(
        feeds.map(async (feed) => {
          const [backlog, oldest] = await Promise.all([
            redis.command((client) => client.xlen(feed)),
            redis.command((client) => client.xrange(feed, '-', '+', 'COUNT', 1)),
          ]);
          const sinceMs = Number.parseInt(oldest[0]?.[0] ?? String(nowMs), 10);
          return { backlog, lagSeconds: Math.max(0, nowMs - sinceMs) / 1_000 };
        }),
      );
      return {
        backlog: states.reduce((sum, state) => sum + state.backlog, 0),
        lagSeconds: Math.max(...states.map((state) => state.lagSeconds)),
      };
    },
  };
}

type Entry = { readonly feed: string; readonly id: string; readonly fields: readonly string[] };

type PersisterOptions = EventLogOptions & { readonly name: string; readonly feeds: readonly string[] };

export class Persister {
  readonly #postgres: Postgres;
  readonly #redis: Redis;
  readonly #options: PersisterOptions;
  /** What it was handed and has not stored, by feed and id: while Postgres is away no more than a batch and what came with one read. */
  readonly #held = new Map<string, Entry>();
  #claimedAt = Number.NEGATIVE_INFINITY;

  constructor(postgres: Postgres, redis: Redis, options: PersisterOptions) {
    this.#postgres = postgres;
    this.#redis = redis;
    this.#options = options;
  }

  /**
   * Takes what is new and what others left, and stores it. Answers whether more is waiting. What it cannot store it keeps for the next
   * pass. @throws when a store is away
   */
  async pass(): Promise<boolean> {
    const hadRoom = this.#hasRoom;
    // Redis being away is no reason to keep what is here from Postgres.
    const [read] = await Promise.allSettled([hadRoom ? this.#take() : false]);
    await this.#storeHeld();
    if (read.status === 'rejected') throw read.reason;
    return hadRoom ? read.value : this.#hasRoom;
  }

  get #hasRoom(): boolean {
    return this.#held.size < this.#options.batchSize;
  }

  /** Leaves the group, unless something is left that another persister has to take first. */
  async leave(): Promise<void> {
    const { name, feeds } = this.#options;
    for (const feed of feeds)
      await this.#redis.run(eventFunctions['log-leave'], [feed], [PERSISTERS, name, GONE_AFTER_MS]);
  }

  async #take(): Promise<boolean> {
    const isFull = await this.#withGroups(() => this.#read());
    const { claimAfterMs = CLAIM_AFTER_MS } = this.#options;
    if (performance.now() - this.#claimedAt < claimAfterMs / CLAIMS) return isFull;
    await this.#withGroups(() => this.#claim(claimAfterMs));
    this.#claimedAt = performance.now();
    return isFull;
  }

  /** One read of all feeds takes about a batch. */
  get #perFeed(): number {
    return Math.ceil(this.#options.batchSize / this.#options.feeds.length);
  }

  async #read(): Promise<boolean> {
    const { name, feeds } = this.#options;
    const answer = await this.#redis.command((client) =>
      client.xreadgroup(
        ...(['GROUP', PERSISTERS, name, 'COUNT', this.#perFeed, 'STREAMS'] as const),
        ...feeds,
        ...feeds.map(() => '>'),
      ),
    );
    const read = (answer ?? []) as [string, [string, string[]][]][];
    for (const [feed, entries] of read) this.#hold(feed, entries);
    return read.some(([, entries]) => entries.length === this.#perFeed);
  }

  /** Also what was handed to this one in an answer that was lost. */
  async #claim(afterMs: number): Promise<void> {
    const { name, feeds } = this.#options;
    await Promise.all(
      feeds.map(async (feed) => {
        const answer = await this.#redis.command((client) =>
          client.xautoclaim(feed, PERSISTERS, name, afterMs, '0-0', 'COUNT', this.#perFeed),
        );
        this.#hold(feed, (answer as [string, [string, string[]][]])[1]);
      }),
    );
  }

  #hold(feed: string, entries: readonly [string, readonly string[]][]): void {
    for (const [id, fields] of entries) this.#held.set(`${feed} ${id}`, { feed, id, fields });
  }

  /** Redis was emptied, or is new: the groups begin with whatever is in the feeds, since all of that is not stored. */
  async #withGroups<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (error) {
      if (!isReply(error, 'NOGROUP')) throw error;
      await Promise.all(this.#options.feeds.map((feed) => createGroup(this.#redis, feed)));
      return work();
    }
  }

  async #storeHeld(): Promise<void> {
    const { batchSize } = this.#options;
    const held = [...this.#held.values()];
    for (let at = 0; at < held.length; at += batchSize) {
      const batch = held.slice(at, at + batchSize);
      const stored = await this.#store(batch);
      await this.#acknowledge(stored);
    }
    // All that is left are tasks that somebody holds: they are claimed again, and keep no other from its numbers meanwhile.
    if (!this.#hasRoom) this.#held.clear();
  }

  /** Answers the entries that need not be looked at again. What Postgres refuses is cut in halves until the one at fault is alone. */
  async #store(entries: readonly Entry[]): Promise<readonly Entry[]> {
    try {
      const numbers = entries.map(readEntry);
      const busy = await writeNumbers(this.#postgres, numbers.flat());
      return entries.filter((_, index) => !numbers[index]?.some(({ taskId }) => busy.has(taskId)));
    } catch (error) {
      if (!isOfContent(error)) throw error;
      const [first] = entries;
      if (first !== undefined && entries.length === 1) {
        this.#options.onRefused({ feed: first.feed, entry: first.id, error });
        return entries;
      }
      const middle = Math.ceil(entries.length / 2);
      const halves = [entries.slice(0, middle), entries.slice(middle)];
      return [...(await this.#store(halves[0] ?? [])), ...(await this.#store(halves[1] ?? []))];
    }
  }

  async #acknowledge(entries: readonly Entry[]): Promise<void> {
    const byFeed = Map.groupBy(entries, (entry) => entry.feed);
    await Promise.all(
      [...byFeed].map(async ([feed, some]) => {
        const ids = some.map((entry) => entry.id);
        await this.#redis.run(eventFunctions['log-ack'], [feed], [PERSISTERS, ...ids]);
        for (const id of ids) this.#held.delete(`${feed} ${id}`);
      }),
    );
  }
}

async function createGroup(redis: Redis, feed: string): Promise<void> {
  try {
    await redis.command((client) => client.xgroup('CREATE', feed, PERSISTERS, '0', 'MKSTREAM'));
  } catch (error) {
    // Another persister was faster.
    if (!isReply(error, 'BUSYGROUP')) throw error;
  }
}

function isReply(error: unknown, code: string): boolean {
  return error instanceof Error && error.message.startsWith(code);
}

/** An entry that says something else than it should. */
class MalformedEntry extends Error {
  override readonly name = 'MalformedEntry';
}

function readEntry({ fields }: Entry): readonly EventNumber[] {
  const named = new Map<string, string>();
  for (let at = 0; at < fields.length; at += 2) named.set(fields[at] ?? '', fields[at + 1] ?? '');
  const taskId = named.get('t');
  const [epoch, before] = [Number(named.get('e')), Number(named.get('s'))];
  const pairs = parsePairs(named.get('m'));
  if (taskId === undefined || !Number.isSafeInteger(epoch) || !Number.isSafeInteger(before))
    throw new MalformedEntry('an entry without task, epoch or number');
  return pairs.map(([id, place]) => ({ taskId, id, epoch, seq: before + place }));
}

function parsePairs(text: string | undefined): readonly [string, number][] {
  let pairs: unknown;
  try {
    pairs = JSON.parse(text ?? '');
  } catch (cause) {
    throw new MalformedEntry('an entry whose numbers are no JSON', { cause });
  }
  const isPair = (pair: unknown) =>
    Array.isArray(pair) && typeof pair[0] === 'string' && Number.isSafeInteger(pair[1]);
  if (!Array.isArray(pairs) || !pairs.every(isPair)) throw new MalformedEntry('an entry without numbers');
  return pairs as [string, number][]; // each was looked at
}

/** Invalid data, or data that a constraint refuses; anything else says nothing of the batch. */
function isOfContent(error: unknown): boolean {
  if (error instanceof MalformedEntry) return true;
  const code = error instanceof Error ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' && /^(22|23)/.test(code);
}
