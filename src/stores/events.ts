// The events of tasks: milestones are rows in Postgres first, then one script gives them and the deltas between them their sequence
// numbers and makes them visible. A reader takes them from the ring and, where that has no more, from Postgres.

import { type Cursor, type EventDraft, type EventType, parseCursor, type TaskEvent } from '../task/event.ts';
import { cleanText } from '../task/text.ts';
import { eventKeys } from './keys.ts';
import { type MilestoneTask, writeMilestones } from './milestones.ts';
import type { Postgres } from './postgres.ts';
import { loadScript, type Redis } from './redis.ts';

const scripts = { publish: loadScript('publish'), beginEpoch: loadScript('begin-epoch') } as const;

const TTL_MS = 24 * 3_600_000;
const TTL_AFTER_END_MS = 10 * 60_000;
/** Text kept per call for readers that join late. */
const MAX_CALL_TEXT_BYTES = 1_048_576;
const UNIQUE_VIOLATION = '23505';

/** A piece of streamed text. `k` counts the batches of one attempt from 0, `order` says which attempt of the call is newer. */
export type Delta = {
  readonly callKey: string;
  readonly stepId: string;
  readonly attemptKey: string;
  readonly order: number;
  readonly k: number;
  readonly text: string;
};

/** Text so far of a call whose deltas are gone. */
export type CallText = { readonly callKey: string; readonly attempt: string; readonly text: string };

/** Redis' part of a task's events at one moment: the counter, the ring after a position, and what is known of its calls. */
export type Standing = Cursor & {
  readonly runId: string;
  readonly ended: boolean;
  readonly ring: readonly TaskEvent[];
  readonly texts: readonly CallText[];
  /** Numbers of the milestones of this epoch, whether their rows have them already or not. */
  readonly milestones: readonly number[];
};

type ScriptEvent = {
  readonly id: string;
  readonly type: EventType;
  readonly body: string;
  readonly call?: string;
  readonly order?: number;
  readonly attempt?: string;
  readonly k?: number;
  readonly text?: string;
  readonly textKey?: number;
};

type PendingRow = { id: string; type: EventType; at: Date; body: Record<string, unknown> };

export type Events = ReturnType<typeof createEvents>;

