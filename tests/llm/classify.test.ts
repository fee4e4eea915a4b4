// The table of failures, row by row, and what counts as not yet sent.

import { describe, expect, test } from 'vitest';
import { classify, type FaultFacts } from '../../src/llm/classify.ts';
import type { LlmErrorKind } from '../../src/llm/error.ts';
import { isBeforeSending, networkCodes } from '../../src/llm/network-fault.ts';

const openai = (code: string | null, type = 'invalid_request_error', message = 'x') => ({
  error: { code, type, message },
});
const anthropic = (type: string, message = 'x') => ({ type: 'error', error: { type, message } });
const google = (code: number | null, status: string, message = 'x', details?: object[]) => ({
  error: { code, status, message, details },
});

type Row = readonly [what: string, facts: FaultFacts, kind: LlmErrorKind];

const STATUS_ROWS: readonly Row[] = [
  ['400', { status: 400 }, 'bad_request'],
  ['413', { status: 413 }, 'bad_request'],
  ['422', { status: 422 }, 'bad_request'],
  ['404', { status: 404 }, 'not_found'],
  ['401', { status: 401 }, 'auth'],
  ['403', { status: 403 }, 'auth'],
  ['402', { status: 402 }, 'quota'],
  ['429', { status: 429 }, 'rate_limited'],
  ['529', { status: 529 }, 'overloaded'],
  ['408', { status: 408 }, 'timeout'],
  ['500', { status: 500 }, 'unknown'],
  ['502 with a page', { status: 502, body: '<html>bad gateway</html>' }, 'unknown'],
  ['503', { status: 503, body: google(503, 'UNAVAILABLE', 'The model is overloaded.') }, 'unknown'],
  ['504', { status: 504 }, 'unknown'],
  ['a redirect', { status: 301 }, 'unknown'],
  ['a 4xx without a meaning here', { status: 409 }, 'unknown'],
  ['a status that wins over a general word', { status: 401, body: openai(null) }, 'auth'],
];

const BODY_ROWS: readonly Row[] = [
  ['openai quota', { status: 429, body: openai('insufficient_quota', 'insufficient_quota') }, 'quota'],
  ['openai length', { status: 400, body: openai('context_length_exceeded') }, 'too_long'],
  ['openai filter', { status: 400, body: openai('content_filter', '') }, 'content_filter'],
  ['openai policy', { status: 400, body: openai('content_policy_violation') }, 'content_filter'],
  ['openai flagged prompt', { status: 400, body: openai('invalid_prompt') }, 'content_filter'],
  [
    'azure filter',
    {
      status: 400,
      body: { error: { code: 'x', message: 'x', innererror: { code: 'ResponsibleAIPolicyViolation' } } },
    },
    'content_filter',
  ],
  ['openai model', { status: 404, body: openai('model_not_found') }, 'not_found'],
  ['openai key', { status: 401, body: openai('invalid_api_key') }, 'auth'],
  ['openai parameter', { status: 400, body: openai('unsupported_parameter') }, 'bad_request'],
  [
    'vllm length',
    {
      status: 400,
      body: openai(null, 'BadRequestError', "This model's maximum context length is 8192 tokens."),
    },
    'too_long',
  ],
  [
    'llama.cpp length',
    { status: 400, body: { error: { code: 400, type: 'exceed_context_size_error', message: 'x' } } },
    'too_long',
  ],
  ['anthropic overloaded', { status: 529, body: anthropic('overloaded_error') }, 'overloaded'],
  ['anthropic overloaded under 503', { status: 503, body: anthropic('overloaded_error') }, 'overloaded'],
  [
    'anthropic length',
    { status: 400, body: anthropic('invalid_request_error', 'prompt is too long: 9 > 8') },
    'too_long',
  ],
  [
    'anthropic length with output',
    {
      status: 400,
      body: anthropic('invalid_request_error', 'input length and `max_tokens` exceed context limit: 9 > 8'),
    },
    'too_long',
  ],
  [
    'anthropic balance',
    {
      status: 400,
      body: anthropic('invalid_request_error', 'Your credit balance is too low to access the API.'),
    },
    'quota',
  ],
  ['anthropic billing', { status: 400, body: anthropic('billing_error') }, 'quota'],
  ['anthropic size', { status: 413, body: anthropic('request_too_large') }, 'bad_request'],
  [
    'google key',
    { status: 400, body: google(400, 'INVALID_ARGUMENT', 'x', [{ reason: 'API_KEY_INVALID' }]) },
    'auth',
  ],
  [
    'google length',
    {
      status: 400,
      body: google(
        400,
        'INVALID_ARGUMENT',
        'The input token count (9) exceeds the maximum number of tokens allowed (8).',
      ),
    },
    'too_long',
  ],
  ['google in a list', { status: 429, body: [google(429, 'RESOURCE_EXHAUSTED')] }, 'rate_limited'],
  ['a body as text', { status: 400, body: JSON.stringify(openai('context_length_exceeded')) }, 'too_long'],
  [
    'an outage that quotes a length',
    { status: 500, body: openai(null, 'x', 'prompt is too long') },
    'unknown',
  ],
];

