// The events of tasks: milestones are rows in Postgres first, then one script gives them and the deltas between them their sequence
// numbers and makes them visible; the persister writes the numbers into the rows. A reader takes events from the ring and, where that has
// no more, from Postgres.

import type { Cursor, EventDraft, EventType, TaskEvent } from '../task/event.ts';
import { FIRST_OPEN, readHistory } from './event-history.ts';
import { type CallText, readStanding, type Standing, toTaskEvents } from './event-standing.ts';
import { EVENT_SHARDS, eventKeys, feedKeys } from './keys.ts';
import { type MilestoneTask, writeMilestones } from './milestones.ts';
import type { Postgres } from './postgres.ts';
import { createPublishEvents, type Delta, type EventOptions } from './publish-events.ts';
import { createPublishPending } from './publish-pending.ts';
import type { Redis } from './redis.ts';

export type { CallText, Standing } from './event-standing.ts';
export type { Delta, EventOptions } from './publish-events.ts';

export type Events = ReturnType<typeof createEvents>;

type StoredRow = {
  type: EventType;
  at: Date;
  body: Record<string, unknown>;
  seq: bigint;
  epoch: number;
};

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: a table of the store's methods; cut, it would hide what the store can do
export function createEvents(postgres: Postgres, redis: Redis, options: EventOptions) {
  const publish = createPublishEvents(postgres, redis, options);
  const pending = createPublishPending(postgres, publish);

  return {
    /**
     * Publishes all milestones of a task that have no sequence number yet, in the order in which they were written; answers how many
     * became visible by it. Safe to repeat and to run twice at once.
     */
    publishPending: (task: MilestoneTask): Promise<number> => pending.publish(task),

    /** Milestones that no transaction causes: written, then published. */
    async append(task: MilestoneTask, drafts: readonly EventDraft[]): Promise<void> {
      await writeMilestones(postgres, task, drafts);
      await pending.publish(task);
    },

    /**
     * Publishes pieces of text in one round trip. Of each: whether readers have it, by this call or one before; false when it was
     * refused, since the run ended or a newer attempt of the call has begun.
     */
    async publishDeltas(task: MilestoneTask, deltas: readonly Delta[]): Promise<readonly boolean[]> {
      if (deltas.length === 0) return [];
      const events = deltas.map((delta) => ({ kind: 'delta', delta }) as const);
      let published = await publish({ task, events, epoch: undefined });
      while (published.kind === 'pending') {
        await pending.publish(task);
        published = await publish({ task, events, epoch: undefined, settles: published.epoch });
      }
      if (published.kind !== 'published') return deltas.map(() => false);
      return published.seqs.map((seq) => seq >= 0);
    },

    /** `publishDeltas` for one. */
    async publishDelta(task: MilestoneTask, delta: Delta): Promise<boolean> {
      return (await this.publishDeltas(task, [delta]))[0] === true;
    },

    /** Where a task's events stand now; undefined when Redis holds none of them. */
    async head(taskId: string): Promise<(Cursor & { readonly ended: boolean }) | undefined> {
      const { meta } = eventKeys(redis.prefix, taskId);
      const fields = ['server', 'epoch', 'seq', 'ended'] as const;
      const [server, epoch, seq, ended] = await redis.command((client) => client.hmget(meta, ...fields));
      if (server !== (await redis.runId()) || epoch == null || seq == null) return undefined;
      return { epoch: Number(epoch), seq: Number(seq), ended: ended === '1' };
    },

    /** Events of the ring after a cursor, oldest first. */
    async ring(taskId: string, after: Cursor | undefined, count: number): Promise<readonly TaskEvent[]> {
      const from = after === undefined ? '-' : `(${after.epoch}-${after.seq}`;
      const { ring } = eventKeys(redis.prefix, taskId);
      const entries = await redis.command((client) => client.xrange(ring, from, '+', 'COUNT', count));
      const events = entries.flatMap((entry) => toTaskEvents(taskId, entry));
      // The first entry may have begun before the cursor.
      const isAfter = ({ epoch, seq }: TaskEvent) =>
        after === undefined || epoch > after.epoch || seq > after.seq;
      return events.filter(isAfter).slice(0, count);
    },

    /** Stored milestones with a higher sequence number, oldest first; none behind one that has no number yet, so that nobody passes it. */
    async stored(taskId: string, afterSeq: number, count: number): Promise<readonly TaskEvent[]> {
      const { rows } = await postgres.query<StoredRow>(
        `select id, type, at, body, seq, epoch from events where task_id = $1 and seq > $2 and ordinal < ${FIRST_OPEN}
         order by seq limit $3`,
        [taskId, afterSeq, count],
      );
      return rows.map((row) => ({
        ...row.body,
        taskId,
        seq: Number(row.seq),
        epoch: row.epoch,
        type: row.type,
        at: row.at.toISOString(),
      }));
    },

    /** Text so far of every call of the task that is still known in Redis. */
    async callTexts(taskId: string): Promise<readonly CallText[]> {
      const keys = eventKeys(redis.prefix, taskId);
      const meta = await redis.command((client) => client.hgetall(keys.meta));
      const calls = Object.entries(meta).filter(([name]) => name.startsWith('attempt:'));
      return Promise.all(
        calls.map(async ([name, attempt]) => {
          const callKey = name.slice('attempt:'.length);
          return {
            callKey,
            attempt,
            text: (await redis.command((client) => client.get(keys.text(callKey)))) ?? '',
          };
        }),
      );
    },

    /** Counter, ring and call texts of one moment, so that a text is exactly that of the ring's last delta. Undefined as for `head`. */
    standing: (taskId: string, afterSeq: number): Promise<Standing | undefined> =>
      readStanding(redis, taskId, afterSeq),

    /**
     * The present run of a task, the number after which its events begin, and the newest epoch: an id that was used again keeps the
     * events of the run before, its `stream_end` among them.
     */
    async origin(taskId: string): Promise<Cursor & { readonly runId: string | undefined }> {
      const { rows } = await postgres.query<{ run_id: string | null; epoch: number; seq: bigint }>(
        `select t.run_id, t.epoch, (select coalesce(max(e.seq), 0) from events e
           where e.task_id = t.task_id and e.run_id is distinct from t.run_id) as seq
         from tasks t where t.task_id = $1`,
        [taskId],
      );
      const [row] = rows;
      return { runId: row?.run_id ?? undefined, epoch: row?.epoch ?? 0, seq: Number(row?.seq ?? 0) };
    },

    /** All milestones of a task after a number, oldest first, as its readers know them. @param standing read before this */
    history: (
      taskId: string,
      part: { readonly afterSeq: number; readonly standing: Standing | undefined },
    ): Promise<readonly TaskEvent[]> => readHistory(postgres, taskId, part),

    /**
     * Publishes milestones older than this without a number, and writes the numbers of those that were visible already: their entry in
     * the log was lost. Answers how many tasks had some.
     */
    sweep: (olderThanMs: number): Promise<number> => pending.sweep(olderThanMs),

    /** Removes what is older from the live feeds: they hold texts, which must not outlive their erasure because nothing else happens. */
    async trimLive(olderThanMs: number): Promise<void> {
      const oldest = (await redis.nowMs()) - olderThanMs;
      for (let shard = 0; shard < EVENT_SHARDS; shard += 1) {
        const { live } = feedKeys(redis.prefix, shard);
        await redis.command((client) => client.xtrim(live, 'MINID', oldest));
      }
    },
  };
}