export type EventOptions = {
  readonly ringCapacity: number;
  /** Called for every event that became visible. */
  readonly onPublished: (type: EventType) => void;
};

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: a table of the store's methods; cut, it would hide what the store can do
export function createEvents(postgres: Postgres, redis: Redis, options: EventOptions) {
  const publish = (task: MilestoneTask, events: readonly ScriptEvent[]) =>
    publishBatch(postgres, redis, options, task, events);

  return {
    /**
     * Publishes all milestones of a task that have no sequence number yet, in the order in which they were written, and writes the
     * numbers back. Safe to repeat and to run twice at once.
     */
    async publishPending(task: MilestoneTask): Promise<number> {
      const { rows } = await postgres.query<PendingRow>(
        'select id, type, at, body from events where task_id = $1 and run_id = $2 and seq is null and epoch is null order by ordinal limit 500',
        [task.taskId, task.runId],
      );
      if (rows.length === 0) return 0;
      const published = await publish(task, rows.map(toScriptEvent));
      await writeBack(postgres, task.taskId, rows, published);
      return rows.length;
    },

    /** Milestones that no transaction causes: written, then published. */
    async append(task: MilestoneTask, drafts: readonly EventDraft[]): Promise<void> {
      await writeMilestones(postgres, task, drafts);
      await this.publishPending(task);
    },

    /** False when the delta was refused: the run ended, or a newer attempt of the call has begun. */
    async publishDelta(task: MilestoneTask, delta: Delta): Promise<boolean> {
      const text = cleanText(delta.text);
      const body = {
        type: 'call_delta' satisfies EventType,
        at: new Date().toISOString(),
        stepId: delta.stepId,
        callKey: delta.callKey,
        attempt: delta.attemptKey,
        data: { text },
      };
      const { seqs } = await publish(task, [
        {
          id: `${delta.attemptKey}:${delta.k}`,
          type: 'call_delta',
          body: JSON.stringify(body),
          call: delta.callKey,
          order: delta.order,
          attempt: delta.attemptKey,
          k: delta.k,
          text,
          textKey: 3,
        },
      ]);
      return seqs[0] !== -1;
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
      return entries.map((entry) => toTaskEvent(taskId, entry));
    },

    /** Stored milestones with a higher sequence number, oldest first. */
    async stored(taskId: string, afterSeq: number, count: number): Promise<readonly TaskEvent[]> {
      const { rows } = await postgres.query<PendingRow & { seq: bigint; epoch: number }>(
        'select id, type, at, body, seq, epoch from events where task_id = $1 and seq > $2 order by seq limit $3',
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
      standing(redis, taskId, afterSeq),

    /**
     * The present run of a task and the number after which its events begin: an id that was used again keeps the events of the run
     * before, its `stream_end` among them.
     */
    async origin(taskId: string): Promise<{ readonly runId: string | undefined; readonly seq: number }> {
      const { rows } = await postgres.query<{ run_id: string | null; seq: bigint }>(
        `select t.run_id, (select coalesce(max(e.seq), 0) from events e
           where e.task_id = t.task_id and e.run_id is distinct from t.run_id) as seq
         from tasks t where t.task_id = $1`,
        [taskId],
      );
      return { runId: rows[0]?.run_id ?? undefined, seq: Number(rows[0]?.seq ?? 0) };
    },

    /** A reader of one task's ring on a connection of its own, so that blocking holds up nobody. Close it. */
    openReader(taskId: string) {
      const client = redis.duplicate();
      const { ring } = eventKeys(redis.prefix, taskId);
      return {
        /** Waits at most `blockMs` for events after the cursor. A concrete id is passed: `$` would lose events in between. */
        async read(after: Cursor, blockMs: number): Promise<readonly TaskEvent[]> {
          const id = `${after.epoch}-${after.seq}`;
          const answer = await client.xread('COUNT', 200, 'BLOCK', blockMs, 'STREAMS', ring, id);
          return (answer?.[0]?.[1] ?? []).map((entry) => toTaskEvent(taskId, entry));
        },
        close: () => client.disconnect(),
      };
    },

    /** Publishes milestones that their own publisher left behind; answers how many tasks had some. */
    async sweep(olderThanMs: number): Promise<number> {
      const { rows } = await postgres.query<{ task_id: string; run_id: string; tenant_id: string }>(
        `select distinct task_id, run_id, tenant_id from events
         where seq is null and epoch is null and at < now() - make_interval(secs => $1 / 1000.0) limit 100`,
        [olderThanMs],
      );
      for (const row of rows)
        await this.publishPending({ taskId: row.task_id, runId: row.run_id, tenantId: row.tenant_id });
      return rows.length;
    },
  };
}

async function standing(redis: Redis, taskId: string, afterSeq: number): Promise<Standing | undefined> {
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
      ring: entries.map((entry) => toTaskEvent(taskId, entry)).filter((event) => event.seq > afterSeq),
      texts: attempts.map(([callKey, attempt]) => ({
        callKey,
        attempt,
        text: texts[calls.indexOf(callKey)] ?? '',
      })),
      milestones: namedFields(meta, 'id:').map(([, seq]) => Number(seq)),
    };
  }
}

function namedFields(hash: Readonly<Record<string, string>>, prefix: string): [string, string][] {
  return Object.entries(hash)
    .filter(([name]) => name.startsWith(prefix))
    .map(([name, value]) => [name.slice(prefix.length), value]);
}

type Published = { readonly epoch: number; readonly seqs: readonly number[] };

