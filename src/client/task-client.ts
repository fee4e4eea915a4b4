// Tasks over Temporal: start, result, status, cancel. Everything here is public contract; any Temporal SDK can do the same.

import { randomUUID } from 'node:crypto';
import {
  type Client,
  WorkflowExecutionAlreadyStartedError,
  WorkflowFailedError,
  WorkflowNotFoundError,
} from '@temporalio/client';
import { ApplicationFailure, TypedSearchAttributes } from '@temporalio/common';
import type { FailureDetails, Fault } from '../task/failure.ts';
import { parseTaskInput, type TaskInput, taskIdFault } from '../task/input.ts';
import { messageText } from '../task/message.ts';
import { toQueue, toQueuePriority } from '../task/priority.ts';
import { toSummary } from '../task/text.ts';
import {
  type ApprovalDecided,
  type ApprovalDecision,
  BUDGET_CHANGED_SIGNAL,
  type BudgetRaise,
  type BudgetRaised,
  DECIDE_APPROVAL_UPDATE,
  RAISE_BUDGET_UPDATE,
  RUN_TASK,
  STATUS_QUERY,
  type TaskResult,
  type TaskStatusReport,
} from '../workflows/messages.ts';
import { type GivenAttributes, givenAttributes, startAttributes } from './search-attributes.ts';
import { sendUpdate } from './task-update.ts';

export type TaskClientOptions = {
  readonly temporal: Client;
  readonly queuePrefix: string;
  /** Off: every task starts on `<prefix>-normal`. */
  readonly priorityQueues: boolean;
  /** Whether the namespace knows the search attributes (`ensureSearchAttributes`). */
  readonly searchAttributes: boolean;
  /** A tenant's share of a queue in which others wait as well, 0.001 to 1000; left out: all have the same. */
  readonly fairnessWeightOf?: (tenantId: string) => number;
  /** How long Temporal may take to answer, retries included; absent: as long as the SDK tries. Milliseconds. */
  readonly rpcTimeoutMs?: number;
};

export type StartedTask = { readonly taskId: string; readonly runId: string };

/** How Temporal sees a task. */
export type TaskExecution = {
  readonly runId: string;
  readonly status:
    | 'running'
    | 'completed'
    | 'failed'
    | 'cancelled'
    | 'terminated'
    | 'timed_out'
    | 'continued_as_new';
  readonly startedAt: Date;
  readonly endedAt: Date | undefined;
  /** What its search attributes say of it. */
  readonly given: GivenAttributes;
};

/**
 * The input was refused before anything was started.
 * @public
 */
export class InvalidTaskError extends Error {
  readonly faults: readonly Fault[];

  constructor(faults: readonly Fault[]) {
    super(
      `invalid task: ${faults.map((fault) => `${fault.path}: expected ${fault.expected}, got ${fault.got}`).join('; ')}`,
    );
    this.name = 'InvalidTaskError';
    this.faults = faults;
  }
}

/** A task of this id is running. */
export class TaskExistsError extends Error {
  constructor(taskId: string, cause: unknown) {
    super(`a task with the id ${taskId} is running`, { cause });
    this.name = 'TaskExistsError';
  }
}

export type TaskClient = ReturnType<typeof createTaskClient>;

