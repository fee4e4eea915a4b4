// Whether an error of the Temporal client says that the server is away, and not that a request was wrong.

import { status } from '@grpc/grpc-js';

const AWAY: ReadonlySet<unknown> = new Set([
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.RESOURCE_EXHAUSTED,
  status.CANCELLED,
  status.UNKNOWN,
]);

/** Looks through causes: the client wraps what gRPC threw. */
export function isTemporalOutage(error: unknown): boolean {
  return AWAY.has(codeOf(error));
}

/** Whether it speaks against the server: one that throttles, or that was not waited for, serves. */
export function isTemporalFailure(error: unknown): boolean {
  const code = codeOf(error);
  return AWAY.has(code) && code !== status.RESOURCE_EXHAUSTED && code !== status.CANCELLED;
}

function codeOf(error: unknown): number | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const code: unknown = Reflect.get(cause, 'code');
    if (typeof code === 'number') return code;
  }
  return undefined;
}
