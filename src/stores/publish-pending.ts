// Publishes milestones from their rows: what has no number yet, oldest first. A publisher that died before its script leaves rows that
// the sweeper finds; one that died after it leaves rows whose numbers the log feed carries.

import { type EventNumber, writeNumbers } from './event-numbers.ts';
import type { MilestoneTask } from './milestones.ts';
import type { Postgres } from './postgres.ts';
import type { Milestone, PublishEvents, Published } from './publish-events.ts';

/** A ring forgets whole batches: so many events more than it should keep. */
const PAGE = 100;
const TASKS_PER_PAGE = 100;
const TASKS_AT_ONCE = 8;

/** `epoch`: the one that the task was in when the row had no number; null for a task without a row. */
type PendingRow = Milestone & { readonly ordinal: bigint; readonly epoch: number | null };

export function createPublishPending(postgres: Postgres, publish: PublishEvents) {
  const publishPending = (task: MilestoneTask, isSwept: boolean) =>
    publishAll(postgres, publish, { task, isSwept });
  /** Where the last sweep was broken off; undefined: it came to the end. */
  let after: MilestoneTask | undefined;
  return {
    publish: (task: MilestoneTask) => publishPending(task, false),

    async sweep(olderThanMs: number): Promise<number> {
      let swept = 0;
      const failed: unknown[] = [];
      for (let isMore = true; isMore; ) {
        const tasks = await tasksWithPending(postgres, olderThanMs, after);
        const queue = tasks.values();
        const lane = async () => {
          for (const task of queue)
            await publishPending(task, true).catch((error: unknown) => void failed.push(error));
        };
        await Promise.all(Array.from({ length: TASKS_AT_ONCE }, lane));
        swept += tasks.length;
        const isLast = tasks.length < TASKS_PER_PAGE;
        after = isLast ? undefined : tasks.at(-1);
        // A store that is away keeps all waiting; tasks that cannot be published keep no other: the next sweep goes on behind them.
        isMore = !isLast && failed.length < TASKS_PER_PAGE;
      }
      if (failed.length > 0) throw new AggregateError(failed, `${failed.length} tasks could not be swept`);
      return swept;
    },
  };
}

/** A task is left behind by where it stands in the order: its rows may have no number for a while. */
async function tasksWithPending(
  postgres: Postgres,
  olderThanMs: number,
  after: MilestoneTask | undefined,
): Promise<readonly MilestoneTask[]> {
  const { rows } = await postgres.query<{ task_id: string; run_id: string; tenant_id: string }>(
    `select distinct task_id, run_id, tenant_id from events
     where seq is null and epoch is null and at < now() - make_interval(secs => $1 / 1000.0)
       and (task_id, run_id, tenant_id) > ($2, $3, $4)
     order by task_id, run_id, tenant_id limit ${TASKS_PER_PAGE}`,
    [olderThanMs, after?.taskId ?? '', after?.runId ?? '', after?.tenantId ?? ''],
  );
  return rows.map((row) => ({ taskId: row.task_id, runId: row.run_id, tenantId: row.tenant_id }));
}

async function publishAll(
  postgres: Postgres,
  publish: PublishEvents,
  { task, isSwept }: { task: MilestoneTask; isSwept: boolean },
): Promise<number> {
  let shown = 0;
  for (let at = BEGINNING; ; ) {
    const rows = await readPending(postgres, task, at.ordinal);
    const [first, last] = [rows[0], rows.at(-1)];
    if (first === undefined || last === undefined) return shown;
    const published = await publishPage(publish, task, { rows, first, before: at });
    if (published.kind === 'left') return shown;
    if (published.kind === 'published' || published.kind === 'over') {
      const outcome = outcomeOf(task, rows, published);
      shown += outcome.shown;
      await refuse(postgres, task, outcome.refused);
      if (isSwept) await writeNumbers(postgres, outcome.known);
      if (rows.length < PAGE) return shown;
    }
    at = published.kind === 'published' ? { ordinal: last.ordinal, epoch: published.epoch } : BEGINNING;
  }
}

/** How far a task's pending milestones are published, and in which epoch. */
type Place = { readonly ordinal: bigint; readonly epoch: number | undefined };

const BEGINNING: Place = { ordinal: 0n, epoch: undefined };

type Page = { readonly rows: readonly PendingRow[]; readonly first: PendingRow; readonly before: Place };

async function publishPage(
  publish: PublishEvents,
  task: MilestoneTask,
  { rows, first, before }: Page,
): Promise<Published> {
  // What was published before may have no number in an epoch that has begun since, and comes first there.
  if (before.epoch !== undefined && before.epoch !== first.epoch) return { kind: 'moved' };
  const events = rows.map((milestone) => ({ kind: 'milestone', milestone }) as const);
  const settles = rows.length < PAGE ? ({ settles: 'all' } as const) : {};
  return publish({ task, events, epoch: first.epoch ?? 0, ...settles });
}

/** Row and epoch are of one moment: from a row without a number at that time no older epoch can take it any more. */
async function readPending(
  postgres: Postgres,
  { taskId, runId }: MilestoneTask,
  after: bigint,
): Promise<readonly PendingRow[]> {
  const { rows } = await postgres.query<PendingRow>(
    `select e.id, e.type, e.at, e.body, e.ordinal, t.epoch from events e left join tasks t on t.task_id = e.task_id
     where e.task_id = $1 and e.run_id = $2 and e.seq is null and e.epoch is null and e.ordinal > $3
     order by e.ordinal limit ${PAGE}`,
    [taskId, runId, after],
  );
  return rows;
}

function outcomeOf(
  task: MilestoneTask,
  rows: readonly PendingRow[],
  published: Exclude<Published, { kind: 'pending' | 'moved' | 'left' }>,
) {
  if (published.kind === 'over') return { shown: 0, refused: rows.map((row) => row.id), known: [] };
  const { epoch, before, seqs } = published;
  const refused = rows.filter((_, index) => seqs[index] === -1).map((row) => row.id);
  const known = rows.flatMap(({ id }, index): EventNumber[] => {
    const seq = seqs[index] ?? -1;
    return seq === -1 || seq > before ? [] : [{ taskId: task.taskId, id, epoch, seq }];
  });
  return { shown: rows.length - refused.length - known.length, refused, known };
}

/** A refused event is marked, so that nobody sweeps it again. */
async function refuse(postgres: Postgres, { taskId }: MilestoneTask, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  await postgres.query(
    'update events set epoch = -1 where task_id = $1 and id = any($2) and seq is null and epoch is null',
    [taskId, ids],
  );
}
