// What went wrong with a request to the gateway, in words for a person and as data for a program.

import type { Problem } from './wire.ts';

type GatewayErrorDetails = {
  readonly status?: number;
  readonly problem?: Problem | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
};

/** The gateway refused or failed, answered something that it should not, or did not answer at all. */
export class GatewayError extends Error {
  /** HTTP status; undefined when there was no answer. */
  readonly status: number | undefined;
  /** The problem document, where the answer was one. */
  readonly problem: Problem | undefined;
  /** How long the gateway asks to be left alone, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, details: GatewayErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.name = 'GatewayError';
    this.status = details.status;
    this.problem = details.problem;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** An answer with a status that is no success. Reads its body. */
export async function toGatewayError(response: Response): Promise<GatewayError> {
  const { status } = response;
  const text = await response.text().catch(() => '');
  const problem = readProblem(text, status);
  const said = problem?.detail ?? problem?.title ?? response.statusText;
  const message = `the gateway answered ${status}${said === '' ? '' : `: ${said}`}`;
  return new GatewayError(message, { status, problem, retryAfterMs: readRetryAfter(response.headers) });
}

/** `retry-after-ms`, or `retry-after` in seconds; a date, which only proxies send, is left to the caller's own pace. */
function readRetryAfter(headers: Headers): number | undefined {
  const ms = headers.get('retry-after-ms');
  if (ms !== null && /^\d{1,12}$/.test(ms)) return Number(ms);
  const seconds = headers.get('retry-after');
  return seconds !== null && /^\d{1,9}$/.test(seconds) ? Number(seconds) * 1_000 : undefined;
}

/** No answer: refused, reset, unknown host, too late. */
export function unreachable(url: string, cause: unknown): GatewayError {
  return new GatewayError(`no gateway answers at ${url} (${reasonOf(cause)}): is it running?`, { cause });
}

/** An answer that broke off. */
export function cutOff(url: string, cause: unknown): GatewayError {
  return new GatewayError(`the connection to ${url} was lost (${reasonOf(cause)})`, { cause });
}

function readProblem(text: string, status: number): Problem | undefined {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body !== 'object' || body === null || Array.isArray(body)) return undefined;
    const { type, title, ...rest } = body as Record<string, unknown>;
    if (typeof type !== 'string') return undefined;
    return { ...rest, type, title: typeof title === 'string' ? title : type, status };
  } catch {
    return undefined; // a proxy's page: the status says what there is to say
  }
}

/** fetch says "fetch failed" and keeps the reason in its cause, or in the errors of one. */
function reasonOf(error: unknown): string {
  let reason = 'no reason given';
  for (let cause = error; cause instanceof Error; cause = innerOf(cause)) {
    const code: unknown = Reflect.get(cause, 'code');
    reason = typeof code === 'string' && code !== '' ? code : cause.message || reason;
  }
  return reason;
}

function innerOf(error: Error): unknown {
  return error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error.cause;
}
