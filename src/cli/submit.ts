// `weir submit`: starts tasks, shows them while they run, and sums them up. The tasks live in Temporal; leaving here stops none.

import { GatewayError, type TaskView } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import { formatUsd, parseUsd } from '../task/money.ts';
import { type AddressFlags, findAddresses, requireAny } from './addresses.ts';
import { openGateway, type TaskDoor, withTaskDoor } from './connect.ts';
import { CliError, describeFaults } from './fault.ts';
import { createTaskViewer, type TaskViewer } from './live-view.ts';
import { type Column, dim, isLive, printable, say, shorten, table, tell } from './print.ts';
import { type GivenInput, type InputFlags, readInputs } from './task-inputs.ts';
import { advance, isAnswered, newProgress, type TaskProgress } from './task-progress.ts';

export type SubmitOptions = AddressFlags &
  InputFlags & {
    readonly file?: string;
    readonly id?: string;
    readonly json?: boolean;
    /** `--no-wait`. */
    readonly wait: boolean;
  };

/** Tasks that are followed at a time. */
const AT_A_TIME = 50;

/** @returns the exit code: 0 when every task completed (or was accepted, with --no-wait), 1 when one did not, 130 when interrupted */
export async function runSubmit(
  query: string | undefined,
  options: SubmitOptions,
  environment: CliEnvironment,
): Promise<number> {
  const inputs = await readInputs({ query, file: options.file, id: options.id, flags: options });
  requireAny(findAddresses(options, environment), environment);
  const gateway = options.wait ? openGateway(options, environment) : undefined;
  // A gateway that is not there or takes no such key is told before anything is started.
  await gateway?.list({ limit: 1 });
  return withTaskDoor(options, environment, async (door) => {
    if (gateway === undefined) return submitOnly(door, inputs, options);
    return submitAndFollow({ door, gateway, inputs, options });
  });
}

async function submitOnly(
  door: TaskDoor,
  inputs: readonly GivenInput[],
  options: SubmitOptions,
): Promise<number> {
  await inParallel(inputs, async ({ input }) => {
    const taskId = await start(door, input, options.id);
    say(options.json === true ? JSON.stringify({ taskId }) : taskId);
  });
  return 0;
}

/** @throws CliError when the task was refused, with its faults */
async function start(door: TaskDoor, input: unknown, id: string | undefined): Promise<string> {
  try {
    return await door.start(input, id);
  } catch (error) {
    const faults = error instanceof GatewayError ? error.problem?.faults : undefined;
    if (faults !== undefined) throw new CliError(`the task is not valid\n${describeFaults(faults)}`, error);
    throw error;
  }
}

type Submission = {
  readonly door: TaskDoor;
  readonly gateway: ReturnType<typeof openGateway>;
  readonly inputs: readonly GivenInput[];
  readonly options: SubmitOptions;
};

async function submitAndFollow(submission: Submission): Promise<number> {
  const { inputs, options } = submission;
  const tasks: TaskProgress[] = [];
  const viewer = options.json === true ? SILENT : createTaskViewer(tasks);
  const interrupted = new AbortController();
  const onSignal = () => interrupted.abort();
  process.once('SIGINT', onSignal);
  let ended: readonly (TaskView | undefined)[] = [];
  try {
    ended = await inParallel(inputs, (given) =>
      followOne({ ...submission, given, tasks, viewer, signal: interrupted.signal }),
    );
  } finally {
    process.off('SIGINT', onSignal);
    viewer.close();
    for (const { taskId } of tasks.filter(({ isOver }) => !isOver))
      tell(`${taskId} goes on: weir tail ${taskId}`);
  }
  if (interrupted.signal.aborted) return 130;
  const views = ended.filter((view) => view !== undefined);
  if (options.json === true) for (const view of views) say(JSON.stringify(view));
  else sumUp(views);
  return views.every(({ status }) => isAnswered(status)) && views.length === inputs.length ? 0 : 1;
}

const SILENT: TaskViewer = { update: () => undefined, note: () => undefined, close: () => undefined };

/** From the start to the task as it ended; undefined when somebody interrupted. */
async function followOne(
  one: Submission & {
    given: GivenInput;
    tasks: TaskProgress[];
    viewer: TaskViewer;
    signal: AbortSignal;
  },
): Promise<TaskView | undefined> {
  const { door, gateway, options, given, tasks, viewer, signal } = one;
  if (signal.aborted) return undefined;
  const taskId = await start(door, given.input, options.id);
  const progress = newProgress(taskId, given.title);
  tasks.push(progress);
  viewer.update(progress);
  let isAway = false;
  const onOutage = (error: GatewayError) => {
    if (!isAway) viewer.note(dim(`${taskId}: ${error.message}; trying again`));
    isAway = true;
  };
  for await (const event of gateway.follow(taskId, { signal, onOutage })) {
    isAway = false;
    advance(progress, event);
    viewer.update(progress, event);
  }
  return signal.aborted ? undefined : gateway.get(taskId);
}

const SUMMARY: readonly Column[] = [
  { title: 'task' },
  { title: 'status' },
  { title: 'model' },
  { title: 'tokens in', right: true },
  { title: 'out', right: true },
  { title: 'USD', right: true },
  { title: 'answer or reason' },
];

function sumUp(views: readonly TaskView[]): void {
  const [only] = views;
  if (views.length === 1 && only?.result !== undefined && isLive()) say(`\n${printable(only.result.text)}`);
  say();
  table(
    SUMMARY,
    views.map((view) => [
      view.taskId,
      view.status,
      view.model ?? '',
      String(view.usage.inputTokens),
      String(view.usage.outputTokens),
      view.costUsd,
      shorten(view.error?.message ?? view.result?.text ?? '', 60),
    ]),
  );
  for (const { taskId, error } of views)
    if (error !== undefined) say(`\n${taskId}: ${printable(error.message)}`);
  if (views.length < 2) return;
  const answered = views.filter(({ status }) => isAnswered(status)).length;
  const nanoUsd = views.reduce((sum, view) => sum + (parseUsd(view.costUsd) ?? 0n), 0n);
  say(`\n${answered} of ${views.length} completed, $${formatUsd(nanoUsd)} in all`);
}

/** In order of the items, at most `AT_A_TIME` at once. After a failure nothing more is begun; all failures are thrown. */
async function inParallel<Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<readonly Result[]> {
  const results: Result[] = [];
  const failures: unknown[] = [];
  const queue = items.entries();
  const lane = async () => {
    for (const [index, item] of queue) {
      if (failures.length > 0) return;
      try {
        results[index] = await work(item);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_A_TIME, items.length) }, lane));
  if (failures.length === 1) throw failures[0];
  if (failures.length > 0) throw new AggregateError(failures, 'several tasks failed to be submitted');
  return results;
}
