// Makes the one `LlmError` of a failed attempt out of what was seen on the wire and in the stream. What the AI SDK throws carries
// prompts, answers and headers with it, so none of it is passed on as a cause.

import { APICallError, StreamProviderError, TypeValidationError, UnsupportedFunctionalityError } from 'ai';
import { classify } from './classify.ts';
import { LlmError, type LlmErrorKind, type LlmErrorStage } from './error.ts';
import { readErrorBody } from './error-body.ts';
import type { Exchange } from './exchange.ts';
import { retryAfterMsFrom } from './hints.ts';
import type { KeyFault, OtherKeys } from './key-ring.ts';
import { isBeforeSending, networkCodes } from './network-fault.ts';
import type { Reading } from './reading.ts';

export type FailedAttempt = {
  readonly model: string;
  readonly attemptKey: string;
  readonly isAborted: boolean;
  readonly exchange: Exchange;
  readonly reading: Reading;
  /** What was thrown, or stood in the stream; undefined when the stream just ended. */
  readonly error: unknown;
  readonly nowMs: number;
  /** Told what was wrong; says what the provider's other keys could do. */
  readonly onFault?: (fault: KeyFault) => OtherKeys;
};

export function toLlmError(attempt: FailedAttempt): LlmError {
  const { exchange, reading, error } = attempt;
  const seenStatus = exchange.status;
  const isAccepted = seenStatus !== undefined && seenStatus >= 200 && seenStatus < 300;
  const body = bodyOf(error);
  const said = readErrorBody(body);
  const status = isAccepted ? said?.status : seenStatus;
  const kind = kindOf(attempt, { status, body, isAccepted });
  const hint = mayWait(kind, status) ? retryAfterMsFrom(exchange.headers, body, attempt.nowMs) : undefined;
  const keys = attempt.onFault?.({ kind, status, retryAfterMs: hint });
  const stage = stageOf(attempt, { isAccepted, isAnswered: said !== undefined || isRefusal(reading) });
  return new LlmError(`${attempt.model}: ${describe(kind, seenStatus)} (attempt ${attempt.attemptKey})`, {
    kind,
    stage,
    status,
    retryAfterMs: keys === undefined ? hint : keys.retryAfterMs,
    hasOtherKey: keys?.hasOtherKey === true,
    usage: reading.usage,
    isUsageCurrent: reading.isUsageCurrent,
    outputText: reading.outputText,
    cause: causeOf(exchange, error, said),
  });
}

/** The provider ended the stream in order, with its filter's name and no text. */
function isRefusal({ finishReason, text }: Reading): boolean {
  return finishReason === 'content-filter' && text === '';
}

function kindOf(
  { isAborted, exchange, reading, error }: FailedAttempt,
  facts: { readonly status: number | undefined; readonly body: unknown; readonly isAccepted: boolean },
): LlmErrorKind {
  // What the AI SDK cannot put into a request is wrong with the request.
  if (!isAborted && !exchange.isRequested) return 'bad_request';
  if (!isAborted && error === undefined && isRefusal(reading)) return 'content_filter';
  return classify({
    aborted: isAborted,
    status: facts.status,
    body: facts.body,
    networkCodes: networkCodes(exchange.networkError),
    cut: facts.isAccepted,
  });
}

function stageOf(
  { exchange, reading }: FailedAttempt,
  facts: { readonly isAccepted: boolean; readonly isAnswered: boolean },
): LlmErrorStage {
  if (reading.hasOutput) return 'output';
  if (!exchange.isRequested) return 'unsent';
  if (exchange.status === undefined) return isBeforeSending(exchange.networkError) ? 'unsent' : 'unanswered';
  // A status line of success promises nothing yet: what the provider did for a stream that broke is not known.
  return facts.isAccepted && !facts.isAnswered ? 'unanswered' : 'answered';
}

/** Hints are for those who will ask again. */
function mayWait(kind: LlmErrorKind, status: number | undefined): boolean {
  return kind === 'rate_limited' || kind === 'overloaded' || (status !== undefined && status >= 500);
}

/** The provider's own error object, wherever the AI SDK keeps it. */
function bodyOf(error: unknown): unknown {
  if (APICallError.isInstance(error)) return error.responseBody ?? error.data;
  if (StreamProviderError.isInstance(error)) return error.data;
  // A chunk that is none of the protocol's, as some servers send their errors.
  if (TypeValidationError.isInstance(error)) return hasError(error.value) ? error.value : undefined;
  return error instanceof Error ? undefined : error;
}

function hasError(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'error' in value;
}

const DESCRIPTIONS: Readonly<Record<LlmErrorKind, string>> = {
  rate_limited: 'the provider is over its rate limit',
  overloaded: 'the provider is overloaded',
  quota: 'the account has no quota left',
  timeout: 'the provider took too long',
  connection: 'the provider could not be reached',
  cut: 'the stream was cut',
  bad_request: 'the request was refused as wrong',
  too_long: 'the request does not fit the context window',
  not_found: 'the provider does not know the model',
  auth: 'the credential was refused',
  content_filter: 'the content was refused',
  aborted: 'the call was aborted',
  unknown: 'the call failed',
};

function describe(kind: LlmErrorKind, status: number | undefined): string {
  return status === undefined ? DESCRIPTIONS[kind] : `${DESCRIPTIONS[kind]}, status ${status}`;
}

function causeOf(exchange: Exchange, error: unknown, said: ReturnType<typeof readErrorBody>): unknown {
  if (exchange.networkError !== undefined) return exchange.networkError;
  if (said !== undefined) {
    const param = said.param === undefined ? [] : [`param ${said.param}`];
    return new Error(`provider error ${[...said.words, ...param].join(', ') || 'without a code'}`);
  }
  if (UnsupportedFunctionalityError.isInstance(error))
    return new Error(`unsupported: ${error.functionality}`);
  return error instanceof Error ? new Error(error.name) : undefined;
}
