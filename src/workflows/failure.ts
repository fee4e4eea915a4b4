// The one place in workflow code where a task's end without an answer becomes a Temporal failure: typed, benign, never retried, one
// details object. A plain Error would fail the workflow task and repeat for ever.

import { ApplicationFailureCategory } from '@temporalio/common';
import { ApplicationFailure } from '@temporalio/workflow';
import { type FailureDetails, type Fault, failureMessage } from '../task/failure.ts';
import type { UpdateRefusal } from './messages.ts';

export function taskFailure(details: FailureDetails): ApplicationFailure {
  return ApplicationFailure.create({
    type: details.type,
    message: failureMessage(details),
    nonRetryable: true,
    category: ApplicationFailureCategory.BENIGN,
    details: [details],
  });
}

/** Refuses an update, to whoever sent it; the task goes on. */
export function updateRefused(
  type: UpdateRefusal,
  message: string,
  faults: readonly Fault[] = [],
): ApplicationFailure {
  return ApplicationFailure.create({
    type,
    message,
    nonRetryable: true,
    category: ApplicationFailureCategory.BENIGN,
    ...(faults.length === 0 ? {} : { details: [{ faults }] }),
  });
}

/** A failure thrown by `taskFailure`, or undefined for anything else. */
export function failureDetailsOf(error: unknown): FailureDetails | undefined {
  if (!(error instanceof ApplicationFailure)) return undefined;
  const details: unknown = error.details?.[0];
  // Made by taskFailure in this very workflow, or by nothing that carries such details.
  return typeof details === 'object' && details !== null && 'type' in details
    ? (details as FailureDetails)
    : undefined;
}
