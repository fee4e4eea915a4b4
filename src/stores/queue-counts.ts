// The last count of all queues, for every process to show: counted by one at a time, so that many processes ask the servers no more than
// one does.

import type { Priority } from '../task/input.ts';
import { QUOTA_WAITS, type QueueCount, type QueueCounts } from '../task/queue-count.ts';
import type { Sql } from './postgres.ts';

export type QueueCountStore = ReturnType<typeof createQueueCounts>;

/** An older count says nothing any more: a queue that nobody counts is not empty. */
const STALE_MS = 60_000;

export function createQueueCounts(sql: Sql) {
  return {
    /** Tasks that wait for a limit now, by priority; one whose time is over is back in its queue. */
    async quotaWaiting(): Promise<Readonly<Record<Priority, number>>> {
      const { rows } = await sql.query<{ priority: Priority; count: number }>(
        `select priority, count(*)::int as count from tasks
         where ended_at is null and status = 'waiting' and waiting->>'kind' = any($1)
           and (waiting->>'until')::timestamptz > now()
         group by priority`,
        [[...QUOTA_WAITS]],
      );
      const counted = Object.fromEntries(rows.map(({ priority, count }) => [priority, count]));
      return { critical: 0, high: 0, normal: 0, low: 0, ...counted };
    },

    async write(queues: readonly QueueCount[]): Promise<void> {
      await sql.query(
        `insert into queue_counts (counts) values ($1)
         on conflict (id) do update set at = now(), counts = excluded.counts`,
        [JSON.stringify(queues)],
      );
    },

    /** Undefined when nobody has counted for a while. */
    async read(): Promise<QueueCounts | undefined> {
      const { rows } = await sql.query<{ at: Date; counts: readonly QueueCount[] }>(
        'select at, counts from queue_counts where at > now() - make_interval(secs => $1 / 1000.0)',
        [STALE_MS],
      );
      const [row] = rows;
      return row === undefined ? undefined : { at: row.at.toISOString(), queues: row.counts };
    },
  };
}
