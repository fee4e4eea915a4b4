// Updates of a running task, and what can become of one: answered, refused with a reason, nobody there to take it.

import {
  type Client,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import type { Fault } from '../task/failure.ts';
import { UPDATE_REFUSALS, type UpdateRefusal } from '../workflows/messages.ts';

/** No task of this id is running that could be told anything. */
export class TaskNotRunningError extends Error {
  constructor(taskId: string, cause: unknown) {
    super(`no task with the id ${taskId} is running`, { cause });
    this.name = 'TaskNotRunningError';
  }
}

/** The task was told and refused. `faults` say what was wrong with an `InvalidUpdate`. */
export class UpdateRefusedError extends Error {
  readonly type: UpdateRefusal;
  readonly faults: readonly Fault[];

  constructor(refusal: { type: UpdateRefusal; message: string; faults: readonly Fault[] }, cause: unknown) {
    super(refusal.message, { cause });
    this.name = 'UpdateRefusedError';
    this.type = refusal.type;
    this.faults = refusal.faults;
  }
}

/** No worker took the update in time; Temporal may still hand it to one. */
export class UpdateUnansweredError extends Error {
  constructor(taskId: string, cause: unknown) {
    // As text: that no worker is there says nothing against Temporal, which its breaker would read from the cause.
    super(`no worker answered for task ${taskId} in time; what it was told may still take effect`, {
      cause: String(cause),
    });
    this.name = 'UpdateUnansweredError';
  }
}

/** An update is answered by a worker that reads a history and writes to a store, not by Temporal alone. */
const UPDATE_TIMEOUT_MS = 15_000;

/** Sends an update and waits for its answer. @throws TaskNotRunningError · UpdateRefusedError · UpdateUnansweredError */
export async function sendUpdate<Answer>(
  temporal: Client,
  taskId: string,
  { name, argument }: { readonly name: string; readonly argument: unknown },
): Promise<Answer> {
  try {
    return await temporal.withDeadline(Date.now() + UPDATE_TIMEOUT_MS, () =>
      temporal.workflow.getHandle(taskId).executeUpdate<Answer, [unknown]>(name, { args: [argument] }),
    );
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) throw new TaskNotRunningError(taskId, error);
    if (error instanceof WorkflowUpdateRPCTimeoutOrCancelledError)
      throw new UpdateUnansweredError(taskId, error);
    if (error instanceof WorkflowUpdateFailedError) throw toRefusal(taskId, error);
    throw error;
  }
}

function toRefusal(taskId: string, error: WorkflowUpdateFailedError): Error {
  const { cause } = error;
  const type = cause instanceof ApplicationFailure ? cause.type : undefined;
  const known = UPDATE_REFUSALS.find((refusal) => refusal === type);
  // A task that ended under the update says so with a type of Temporal's own.
  if (known === undefined || !(cause instanceof ApplicationFailure))
    return new TaskNotRunningError(taskId, error);
  const details: unknown = cause.details?.[0];
  // Made by workflows/failure.ts, or by nothing that carries such details.
  const faults =
    typeof details === 'object' && details !== null && 'faults' in details
      ? (details.faults as readonly Fault[])
      : [];
  return new UpdateRefusedError({ type: known, message: cause.message, faults }, error);
}
