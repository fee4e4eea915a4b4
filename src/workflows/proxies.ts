// Activities as workflow code sees them, with their timeouts and retry policies.

import {
  type ActivityInterfaceFor,
  isCancellation,
  proxyActivities,
  proxyLocalActivities,
  workflowInfo,
} from '@temporalio/workflow';
import type { Activities } from '../activities/index.ts';
import type { TaskSettings } from '../task/decision.ts';
import type { Priority } from '../task/input.ts';
import { type QueuePriority, toQueue } from '../task/priority.ts';
import { toSummary } from '../task/text.ts';

type Remote = ActivityInterfaceFor<Activities>;

const LOCAL_TRY = '2s';
const NORMAL_TRY = '30s';

/**
 * Runs `begin` or `finish` as a local activity, once; when that fails (a store is away), the same function as a normal activity with
 * retries, so that an outage holds no workflow-task slot.
 */
export async function localFirst<Result>(
  summary: string,
  work: (activities: Remote) => Promise<Result>,
): Promise<Result> {
  const local = proxyLocalActivities<Activities>({
    startToCloseTimeout: LOCAL_TRY,
    retry: { maximumAttempts: 1 },
  });
  try {
    return await work(local as Remote); // the same functions, with other options
  } catch (error) {
    if (isCancellation(error)) throw error;
    return work(
      proxyActivities<Activities>({ startToCloseTimeout: NORMAL_TRY, summary: toSummary(summary) }),
    );
  }
}

export type ModelCallOptions = {
  readonly settings: TaskSettings;
  readonly activityId: string;
  readonly summary: string;
  readonly taskQueue: string;
  /** Said for each activity: a task that a plain client started inherits none, or one of its own making. */
  readonly priority: QueuePriority;
  /** All attempts of this visit together. */
  readonly scheduleToCloseMs: number;
};

/** No maximum of attempts: the cap counts what failed at the provider, in the activity; time ends everything else. */
export function modelActivities(options: ModelCallOptions): Remote {
  return proxyActivities<Activities>({
    activityId: options.activityId,
    taskQueue: options.taskQueue,
    priority: options.priority,
    summary: toSummary(options.summary),
    scheduleToCloseTimeout: options.scheduleToCloseMs,
    heartbeatTimeout: options.settings.heartbeatTimeoutMs,
    cancellationType: 'WAIT_CANCELLATION_COMPLETED',
    retry: { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '30s' },
  });
}

const QUEUE = /^(.+)-(?:critical|high|normal|low)$/;

/** The queue of a task's activities: the prefix of its workflow's queue with the task's priority. */
export function activityQueue(priority: Priority, priorityQueues: boolean): string {
  const own = workflowInfo().taskQueue;
  const prefix = QUEUE.exec(own)?.[1];
  // A workflow on a queue of another name (a test's) keeps its activities there.
  if (prefix === undefined) return own;
  return toQueue(prefix, priority, priorityQueues);
}
