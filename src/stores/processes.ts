// Presence of workers and gateways: a row each, renewed every few seconds. It is the evidence of life of holds that no activity owns, and
// the number of callers that share a limit while Redis is away.

import type { Sql } from './postgres.ts';

export type ProcessKind = 'worker' | 'gateway';

export const PROCESS_RENEWAL_MS = 5_000;
/** A process whose row is older has lost its holds. */
const ALIVE_MS = 10_000;
/** One that was late once still counts as a caller. */
const COUNTED_MS = 15_000;
/** Rows of processes that were killed are kept that long, to be looked at. */
const FORGOTTEN_MS = 3_600_000;

export type Processes = ReturnType<typeof createProcesses>;

export function createProcesses(sql: Sql) {
  let lastCount: number | undefined;
  return {
    /** `calls` are the call keys that the process has under way without an activity. */
    async renew(id: string, kind: ProcessKind, calls: readonly string[]): Promise<void> {
      await sql.query(
        `insert into processes (process_id, kind, calls) values ($1, $2, $3)
         on conflict (process_id) do update set calls = excluded.calls, renewed_at = now()`,
        [id, kind, JSON.stringify(calls)],
      );
    },

    /** A process that ends itself. */
    async remove(id: string): Promise<void> {
      await sql.query('delete from processes where process_id = $1', [id]);
    },

    /** Living processes, this one included; remembered for when Postgres does not answer. */
    async liveCount(): Promise<number> {
      const { rows } = await sql.query<{ count: number }>(
        'select count(*)::int as count from processes where renewed_at > now() - make_interval(secs => $1 / 1000.0)',
        [COUNTED_MS],
      );
      lastCount = Math.max(1, rows[0]?.count ?? 1);
      return lastCount;
    },

    /** Undefined before the first count. */
    lastCount: (): number | undefined => lastCount,

    /** How long a process's evidence of life for a call still holds, in milliseconds; 0 when it is dead or does not know the call. */
    async lifeOf(id: string, callKey: string): Promise<number> {
      const { rows } = await sql.query<{ age: number }>(
        `select (extract(epoch from now() - renewed_at) * 1000)::float8 as age from processes
         where process_id = $1 and calls ? $2`,
        [id, callKey],
      );
      const [row] = rows;
      return row === undefined ? 0 : Math.max(0, ALIVE_MS - row.age);
    },

    async forgetDead(): Promise<void> {
      await sql.query('delete from processes where renewed_at < now() - make_interval(secs => $1 / 1000.0)', [
        FORGOTTEN_MS,
      ]);
    },
  };
}