async function publishBatch(
  postgres: Postgres,
  redis: Redis,
  options: EventOptions,
  task: MilestoneTask,
  events: readonly ScriptEvent[],
): Promise<Published> {
  const keys = eventKeys(redis.prefix, task.taskId);
  const calls = [...new Set(events.flatMap((event) => event.call ?? []))];
  const indexed = events.map((event) =>
    event.call === undefined ? event : { ...event, textKey: 3 + calls.indexOf(event.call) },
  );
  for (;;) {
    const server = await redis.runId();
    const answer = (await redis.run(
      scripts.publish,
      [keys.ring, keys.meta, ...calls.map((call) => keys.text(call))],
      [
        server,
        task.runId,
        options.ringCapacity,
        TTL_MS,
        TTL_AFTER_END_MS,
        MAX_CALL_TEXT_BYTES,
        JSON.stringify(indexed),
      ],
    )) as [string, string, string, ...number[]];
    if (answer[0] === 'OK') {
      const [before = 0, ...seqs] = answer.slice(2).map(Number);
      events.forEach((event, index) => {
        if ((seqs[index] ?? -1) > before) options.onPublished(event.type);
      });
      return { epoch: Number(answer[1]), seqs };
    }
    if (!(await beginEpoch(postgres, redis, task, server))) return { epoch: -1, seqs: events.map(() => -1) };
  }
}

/** False when the task is at another run by now: events of an older run are not published any more. */
async function beginEpoch(
  postgres: Postgres,
  redis: Redis,
  task: MilestoneTask,
  server: string,
): Promise<boolean> {
  const { rows } = await postgres.query<{ epoch: number; seq: bigint; ended: boolean }>(
    `update tasks set epoch = epoch + 1 where task_id = $1 and run_id = $2
     returning epoch, (select coalesce(max(seq), 0) from events where task_id = $1) as seq,
       exists (select from events where task_id = $1 and run_id = $2 and type = 'stream_end' and seq is not null) as ended`,
    [task.taskId, task.runId],
  );
  const row = rows[0];
  if (row === undefined) return false;
  const keys = eventKeys(redis.prefix, task.taskId);
  await redis.run(
    scripts.beginEpoch,
    [keys.ring, keys.meta],
    [
      server,
      task.runId,
      row.epoch,
      row.seq.toString(),
      row.ended ? TTL_AFTER_END_MS : TTL_MS,
      row.ended ? 1 : 0,
    ],
  );
  return true;
}

/**
 * Numbers go back to their rows; a refused event is marked with epoch -1 so that nobody sweeps it again. A number that events of two
 * epochs got (Redis was emptied between publishing and this) belongs to the newer epoch, since readers live there: the older event is
 * opened again and gets another.
 */
async function writeBack(
  postgres: Postgres,
  taskId: string,
  rows: readonly PendingRow[],
  published: Published,
): Promise<void> {
  const numbered = rows.map((row, index) => ({ id: row.id, seq: published.seqs[index] ?? -1 }));
  const write = (some: typeof numbered) =>
    postgres.query(
      `update events as e set seq = nullif(n.seq, -1), epoch = case when n.seq = -1 then -1 else $3 end
       from unnest($2::text[], $4::bigint[]) as n (id, seq)
       where e.task_id = $1 and e.id = n.id and e.seq is null`,
      [taskId, some.map((one) => one.id), published.epoch, some.map((one) => one.seq)],
    );
  try {
    await write(numbered);
  } catch (error) {
    if (!isUniqueViolation(error)) throw error;
    for (const one of numbered) {
      await postgres.query(
        'update events set seq = null, epoch = null where task_id = $1 and seq = $2 and epoch < $3 and id <> $4',
        [taskId, one.seq, published.epoch, one.id],
      );
      await write([one]).catch((cause: unknown) => {
        if (!isUniqueViolation(cause)) throw cause;
      });
    }
  }
}

function isUniqueViolation(error: unknown): boolean {
  return error instanceof Error && Reflect.get(error, 'code') === UNIQUE_VIOLATION;
}

function toScriptEvent(row: PendingRow): ScriptEvent {
  const body = JSON.stringify({ ...row.body, type: row.type, at: row.at.toISOString() });
  const call = row.body['callKey'];
  return { id: row.id, type: row.type, body, ...(typeof call === 'string' ? { call } : {}) };
}

function toTaskEvent(taskId: string, [id, fields]: [string, string[]]): TaskEvent {
  const cursor = parseCursor(id);
  const body = JSON.parse(fields[1] ?? '') as Omit<EventDraft, 'id'> & { at: string };
  if (cursor === undefined) throw new Error(`not an event id in the ring of ${taskId}: ${id}`);
  return { ...body, taskId, ...cursor };
}
