// What Redis knows of a task's events at one moment, for a reader that joins.

import { type Cursor, type EventDraft, parseCursor, type TaskEvent } from '../task/event.ts';
import { eventKeys } from './keys.ts';
import type { Redis } from './redis.ts';

/** Text so far of a call whose deltas are gone. */
export type CallText = { readonly callKey: string; readonly attempt: string; readonly text: string };

/** Redis' part of a task's events at one moment: the counter, the ring after a position, and what is known of its calls. */
export type Standing = Cursor & {
  readonly runId: string;
  readonly ended: boolean;
  readonly ring: readonly TaskEvent[];
  readonly texts: readonly CallText[];
  /** The milestones of this epoch by the ids of their rows, whether these have the numbers already or not. */
  readonly milestones: readonly { readonly id: string; readonly seq: number }[];
};

/** Undefined when Redis has no counter of the task that counts. */
export async function readStanding(
  redis: Redis,
  taskId: string,
  afterSeq: number,
): Promise<Standing | undefined> {
  const keys = eventKeys(redis.prefix, taskId);
  let calls: readonly string[] = [];
  for (;;) {
    const server = await redis.runId();
    // One transaction: a delta published between two of these reads would be in the text and not in the ring, or the other way round.
    const answers = await redis.command((client) => {
      const all = client.multi().hgetall(keys.meta).xrange(keys.ring, '-', '+');
      for (const call of calls) all.get(keys.text(call));
      return all.exec();
    });
    const [meta, entries, ...texts] = (answers ?? []).map(([error, answer]) => {
      if (error !== null) throw error;
      return answer;
    }) as [Record<string, string>, [string, string[]][], ...(string | null)[]];
    if (meta['server'] !== server || meta['epoch'] === undefined) return undefined;
    const attempts = namedFields(meta, 'attempt:');
    // The keys of texts are known only from the answer: those of calls that are new go into the next round.
    if (attempts.some(([call]) => !calls.includes(call))) {
      calls = attempts.map(([call]) => call);
      continue;
    }
    return {
      epoch: Number(meta['epoch']),
      seq: Number(meta['seq']),
      runId: meta['run'] ?? '',
      ended: meta['ended'] === '1',
      ring: entries.flatMap((entry) => toTaskEvents(taskId, entry)).filter((event) => event.seq > afterSeq),
      texts: attempts.map(([callKey, attempt]) => ({
        callKey,
        attempt,
        text: texts[calls.indexOf(callKey)] ?? '',
      })),
      milestones: namedFields(meta, 'id:').map(([id, seq]) => ({
        id: String(JSON.parse(id)),
        seq: Number(seq),
      })),
    };
  }
}

function namedFields(hash: Readonly<Record<string, string>>, prefix: string): [string, string][] {
  return Object.entries(hash)
    .filter(([name]) => name.startsWith(prefix))
    .map(([name, value]) => [name.slice(prefix.length), value]);
}

/** The events of an entry of a ring, oldest first: its id has the epoch, its fields the first number and the bodies. */
export function toTaskEvents(taskId: string, [id, fields]: [string, string[]]): readonly TaskEvent[] {
  const cursor = parseCursor(id);
  if (cursor === undefined) throw new Error(`not an event id in the ring of ${taskId}: ${id}`);
  const [, first, , bodies = ''] = fields;
  return (JSON.parse(bodies) as Body[]).map((body, index) => ({
    ...body,
    taskId,
    seq: Number(first) + index,
    epoch: cursor.epoch,
  }));
}

type Body = Omit<EventDraft, 'id'> & { readonly at: string };
