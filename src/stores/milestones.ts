// Milestones as rows: written in the transaction of their cause, without a sequence number until they were published.

import type { EventDraft } from '../task/event.ts';
import { cleanText } from '../task/text.ts';
import type { Sql } from './postgres.ts';
import { sanitise } from './sanitise.ts';

export type MilestoneTask = { readonly taskId: string; readonly runId: string; readonly tenantId: string };

/** Inserts the events in order; one that is there already stays as it is. */
export async function writeMilestones(
  sql: Sql,
  task: MilestoneTask,
  events: readonly EventDraft[],
): Promise<void> {
  if (events.length === 0) return;
  const bodies = events.map((event) => JSON.stringify(bodyOf(event)));
  await sql.query(
    `insert into events (task_id, run_id, tenant_id, id, type, body)
     select $1, $2, $3, id, type, body from unnest($4::text[], $5::text[], $6::jsonb[]) with ordinality as e (id, type, body, n)
     order by n on conflict do nothing`,
    [
      task.taskId,
      task.runId,
      task.tenantId,
      events.map((event) => event.id),
      events.map((event) => event.type),
      bodies,
    ],
  );
}

/** What an event says is cleaned; whom it speaks of is not: a task's id may look like a key, and readers know its calls by it. */
function bodyOf({ stepId, callKey, attempt, message, data }: EventDraft): object {
  const said = sanitise({ message, data }) as object; // as what it was given
  return { stepId: toStorable(stepId), callKey: toStorable(callKey), attempt: toStorable(attempt), ...said };
}

function toStorable(id: string | undefined): string | undefined {
  return id === undefined ? undefined : cleanText(id);
}
