// Warnings of limits that were passed by `warnAt`: told once per limit and window, however many calls and processes notice.

import { formatUsd } from '../task/money.ts';
import { toIntervalKey } from '../task/window.ts';
import type { LimitUse } from './gate.ts';
import { type MilestoneTask, writeMilestones } from './milestones.ts';
import type { Postgres } from './postgres.ts';

export type Thresholds = ReturnType<typeof createThresholds>;

/** What a process remembers of warnings that were given; beyond this it forgets and asks Postgres again. */
const REMEMBERED = 10_000;

export function createThresholds(postgres: Postgres) {
  // Only spares a statement per call: who comes first is decided by the row.
  const told = new Set<string>();
  return {
    /** Notes that a limit passed its warning share, and tells the task that caused it. False: it was told before. */
    async cross(
      tenantId: string,
      use: LimitUse & { readonly projected: bigint },
      task: MilestoneTask | undefined,
    ): Promise<boolean> {
      const { limit } = use;
      const row = [
        ...[tenantId, limit.scope.kind, limit.scope.id, limit.unit, limit.window],
        ...[toIntervalKey(use.interval), warnAmount(use)],
      ] as const;
      const name = row.join('|');
      if (told.has(name)) return false;
      const isFirst = await postgres.transaction(async (sql) => {
        const { rowCount } = await sql.query(
          `insert into budget_thresholds (tenant_id, scope, scope_id, unit, limit_window, interval_key, warn_amount, task_id)
           values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing`,
          [...row, task?.taskId ?? null],
        );
        if (rowCount === 1 && task !== undefined)
          await writeMilestones(sql, task, [{ id: `threshold:${name}`, ...toEvent(use) }]);
        return rowCount === 1;
      });
      if (told.size >= REMEMBERED) told.clear();
      told.add(name);
      return isFirst;
    },
  };
}

/** A changed amount or share is another warning. */
function warnAmount({ limit }: LimitUse): bigint {
  return (limit.amount * BigInt(Math.round(limit.warnAt * 1_000_000))) / 1_000_000n;
}

function toEvent({ limit, interval, projected }: LimitUse & { readonly projected: bigint }) {
  const show = (amount: bigint) => (limit.unit === 'usd' ? formatUsd(amount) : amount.toString());
  return {
    type: 'budget_threshold',
    data: {
      scope: limit.scope.kind,
      id: limit.scope.id,
      unit: limit.unit,
      window: limit.window,
      limit: show(limit.amount),
      projected: show(projected),
      warnAt: limit.warnAt,
      hard: limit.hard,
      ...(limit.window === 'total' ? {} : { resetsAt: new Date(interval.endMs).toISOString() }),
    },
  } as const;
}
