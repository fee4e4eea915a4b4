// `weir tasks` and `weir cancel`: what there is, and how to stop one.

import type { TaskView } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import { TASK_STATUSES, type TaskStatus } from '../task/status.ts';
import type { AddressFlags } from './addresses.ts';
import { openGateway, withTaskDoor } from './connect.ts';
import { CliError } from './fault.ts';
import { type Column, dim, say, shorten, table } from './print.ts';

export type TasksOptions = AddressFlags & {
  readonly user?: string;
  readonly session?: string;
  readonly status?: string;
  readonly limit: number;
  readonly json?: boolean;
};

const LARGEST_PAGE = 100;

/** Newest first, over as many pages as the limit needs. */
export async function runTasks(options: TasksOptions, environment: CliEnvironment): Promise<void> {
  const status = options.status === undefined ? undefined : toStatus(options.status);
  const gateway = openGateway(options, environment);
  const tasks: TaskView[] = [];
  let cursor: string | undefined;
  do {
    const limit = Math.min(LARGEST_PAGE, options.limit - tasks.length);
    const page = await gateway.list({
      userId: options.user,
      sessionId: options.session,
      status,
      limit,
      cursor,
    });
    tasks.push(...page.tasks);
    cursor = page.next;
  } while (cursor !== undefined && tasks.length < options.limit);
  if (options.json === true) for (const task of tasks) say(JSON.stringify(task));
  else showTasks(tasks);
}

function toStatus(text: string): TaskStatus {
  const status = TASK_STATUSES.find((known) => known === text);
  if (status === undefined)
    throw new CliError(`--status is one of ${TASK_STATUSES.join(', ')}, got "${text}"`);
  return status;
}

function showTasks(tasks: readonly TaskView[]): void {
  if (tasks.length === 0) {
    say(dim('no tasks'));
    return;
  }
  const columns: readonly Column[] = [
    { title: 'task' },
    { title: 'status' },
    { title: 'user' },
    { title: 'model' },
    { title: 'tokens', right: true },
    { title: 'USD', right: true },
    { title: 'created' },
    { title: 'answer or reason' },
  ];
  table(
    columns,
    tasks.map((task) => [
      task.taskId,
      task.status,
      task.userId,
      task.model ?? '',
      String(task.usage.inputTokens + task.usage.outputTokens),
      task.costUsd,
      task.createdAt.slice(0, 19).replace('T', ' '),
      shorten(task.error?.message ?? task.waiting?.reason ?? task.result?.text ?? '', 50),
    ]),
  );
}

/** @throws CliError when there is no such task running */
export async function runCancel(
  taskId: string,
  options: AddressFlags,
  environment: CliEnvironment,
): Promise<void> {
  await withTaskDoor(options, environment, async (door) => {
    if (!(await door.cancel(taskId))) throw new CliError(`no task with the id ${taskId} is running`);
    say(`${taskId} is asked to stop`);
  });
}
