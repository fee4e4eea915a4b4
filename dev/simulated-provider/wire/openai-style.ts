// How OpenAI says that something is wrong, and what it says of its limits in headers.

import type { JsonObject } from '../body-fields.ts';
import type { Problem } from '../problem.ts';
import type { LimitState } from '../rate-limits.ts';
import type { ErrorStyle } from './endpoint.ts';

export const openaiStyle: ErrorStyle = {
  idHeader: 'x-request-id',
  body: (problem) => openaiError(problem),
  headers: (problem) => retryHeaders(problem.retryAfterMs),
  rateHeaders: (state) => ({
    ...limitHeaders('requests', state.requests),
    ...limitHeaders('tokens', state.tokens),
  }),
};

export function openaiError(problem: Problem): JsonObject {
  const known = typeOf(problem);
  return {
    error: {
      message: problem.message,
      type: known.type,
      param: problem.param ?? null,
      code: problem.code ?? known.code,
    },
  };
}

/** `retry-after` in whole seconds, rounded up, and `retry-after-ms`. */
export function retryHeaders(retryAfterMs: number | undefined): Record<string, string> {
  if (retryAfterMs === undefined) return {};
  return {
    'retry-after': String(Math.ceil(retryAfterMs / 1000)),
    'retry-after-ms': String(Math.ceil(retryAfterMs)),
  };
}

function typeOf(problem: Problem): { type: string; code: string | null } {
  if (problem.code === 'insufficient_quota') return { type: 'insufficient_quota', code: null };
  switch (problem.status) {
    case 401:
      return { type: 'invalid_request_error', code: 'invalid_api_key' };
    case 404:
      return { type: 'invalid_request_error', code: 'model_not_found' };
    case 429:
      return { type: problem.limit ?? 'requests', code: 'rate_limit_exceeded' };
    default:
      return { type: problem.status >= 500 ? 'server_error' : 'invalid_request_error', code: null };
  }
}

function limitHeaders(name: string, state: LimitState): Record<string, string> {
  if (state.limit === Infinity) return {};
  return {
    [`x-ratelimit-limit-${name}`]: String(state.limit),
    [`x-ratelimit-remaining-${name}`]: String(state.remaining),
    [`x-ratelimit-reset-${name}`]: goDuration(state.resetMs),
  };
}

/** As OpenAI writes it: `120ms`, `1.5s`, `6m0s`. */
function goDuration(ms: number): string {
  if (ms < 1000) return `${ms}ms`;
  const minutes = Math.floor(ms / 60_000);
  const seconds = (ms % 60_000) / 1000;
  return minutes > 0 ? `${minutes}m${seconds}s` : `${seconds}s`;
}
