// The one place where something that went wrong becomes an HTTP problem document (RFC 9457). Nothing of a database, a provider or a
// stack trace goes into one.

import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { BreakerOpen } from '../calls/breaker.ts';
import { isTemporalOutage } from '../client/outage.ts';
import { TaskExistsError } from '../client/task-client.ts';
import { TaskNotRunningError, UpdateRefusedError, UpdateUnansweredError } from '../client/task-update.ts';
import type { Problem } from '../client/wire.ts';
import type { Logger } from '../log.ts';
import { type FailureDetails, type FailureType, type Fault, failureMessage } from '../task/failure.ts';
import { describeValue } from '../task/input-fields.ts';
import type { UpdateRefusal } from '../workflows/messages.ts';
import { StoreAway } from './outage.ts';

/** A request that cannot be served, for a reason that its sender may know. */
export class HttpProblem extends Error {
  readonly problem: Problem;
  readonly headers: Readonly<Record<string, string>>;

  constructor(problem: Problem, headers: Readonly<Record<string, string>> = {}) {
    super(problem.detail ?? problem.title);
    this.name = 'HttpProblem';
    this.problem = problem;
    this.headers = headers;
  }
}

type Row = { readonly status: number; readonly title: string };

/** By failure type: what a task is refused or fails with. */
const FAILURES = {
  InvalidTask: { status: 400, title: 'The task is not valid' },
  BudgetExceeded: { status: 402, title: 'A budget is exceeded' },
  RateLimited: { status: 429, title: 'A rate limit is reached' },
  RequestRejected: { status: 400, title: 'The provider rejected the request' },
  ApprovalRejected: { status: 403, title: 'The approval was refused' },
  ApprovalTimedOut: { status: 408, title: 'Nobody approved in time' },
  NoModelAvailable: { status: 503, title: 'No model is available' },
  DeadlineExceeded: { status: 504, title: 'The deadline has passed' },
  ContentRefused: { status: 422, title: 'The content was refused' },
} as const satisfies Record<FailureType, Row>;

/** By HTTP status: what is wrong with a request itself. */
const REQUESTS: Readonly<Record<number, { readonly type: string; readonly title: string }>> = {
  400: { type: 'InvalidRequest', title: 'The request is not valid' },
  401: { type: 'Unauthorized', title: 'A valid key is needed' },
  403: { type: 'Forbidden', title: 'The request is not allowed' },
  404: { type: 'NotFound', title: 'There is no such thing' },
  409: { type: 'Conflict', title: 'The request does not fit the present state' },
  413: { type: 'TooLarge', title: 'The request is too large' },
  415: { type: 'UnsupportedMediaType', title: 'The body must be JSON' },
  426: { type: 'UpgradeRequired', title: 'Another protocol is needed' },
  431: { type: 'TooLarge', title: 'The headers are too large' },
};

const DEFAULT_RETRY_MS = 1_000;

/** @throws never; answers the error to be thrown */
export function refusal(details: FailureDetails): HttpProblem {
  const { status, title } = FAILURES[details.type];
  return new HttpProblem({ ...details, title, status, detail: failureMessage(details) }, headersOf(details));
}

export function invalidRequest(faults: readonly Fault[]): HttpProblem {
  const detail = faults
    .map((fault) => `${fault.path}: expected ${fault.expected}, got ${fault.got}`)
    .join('; ');
  return requestProblem(400, detail, { faults });
}

export function notFound(detail: string): HttpProblem {
  return requestProblem(404, detail);
}

type ConflictType = 'TaskExists' | 'NotStarted' | Exclude<UpdateRefusal, 'InvalidUpdate'>;

export function conflict(type: ConflictType, detail: string): HttpProblem {
  return requestProblem(409, detail, { type });
}

export function upgradeRequired(): HttpProblem {
  const detail = 'this address speaks WebSocket only; server-sent events are at /stream';
  return requestProblem(426, detail, {}, { upgrade: 'websocket', connection: 'upgrade' });
}

export function foreignPage(origin: string): HttpProblem {
  const detail = `without keys only pages of this machine may open a WebSocket, and this one is of ${origin}`;
  return requestProblem(403, detail);
}

export function unauthorized(): HttpProblem {
  const detail = 'send the key as "Authorization: Bearer <key>" or "X-API-Key: <key>"';
  return requestProblem(401, detail, {}, { 'www-authenticate': 'Bearer' });
}

