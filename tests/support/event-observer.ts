// Everything that ever became visible, as the live feeds had it: read from Redis with a plain client, by nothing of what is under test.

import { Redis } from 'ioredis';
import { EVENT_SHARDS, feedKeys } from '../../src/stores/keys.ts';
import type { EventType } from '../../src/task/event.ts';
import { eventually } from './eventually.ts';

export type Observed = {
  readonly epoch: number;
  readonly seq: number;
  readonly type: EventType;
  /** What tells one milestone of a task from another: type, step, attempt. */
  readonly name: string;
};

export type Observer = AsyncDisposable & {
  /** In the order of the feed, task by task. */
  readonly tasks: ReadonlyMap<string, readonly Observed[]>;
  events(): number;
  /** Entries of a feed that went by unseen: then it cannot be told what became visible. */
  missed(): readonly string[];
  /** Resolves when everything is read that is there now. */
  caughtUp(): Promise<void>;
};

type Body = {
  readonly type: EventType;
  readonly stepId?: string;
  readonly callKey?: string;
  readonly attempt?: string;
};

export function nameOf({ type, stepId, attempt }: Body): string {
  return [type, stepId ?? '', attempt ?? ''].join(' ');
}

export async function observe(url: string, prefix: string): Promise<Observer> {
  const client = new Redis(url, { maxRetriesPerRequest: null });
  client.on('error', () => undefined /* tries again by itself */);
  const feeds = Array.from({ length: EVENT_SHARDS }, (_, shard) => feedKeys(prefix, shard).live);
  const at = feeds.map(() => '0');
  const last = feeds.map(() => 0);
  const tasks = new Map<string, Observed[]>();
  const missed: string[] = [];
  let events = 0;
  let isStopped = false;
  let reads = 0;
  let emptyReads = 0;

  const take = (shard: number, id: string, fields: readonly string[]) => {
    at[shard] = id;
    const entry = Object.fromEntries(
      fields.flatMap((name, index) => (index % 2 === 0 ? [[name, fields[index + 1] ?? '']] : [])),
    );
    const n = Number(entry['n']);
    if (n !== (last[shard] ?? 0) + 1) missed.push(`shard ${shard}: ${n} after ${last[shard]}`);
    last[shard] = n;
    const bodies = JSON.parse(entry['b'] ?? '[]') as Body[];
    const known = tasks.get(entry['t'] ?? '') ?? [];
    tasks.set(entry['t'] ?? '', known);
    for (const [index, body] of bodies.entries())
      known.push({
        epoch: Number(entry['e']),
        seq: Number(entry['s']) + index,
        type: body.type,
        name: nameOf(body),
      });
    events += bodies.length;
  };

  const read = async () => {
    while (!isStopped) {
      const answer = await client.xread('COUNT', 500, 'BLOCK', 200, 'STREAMS', ...feeds, ...at);
      reads += 1;
      emptyReads = answer === null ? emptyReads + 1 : 0;
      for (const [feed, entries] of answer ?? [])
        for (const [id, fields] of entries) take(feeds.indexOf(feed), id, fields);
    }
  };
  const reading = read().catch((error: unknown) => {
    if (!isStopped) missed.push(String(error));
  });
  return {
    tasks,
    events: () => events,
    missed: () => missed,
    async caughtUp() {
      const from = reads;
      await eventually(() => {
        if (reads < from + 2 || emptyReads < 2) throw new Error('entries are still coming');
      });
    },
    async [Symbol.asyncDispose]() {
      isStopped = true;
      client.disconnect();
      await reading;
    },
  };
}
