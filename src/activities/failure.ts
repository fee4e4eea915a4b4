// The one table from what a governed call throws to Temporal's failures. A limit is an outcome and never comes here; everything here
// is tried again by Temporal, since nothing here is known to be final.

import { ApplicationFailure } from '@temporalio/activity';
import { ApplicationFailureCategory } from '@temporalio/common';
import { BreakerOpen } from '../calls/breaker.ts';
import { AttemptFailed, CallAborted } from '../calls/govern.ts';

/** Types of retried failures, for readers of a history. */
export const RETRIED_TYPES = ['AttemptFailed', 'Handover', 'StoreUnavailable', 'Unknown'] as const;

type RetriedType = (typeof RETRIED_TYPES)[number];

const FENCED_RETRY_MS = 100;

/** A retryable failure that keeps its cause. An unknown error is retryable, bounded by the call's time. */
export function toRetryable(error: unknown): ApplicationFailure {
  if (error instanceof AttemptFailed) return retryable('AttemptFailed', error.message, error);
  if (error instanceof CallAborted) return retryable('Handover', error.message, error, FENCED_RETRY_MS);
  if (error instanceof BreakerOpen)
    return retryable('StoreUnavailable', error.message, error, Math.max(error.retryAfterMs, FENCED_RETRY_MS));
  const message = error instanceof Error ? error.message : String(error);
  return retryable('Unknown', message, error);
}

function retryable(
  type: RetriedType,
  message: string,
  cause: unknown,
  nextRetryDelayMs?: number,
): ApplicationFailure {
  return ApplicationFailure.create({
    type,
    message,
    nonRetryable: false,
    category: ApplicationFailureCategory.BENIGN,
    ...(nextRetryDelayMs === undefined ? {} : { nextRetryDelay: nextRetryDelayMs }),
    ...(cause instanceof Error ? { cause } : {}),
  });
}