const STREAM_ROWS: readonly Row[] = [
  ['overloaded', { cut: true, body: { type: 'overloaded_error', message: 'Overloaded' } }, 'overloaded'],
  ['rate', { cut: true, body: anthropic('rate_limit_error') }, 'rate_limited'],
  ['key', { cut: true, body: anthropic('authentication_error') }, 'auth'],
  ['right', { cut: true, body: anthropic('permission_error') }, 'auth'],
  ['request', { cut: true, body: anthropic('invalid_request_error') }, 'bad_request'],
  ['model', { cut: true, body: anthropic('not_found_error') }, 'not_found'],
  ['time', { cut: true, body: anthropic('timeout_error') }, 'timeout'],
  ['google status by name', { cut: true, body: google(null, 'RESOURCE_EXHAUSTED') }, 'rate_limited'],
  ['google status by number', { cut: true, body: google(503, 'UNAVAILABLE') }, 'unknown'],
  ['a number as code', { cut: true, body: { error: { code: 429, message: 'x' } } }, 'rate_limited'],
  ['a number as text', { cut: true, body: { error: { code: '402', message: 'x' } } }, 'quota'],
  ['an error of its own', { cut: true, body: anthropic('api_error') }, 'unknown'],
];

const WIRELESS_ROWS: readonly Row[] = [
  ['the caller', { aborted: true, status: 500, networkCodes: ['ECONNRESET'] }, 'aborted'],
  ['a refused connection', { networkCodes: ['ECONNREFUSED'] }, 'connection'],
  ['a reset connection', { networkCodes: ['ECONNRESET'] }, 'connection'],
  ['a socket that undici lost', { networkCodes: ['UND_ERR_SOCKET'] }, 'connection'],
  ['a connect that took too long', { networkCodes: ['UND_ERR_CONNECT_TIMEOUT'] }, 'connection'],
  ['headers that never came', { networkCodes: ['UND_ERR_HEADERS_TIMEOUT'] }, 'timeout'],
  ['a body that stalled', { networkCodes: ['UND_ERR_BODY_TIMEOUT'], cut: true }, 'timeout'],
  ['a stream that broke', { networkCodes: ['UND_ERR_SOCKET'], cut: true }, 'cut'],
  ['a stream that just ended', { cut: true }, 'cut'],
  ['an error with no status', {}, 'unknown'],
  ['an error with no status and an empty body', { body: {} }, 'unknown'],
];

describe('classify', () => {
  test.each(STATUS_ROWS)('by status: %s', (_, facts, kind) => expect(classify(facts)).toBe(kind));
  test.each(BODY_ROWS)('by body: %s', (_, facts, kind) => expect(classify(facts)).toBe(kind));
  test.each(STREAM_ROWS)('by an error inside a stream: %s', (_, facts, kind) =>
    expect(classify(facts)).toBe(kind),
  );
  test.each(WIRELESS_ROWS)('without a status: %s', (_, facts, kind) => expect(classify(facts)).toBe(kind));
});

const failed = (cause: unknown) => new TypeError('fetch failed', { cause });
const coded = (code: string, more: object = {}) => Object.assign(new Error(code), { code, ...more });

describe('isBeforeSending', () => {
  test.each([
    ['refused', failed(coded('ECONNREFUSED', { syscall: 'connect' })), true],
    ['no such name', failed(coded('ENOTFOUND', { syscall: 'getaddrinfo' })), true],
    ['no name server', failed(coded('EAI_AGAIN', { syscall: 'getaddrinfo' })), true],
    ['connect timeout', failed(coded('UND_ERR_CONNECT_TIMEOUT')), true],
    ['no route', failed(coded('EHOSTUNREACH', { syscall: 'connect' })), true],
    ['certificate', failed(coded('DEPTH_ZERO_SELF_SIGNED_CERT')), true],
    ['certificate of another name', failed(coded('ERR_TLS_CERT_ALTNAME_INVALID', { host: 'a' })), true],
    ['hang-up within the handshake', failed(coded('ECONNRESET', { host: 'a', localAddress: null })), true],
    [
      'every address refused',
      failed(new AggregateError([coded('ECONNREFUSED'), coded('ETIMEDOUT', { syscall: 'connect' })])),
      true,
    ],
    [
      'one address reset',
      failed(new AggregateError([coded('ECONNREFUSED'), coded('ECONNRESET', { syscall: 'read' })])),
      false,
    ],
    ['reset while reading', failed(coded('ECONNRESET', { syscall: 'read' })), false],
    ['pipe broken while writing', failed(coded('EPIPE', { syscall: 'write' })), false],
    ['time out while reading', failed(coded('ETIMEDOUT', { syscall: 'read' })), false],
    ['other side closed', failed(coded('UND_ERR_SOCKET')), false],
    ['headers timeout', failed(coded('UND_ERR_HEADERS_TIMEOUT')), false],
    ['unknown', failed(new Error('bad port')), false],
    ['nothing', undefined, false],
  ])('%s', (_, error, expected) => expect(isBeforeSending(error)).toBe(expected));
});

test('networkCodes ends on a chain that bites its tail', () => {
  const error = new Error('a');
  error.cause = new Error('b', { cause: error });
  expect(networkCodes(error)).toEqual([]);
});