/** Fastify's error handler. Only what nobody foresaw is logged as an error. */
export function createErrorHandler(log: Logger) {
  return (error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const { problem, headers } = toHttpProblem(error, request);
    const fields = { method: request.method, route: request.routeOptions.url, status: problem.status, error };
    if (problem.status === 503) log.warn('request not served, a dependency is away', fields);
    else if (problem.status >= 500) log.error('request failed', fields);
    return sendProblem(reply, problem, headers);
  };
}

export function sendProblem(
  reply: FastifyReply,
  problem: Problem,
  headers: Readonly<Record<string, string>> = {},
): FastifyReply {
  return reply
    .code(problem.status)
    .headers(headers)
    .type('application/problem+json')
    .serializer((body: unknown) => JSON.stringify(body))
    .send(problem);
}

export function toHttpProblem(error: FastifyError | Error, request?: FastifyRequest): HttpProblem {
  if (error instanceof HttpProblem) return error;
  if (error instanceof TaskExistsError) return conflict('TaskExists', error.message);
  if (error instanceof TaskNotRunningError) return conflict('NotRunning', error.message);
  if (error instanceof UpdateRefusedError)
    return error.type === 'InvalidUpdate'
      ? invalidRequest(error.faults)
      : conflict(error.type, error.message);
  if (error instanceof UpdateUnansweredError)
    return new HttpProblem({
      ...{ type: 'Unanswered', title: 'No worker answered', status: 503 },
      // Not to be repeated blindly: a raise that arrives late and is repeated raises twice.
      detail: `${error.message}; look before trying again`,
    });
  if (error instanceof BreakerOpen) return unavailable(error.retryAfterMs);
  if (error instanceof StoreAway)
    return unavailable(error.cause instanceof BreakerOpen ? error.cause.retryAfterMs : undefined);
  if (isTemporalOutage(error)) return unavailable(undefined);
  if ('validation' in error && error.validation !== undefined)
    return invalidRequest(toFaults(error, request));
  const status = 'statusCode' in error ? (error.statusCode ?? 500) : 500;
  // Fastify's own messages on 4xx speak of the request alone.
  if (status >= 400 && status < 500) return requestProblem(status, error.message);
  return new HttpProblem({ type: 'Internal', title: 'The gateway failed', status: 500 });
}

function requestProblem(
  status: number,
  detail: string,
  extension: Readonly<Record<string, unknown>> = {},
  headers: Readonly<Record<string, string>> = {},
): HttpProblem {
  const row = REQUESTS[status] ?? { type: 'InvalidRequest', title: 'The request cannot be served' };
  return new HttpProblem({ ...row, status, detail, ...extension }, headers);
}

function unavailable(retryAfterMs: number | undefined): HttpProblem {
  const detail = 'a store or Temporal does not answer; nothing is lost, try again';
  return new HttpProblem(
    { type: 'Unavailable', title: 'A dependency is away', status: 503, detail },
    retryHeaders(retryAfterMs ?? DEFAULT_RETRY_MS),
  );
}

/** The queues are counted by housekeeping, which Temporal or Postgres may keep from it. */
export function notCounted(): HttpProblem {
  const detail = 'the queues have not been counted for a minute; try again';
  return new HttpProblem(
    { type: 'Unavailable', title: 'The queues are not counted', status: 503, detail },
    retryHeaders(DEFAULT_RETRY_MS),
  );
}

function headersOf(details: FailureDetails): Readonly<Record<string, string>> {
  switch (details.type) {
    case 'BudgetExceeded':
      return { 'x-should-retry': 'false' };
    case 'RateLimited':
    case 'NoModelAvailable':
      return details.retryAfterMs === undefined ? {} : retryHeaders(details.retryAfterMs);
    default:
      return {};
  }
}

/** Whole seconds for the standard header, never less than the wait. */
function retryHeaders(ms: number): Readonly<Record<string, string>> {
  return {
    'retry-after': String(Math.max(1, Math.ceil(ms / 1000))),
    'retry-after-ms': String(Math.ceil(ms)),
  };
}

/** From the paths of zod's issues, with what stands there in the request. */
function toFaults(error: FastifyError, request: FastifyRequest | undefined): readonly Fault[] {
  const { body, query: querystring, params, headers } = request ?? {};
  const parts: Readonly<Record<string, unknown>> = { body, querystring, params, headers };
  return (error.validation ?? []).map(({ instancePath, message }) => {
    const path = instancePath.split('/').filter((name) => name !== '');
    const given = path.reduce<unknown>(
      (value, name) => (typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined),
      parts[error.validationContext ?? ''],
    );
    const got = given === undefined ? 'nothing' : describeValue(given);
    return { path: path.join('.'), expected: message ?? 'another value', got };
  });
}
