// How many tasks a tenant may have that were accepted and have not ended. One tenant's flood would otherwise fill queues, tables and
// everybody's wait.

import type { Sql } from './postgres.ts';

export type QueueCap = ReturnType<typeof createQueueCap>;

/** With so much room left nobody can fill it before the next look. */
const PLENTY = 1_000;
const LOOK_AGAIN_MS = 1_000;
/** Tenants whose last look is remembered. */
const REMEMBERED = 10_000;

/** @param max undefined: as many as they like */
export function createQueueCap(sql: Sql, max: number | undefined) {
  const plentyUntil = new Map<string, number>();
  const hasPlenty = (tenantId: string) => (plentyUntil.get(tenantId) ?? 0) > performance.now();
  const remember = (tenantId: string, open: number) => {
    if (max === undefined || max - open <= PLENTY) return;
    if (plentyUntil.size >= REMEMBERED) plentyUntil.clear();
    plentyUntil.set(tenantId, performance.now() + LOOK_AGAIN_MS);
  };
  return {
    max,

    /**
     * Whether one more may be accepted, in the transaction that accepts it. The lock lets no two submissions of a tenant see the same last
     * place free; far below the cap nobody takes it.
     */
    async hasRoom(transaction: Sql, tenantId: string): Promise<boolean> {
      if (max === undefined || hasPlenty(tenantId)) return true;
      const open = await countOpen(transaction, { tenantId, atMost: max });
      remember(tenantId, open);
      if (max - open > PLENTY) return true;
      await transaction.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [
        `queue-cap ${tenantId}`,
      ]);
      return (await countOpen(transaction, { tenantId, atMost: max })) < max;
    },

    /** Whether so many were accepted before this task, and have not ended, that it has no place. */
    async isOver(tenantId: string, taskId: string): Promise<boolean> {
      if (max === undefined || hasPlenty(tenantId)) return false;
      // Itself among them.
      const open = await countOpen(sql, { tenantId, atMost: max + 1 });
      remember(tenantId, open);
      return open > max && (await countOpen(sql, { tenantId, atMost: max, before: taskId })) >= max;
    },
  };
}

type Count = {
  readonly tenantId: string;
  /** More need not be counted. */
  readonly atMost: number;
  /** Only those that were accepted before this task. */
  readonly before?: string;
};

async function countOpen(sql: Sql, { tenantId, atMost, before }: Count): Promise<number> {
  const { rows } = await sql.query<{ count: number }>(
    `select count(*)::int as count from (
       select 1 from tasks where tenant_id = $1 and ended_at is null
         and ($3::text is null or (created_at, task_id) < (select created_at, task_id from tasks where task_id = $3))
       limit $2) as open`,
    [tenantId, atMost, before ?? null],
  );
  return rows[0]?.count ?? 0;
}
