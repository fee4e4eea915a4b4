import { ApplicationFailure, ApplicationFailureCategory } from '@temporalio/common';
import { describe, expect, it } from 'vitest';
import { RETRIED_TYPES, toRetryable } from '../../src/activities/failure.ts';
import { BreakerOpen } from '../../src/calls/breaker.ts';
import { AttemptFailed, CallAborted } from '../../src/calls/govern.ts';
import { LlmError } from '../../src/llm/error.ts';

const down = new LlmError('openai/a: HTTP 503', { kind: 'unknown', stage: 'answered', status: 503 });

const ROWS: [string, unknown, { type: string; message: string; nextRetryDelay?: number }][] = [
  [
    'an attempt that failed at the provider',
    new AttemptFailed('the attempt at openai/a failed: unknown', { cause: down }),
    { type: 'AttemptFailed', message: 'the attempt at openai/a failed: unknown' },
  ],
  [
    'a call that is handed over',
    new CallAborted('handover'),
    { type: 'Handover', message: 'the call was handover', nextRetryDelay: 100 },
  ],
  [
    'a call that somebody else resolved',
    new CallAborted('fenced'),
    { type: 'Handover', message: 'the call was fenced', nextRetryDelay: 100 },
  ],
  [
    'a breaker that is open',
    new BreakerOpen('redis', 7_000),
    {
      type: 'StoreUnavailable',
      message: 'the breaker of redis is open, next try in 7000 ms',
      nextRetryDelay: 7_000,
    },
  ],
  [
    'a breaker that lets somebody else try',
    new BreakerOpen('redis', 0),
    {
      type: 'StoreUnavailable',
      message: 'the breaker of redis is open, next try in 0 ms',
      nextRetryDelay: 100,
    },
  ],
  [
    'an error with a code',
    Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }),
    { type: 'Unknown', message: 'connect ECONNREFUSED' },
  ],
  ['an error with no status', new Error('nobody knows'), { type: 'Unknown', message: 'nobody knows' }],
  [
    'a mistake in the code',
    new TypeError('x is not a function'),
    { type: 'Unknown', message: 'x is not a function' },
  ],
  ['a text', 'just a text', { type: 'Unknown', message: 'just a text' }],
  ['nothing at all', undefined, { type: 'Unknown', message: 'undefined' }],
];

describe('toRetryable', () => {
  it.each(ROWS)('makes a retryable, benign failure of %s', (_title, error, expected) => {
    const failure = toRetryable(error);
    expect(failure).toBeInstanceOf(ApplicationFailure);
    expect(failure).toMatchObject({
      ...expected,
      nonRetryable: false,
      category: ApplicationFailureCategory.BENIGN,
    });
    expect(failure.nextRetryDelay).toBe(expected.nextRetryDelay);
    expect(failure.cause).toBe(error instanceof Error ? error : undefined);
  });

  it('has a row for every type', () => {
    expect([...new Set(ROWS.map(([, , expected]) => expected.type))].sort()).toEqual(
      [...RETRIED_TYPES].sort(),
    );
  });
});
