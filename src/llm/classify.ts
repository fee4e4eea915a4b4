// What a failed attempt was, as one pure table from the facts of the wire to a kind. Providers' words come first where they are
// precise, then the status, then their general words, then the network's codes. Decides nothing about retries.

import type { LlmErrorKind } from './error.ts';
import { type ErrorWords, readErrorBody } from './error-body.ts';

export type FaultFacts = {
  /** The caller ended it. */
  readonly aborted?: boolean | undefined;
  /** An error status that was seen. A 2xx is not one: leave it out and give the error that came in its stream as `body`. */
  readonly status?: number | undefined;
  /** The body of the error status, or the error that stood inside a stream: parsed JSON or text. */
  readonly body?: unknown;
  /** Codes of Node or undici, when the connection failed. */
  readonly networkCodes?: readonly string[] | undefined;
  /** A 2xx status came, and the stream did not end as the protocol says. An error in it that says nothing known is `unknown`. */
  readonly cut?: boolean | undefined;
};

/** The kind of a failure. An error that says nothing at all is `unknown`. */
export function classify(facts: FaultFacts): LlmErrorKind {
  if (facts.aborted) return 'aborted';
  const said = readErrorBody(facts.body);
  const status = facts.status ?? said?.status;
  return (
    kindOfPreciseWord(said) ??
    kindOfMessage(said, status) ??
    (status === undefined ? undefined : kindOfStatus(status)) ??
    kindOfGeneralWord(said) ??
    kindOfNetwork(facts.networkCodes ?? [], facts.cut === true && said === undefined) ??
    'unknown'
  );
}

/** Words that mean one thing under whatever status they come. */
const PRECISE_WORDS: Readonly<Record<string, LlmErrorKind>> = {
  insufficient_quota: 'quota',
  billing_error: 'quota',
  billing_hard_limit_reached: 'quota',
  billing_not_active: 'quota',
  context_length_exceeded: 'too_long',
  exceed_context_size_error: 'too_long',
  content_filter: 'content_filter',
  content_policy_violation: 'content_filter',
  responsibleaipolicyviolation: 'content_filter',
  moderation_blocked: 'content_filter',
  invalid_prompt: 'content_filter',
  prohibited_content: 'content_filter',
  overloaded_error: 'overloaded',
  invalid_api_key: 'auth',
  api_key_invalid: 'auth',
  model_not_found: 'not_found',
  rate_limit_exceeded: 'rate_limited',
};

/** Words that only repeat a status, for errors that come without one. */
const GENERAL_WORDS: Readonly<Record<string, LlmErrorKind>> = {
  rate_limit_error: 'rate_limited',
  too_many_requests: 'rate_limited',
  resource_exhausted: 'rate_limited',
  overloaded: 'overloaded',
  authentication_error: 'auth',
  permission_error: 'auth',
  unauthenticated: 'auth',
  permission_denied: 'auth',
  not_found_error: 'not_found',
  not_found: 'not_found',
  request_too_large: 'bad_request',
  invalid_request_error: 'bad_request',
  invalid_argument: 'bad_request',
  failed_precondition: 'bad_request',
  timeout_error: 'timeout',
  deadline_exceeded: 'timeout',
};

/** The only way some providers have of saying it: their codes are the same as for any wrong request. */
const MESSAGES: readonly { readonly kind: LlmErrorKind; readonly pattern: RegExp }[] = [
  {
    kind: 'too_long',
    pattern:
      /prompt is too long|maximum context length|exceed(s|ed)? (the )?(context (limit|window|length|size)|(available )?context|maximum number of (input )?tokens)/i,
  },
  { kind: 'quota', pattern: /credit balance is too low/i },
  { kind: 'auth', pattern: /api key not valid|api key expired/i },
];

const WRONG_REQUEST: ReadonlySet<number> = new Set([400, 413, 422]);

const STATUSES: Readonly<Record<number, LlmErrorKind>> = {
  400: 'bad_request',
  401: 'auth',
  402: 'quota',
  403: 'auth',
  404: 'not_found',
  408: 'timeout',
  413: 'bad_request',
  422: 'bad_request',
  429: 'rate_limited',
  529: 'overloaded',
};

const TIMEOUT_CODES: ReadonlySet<string> = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT']);

function kindOfPreciseWord(said: ErrorWords | undefined): LlmErrorKind | undefined {
  return firstKind(said, PRECISE_WORDS);
}

function kindOfGeneralWord(said: ErrorWords | undefined): LlmErrorKind | undefined {
  return firstKind(said, GENERAL_WORDS);
}

function firstKind(
  said: ErrorWords | undefined,
  table: Readonly<Record<string, LlmErrorKind>>,
): LlmErrorKind | undefined {
  const word = said?.words.find((candidate) => Object.hasOwn(table, candidate));
  return word === undefined ? undefined : table[word];
}

/** Only where the request was called wrong: an outage may quote anything. */
function kindOfMessage(said: ErrorWords | undefined, status: number | undefined): LlmErrorKind | undefined {
  if (said === undefined || (status !== undefined && !WRONG_REQUEST.has(status))) return undefined;
  return MESSAGES.find(({ pattern }) => pattern.test(said.message))?.kind;
}

function kindOfStatus(status: number): LlmErrorKind {
  return STATUSES[status] ?? 'unknown';
}

function kindOfNetwork(codes: readonly string[], cut: boolean): LlmErrorKind | undefined {
  if (codes.some((code) => TIMEOUT_CODES.has(code))) return 'timeout';
  if (cut) return 'cut';
  return codes.length > 0 ? 'connection' : undefined;
}
