// What a command could not do, in words for the person at the terminal. Nothing here prints.

import type { Fault } from '../task/failure.ts';

/** The message is all that is shown; it may have several lines. */
export class CliError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'CliError';
  }
}

/** One line a fault: where, what was expected, what came. */
export function describeFaults(faults: readonly Fault[]): string {
  return faults
    .map(({ path, expected, got }) => `  ${path === '' ? '' : `${path}: `}expected ${expected}, got ${got}`)
    .join('\n');
}

/** What is shown of an error: its message, never a stack. */
export function describeError(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0)
    return [...new Set(error.errors.map(describeError))].join('\n');
  return error instanceof Error ? error.message || error.name : String(error);
}
