// Reads the live feeds of all shards on a connection of its own, and notices what it could not read: entries that were trimmed before
// their turn, a feed that was emptied, another server. It knows no readers; whoever runs it is told.

import type { EventDraft, TaskEvent } from '../task/event.ts';
import { EVENT_SHARDS, feedKeys } from './keys.ts';
import type { LiveEntry } from './live-channels.ts';
import type { Redis } from './redis.ts';

export type LiveReaderOptions = {
  readonly onEntry: (entry: LiveEntry) => void;
  /** Something is missing from here on, in one shard or, left out, in any. */
  readonly onLost: (shard?: number) => void;
};

/** An entry of a feed as Redis gives it: its id, then names and values by turns. */
type RawEntry = readonly [id: string, fields: readonly string[]];

/** The last entry of a shard that was read; entries are numbered without a gap. */
type Position = { id: string; number: number };

type Client = ReturnType<Redis['duplicate']>;

const BLOCK_MS = 2_000;
/** A command that is not answered within this time over what it may take hangs, and its connection with it. */
const HUNG_AFTER_MS = 5_000;
/** An emptied feed is silent: it is looked at so often. */
const CHECK_MS = 2_000;
/** Entries of one shard per read. */
const PAGE = 500;

export class LiveReader {
  readonly #redis: Redis;
  readonly #options: LiveReaderOptions;
  readonly #keys: readonly ReturnType<typeof feedKeys>[];
  readonly #shardOfKey: ReadonlyMap<string, number>;
  #client: Client | undefined;
  /** Whose feeds the positions are in. */
  #server: string | undefined;
  /** False after the connection broke: another server may answer now. */
  #isSameServer = false;
  #positions: Position[] | undefined;
  #checkedAt = 0;

  constructor(redis: Redis, options: LiveReaderOptions) {
    this.#redis = redis;
    this.#options = options;
    this.#keys = Array.from({ length: EVENT_SHARDS }, (_, shard) => feedKeys(redis.prefix, shard));
    this.#shardOfKey = new Map(this.#keys.map(({ live }, shard) => [live, shard]));
  }

  /** Begins at the present end of all feeds. What was made visible before is nobody's who began to follow before: all are told. */
  async open(): Promise<void> {
    const client = this.#connected();
    this.#server = await serverOf(client);
    this.#isSameServer = true;
    this.#positions = await this.#ends(client);
    this.#checkedAt = performance.now();
    this.#options.onLost();
  }

  get isOpen(): boolean {
    return this.#positions !== undefined;
  }

  /** Hands on what has come, or waits for it, two seconds at most. @throws when Redis does not answer; the next call connects anew */
  async read(): Promise<void> {
    const positions = this.#positions;
    if (positions === undefined) throw new Error('the live feeds are not open');
    const client = this.#connected();
    const places = [...this.#keys.map(({ live }) => live), ...positions.map(({ id }) => id)];
    const reply = await answered(
      client.xread('COUNT', PAGE, 'BLOCK', BLOCK_MS, 'STREAMS', ...places),
      BLOCK_MS,
    );
    if (!this.#isSameServer && (await serverOf(client)) !== this.#server) {
      // What comes after these positions there says nothing of what was lost before.
      this.#positions = undefined;
      return;
    }
    this.#isSameServer = true;
    for (const [key, entries] of reply ?? []) this.#take(this.#shardOfKey.get(key) ?? 0, entries, positions);
    if (performance.now() - this.#checkedAt > CHECK_MS) await this.#check(client, positions);
  }

  /** Leaves the connection. The positions are kept: the next read goes on there. */
  disconnect(): void {
    this.#client?.disconnect();
    this.#client = undefined;
    this.#isSameServer = false;
  }

  /** Forgets the positions too. */
  close(): void {
    this.disconnect();
    this.#positions = undefined;
  }

  #connected(): Client {
    if (this.#client !== undefined) return this.#client;
    const client = this.#redis.duplicate();
    client.on('close', () => {
      if (this.#client === client) this.#isSameServer = false;
    });
    this.#client = client;
    return client;
  }

  #take(shard: number, entries: readonly RawEntry[], positions: Position[]): void {
    for (const [id, fields] of entries) {
      const before = positions[shard];
      const entry = readFields(fields);
      const number = Number(entry['n']);
      // Trimmed before its turn, or counted from anew.
      if (number !== (before?.number ?? 0) + 1) this.#options.onLost(shard);
      positions[shard] = { id, number };
      this.#options.onEntry(toLiveEntry(entry));
    }
  }

  /** A feed that ends before the position in it was emptied: nothing in it comes after that position, perhaps for ever. */
  async #check(client: Client, positions: Position[]): Promise<void> {
    const ends = await this.#ends(client);
    for (const [shard, end] of ends.entries()) {
      const at = positions[shard];
      if (at === undefined || compareIds(end.id, at.id) >= 0) continue;
      positions[shard] = end;
      this.#options.onLost(shard);
    }
    this.#checkedAt = performance.now();
  }

  /** Where the feeds end: the last entry's id, whether it is still there or not, and its number. */
  async #ends(client: Client): Promise<Position[]> {
    // In one step, or an entry could come between an id and its number.
    const looks = client.multi();
    for (const { live, count } of this.#keys) looks.xinfo('STREAM', live).get(count);
    const answers = (await answered(looks.exec())) ?? [];
    return this.#keys.map((_, shard) => {
      const [infoError, info] = answers[2 * shard] ?? [];
      const [countError, count] = answers[2 * shard + 1] ?? [];
      if (countError != null) throw countError;
      if (infoError == null) return { id: lastIdOf(info), number: Number(count) };
      if (!/no such key/.test(infoError.message)) throw infoError;
      return { id: '0-0', number: Number(count ?? 0) };
    });
  }
}