export function createTaskClient(options: TaskClientOptions) {
  const { temporal, rpcTimeoutMs } = options;
  const { workflow } = temporal;
  const inTime = <Result>(work: () => Promise<Result>): Promise<Result> =>
    rpcTimeoutMs === undefined ? work() : temporal.withDeadline(Date.now() + rpcTimeoutMs, work);
  return {
    /**
     * Starts a task and answers as soon as Temporal has it.
     * @throws InvalidTaskError · TaskExistsError
     */
    start: (input: unknown, taskId: string = `task-${randomUUID()}`): Promise<StartedTask> =>
      inTime(() => start(options, input, taskId)),

    /** Waits for the result. @throws WorkflowFailedError whose cause is the typed ApplicationFailure, or a CancelledFailure */
    result: (taskId: string): Promise<TaskResult> =>
      workflow.getHandle(taskId).result() as Promise<TaskResult>,

    /** Asks the running workflow; needs a worker. */
    status: (taskId: string): Promise<TaskStatusReport> =>
      workflow.getHandle(taskId).query<TaskStatusReport>(STATUS_QUERY),

    /** Asks the task to stop; it ends as `cancelled` once its call has settled. False when there is no such task running. */
    cancel: (taskId: string): Promise<boolean> =>
      whereRunning(() => inTime(() => workflow.getHandle(taskId).cancel())),

    /**
     * Decides about an approval that the task waits for.
     * @throws TaskNotRunningError · UpdateRefusedError · UpdateUnansweredError
     */
    decideApproval: (taskId: string, decision: ApprovalDecision): Promise<ApprovalDecided> =>
      sendUpdate(temporal, taskId, { name: DECIDE_APPROVAL_UPDATE, argument: decision }),

    /**
     * Raises the task's own limits; a call that waits for one of them looks again.
     * @throws TaskNotRunningError · UpdateRefusedError · UpdateUnansweredError
     */
    raiseBudget: (taskId: string, raise: BudgetRaise): Promise<BudgetRaised> =>
      sendUpdate(temporal, taskId, { name: RAISE_BUDGET_UPDATE, argument: raise }),

    /** Lets a task that waits for a limit look again. False when there is no such task running. */
    budgetChanged: (taskId: string): Promise<boolean> =>
      whereRunning(() => inTime(() => workflow.getHandle(taskId).signal(BUDGET_CHANGED_SIGNAL))),

    /** Why an ended task failed, where it failed with a type of its own; for tasks that have no row. */
    failure: (taskId: string, runId: string): Promise<FailureDetails | undefined> =>
      inTime(() => failure(workflow, taskId, runId)),

    /** Process id of the worker that has the task's activity now, as the SDK's identity `<pid>@<host>` tells it. */
    async workerPid(taskId: string): Promise<number | undefined> {
      const { raw } = await inTime(() => workflow.getHandle(taskId).describe());
      const identity = raw.pendingActivities?.[0]?.lastWorkerIdentity;
      const pid = Number(identity?.split('@')[0]);
      return Number.isInteger(pid) && pid > 0 ? pid : undefined;
    },

    /** Undefined when Temporal knows no such task. */
    async describe(taskId: string, runId?: string): Promise<TaskExecution | undefined> {
      try {
        const described = await inTime(() => workflow.getHandle(taskId, runId).describe());
        return {
          runId: described.runId,
          status: toExecutionStatus(described.status.name),
          startedAt: described.startTime,
          endedAt: described.closeTime,
          given: givenAttributes(described.typedSearchAttributes),
        };
      } catch (error) {
        if (error instanceof WorkflowNotFoundError) return undefined;
        throw error;
      }
    },
  };
}

/** False when Temporal has no such workflow open. */
async function whereRunning(tell: () => Promise<unknown>): Promise<boolean> {
  try {
    await tell();
    return true;
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return false;
    throw error;
  }
}

async function start(options: TaskClientOptions, raw: unknown, taskId: string): Promise<StartedTask> {
  const input = checked(raw, taskId);
  const strategy = input.strategy === 'auto' ? 'simple' : input.strategy;
  const title = input.messages.findLast((message) => message.role === 'user');
  try {
    const handle = await options.temporal.workflow.start(RUN_TASK, {
      workflowId: taskId,
      taskQueue: toQueue(options.queuePrefix, input.priority, options.priorityQueues),
      priority: toQueuePriority(
        input.priority,
        input.tenantId,
        options.fairnessWeightOf?.(input.tenantId) ?? 1,
      ),
      args: [raw],
      staticSummary: toSummary(title === undefined ? taskId : messageText(title)),
      ...(options.searchAttributes
        ? { typedSearchAttributes: new TypedSearchAttributes(startAttributes(input, strategy)) }
        : {}),
    });
    return { taskId, runId: handle.firstExecutionRunId };
  } catch (error) {
    if (error instanceof WorkflowExecutionAlreadyStartedError) throw new TaskExistsError(taskId, error);
    throw error;
  }
}

async function failure(
  workflow: Client['workflow'],
  taskId: string,
  runId: string,
): Promise<FailureDetails | undefined> {
  try {
    await workflow.getHandle(taskId, runId).result();
    return undefined;
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    const details: unknown = error.cause instanceof ApplicationFailure ? error.cause.details?.[0] : undefined;
    // Made by workflows/failure.ts, or by nothing that carries such details.
    return typeof details === 'object' && details !== null && 'type' in details
      ? (details as FailureDetails)
      : undefined;
  }
}

function checked(raw: unknown, taskId: string): TaskInput {
  const parsed = parseTaskInput(raw);
  const idFault = taskIdFault(taskId);
  const faults = [
    ...(idFault === undefined ? [] : [idFault]),
    ...(parsed.kind === 'invalid' ? parsed.faults : []),
  ];
  if (parsed.kind === 'invalid' || faults.length > 0) throw new InvalidTaskError(faults);
  return parsed.input;
}

function toExecutionStatus(name: string): TaskExecution['status'] {
  switch (name) {
    case 'COMPLETED':
      return 'completed';
    case 'FAILED':
      return 'failed';
    case 'CANCELLED':
      return 'cancelled';
    case 'TERMINATED':
      return 'terminated';
    case 'TIMED_OUT':
      return 'timed_out';
    case 'CONTINUED_AS_NEW':
      return 'continued_as_new';
    default:
      return 'running';
  }
}