/** Of what XINFO STREAM answers: names and values by turns. */
function lastIdOf(info: unknown): string {
  const at = Array.isArray(info) ? info.indexOf('last-generated-id') : -1;
  const id: unknown = Array.isArray(info) && at >= 0 ? info[at + 1] : undefined;
  if (typeof id !== 'string') throw new Error('redis does not tell the last id of a stream in XINFO STREAM');
  return id;
}

function readFields(fields: readonly string[]): Readonly<Record<string, string>> {
  const entry: Record<string, string> = {};
  for (let index = 0; index + 1 < fields.length; index += 2)
    entry[fields[index] ?? ''] = fields[index + 1] ?? '';
  return entry;
}

function toLiveEntry({
  t: taskId = '',
  e = '',
  s = '',
  b = '',
  d = '',
}: Readonly<Record<string, string>>): LiveEntry {
  const epoch = Number(e);
  const first = Number(s);
  return {
    taskId,
    epoch,
    first,
    bytes: b.length,
    isInRing: d !== '0',
    events: () => {
      const bodies = JSON.parse(b) as (Omit<EventDraft, 'id'> & { at: string })[]; // written by the publishing script
      return bodies.map((body, index): TaskEvent => ({ ...body, taskId, seq: first + index, epoch }));
    },
  };
}

async function serverOf(client: Client): Promise<string> {
  const info = await answered(client.info('server'));
  const [, id] = /^run_id:(\w+)/m.exec(info) ?? [];
  if (id === undefined) throw new Error('redis does not tell its run_id in INFO server');
  return id;
}

/** A blocking connection has no timeout of its own. */
async function answered<Answer>(answer: Promise<Answer>, blockMs = 0): Promise<Answer> {
  let timer: NodeJS.Timeout | undefined;
  const hung = new Promise<never>((_, reject) => {
    const error = new Error('redis does not answer on the connection of the live feed');
    timer = setTimeout(() => reject(error), blockMs + HUNG_AFTER_MS);
  });
  // Whoever loses the race is heard by nobody else.
  answer.catch(() => undefined);
  try {
    return await Promise.race([answer, hung]);
  } finally {
    clearTimeout(timer);
  }
}

/** Of ids of a stream: `<ms>-<n>`. */
function compareIds(left: string, right: string): number {
  const [leftMs, leftN] = left.split('-').map(Number);
  const [rightMs, rightN] = right.split('-').map(Number);
  return (leftMs ?? 0) - (rightMs ?? 0) || (leftN ?? 0) - (rightN ?? 0);
}
