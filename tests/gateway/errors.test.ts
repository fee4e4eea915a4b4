// The table from failures to HTTP, and the small readers of headers and lines.

import { describe, expect, test } from 'vitest';
import { BreakerOpen } from '../../src/calls/breaker.ts';
import { TaskExistsError } from '../../src/client/task-client.ts';
import { refusal, toHttpProblem } from '../../src/gateway/errors.ts';
import { StoreAway, tellingOutage } from '../../src/gateway/outage.ts';
import { preferredWait } from '../../src/gateway/prefer.ts';
import { formatEvent } from '../../src/gateway/sse.ts';
import type { FailureDetails } from '../../src/task/failure.ts';

const budget = {
  type: 'BudgetExceeded',
  scope: 'user',
  id: 'u1',
  unit: 'usd',
  window: 'total',
  limit: '1.00',
  settled: '0.99',
  held: '0.00',
  needed: '0.02',
} as const;
const ofModel = (
  type: 'RateLimited' | 'RequestRejected' | 'NoModelAvailable' | 'DeadlineExceeded' | 'ContentRefused',
  retryAfterMs?: number,
) =>
  ({
    type,
    reason: 'because',
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  }) satisfies FailureDetails;

describe('a failure', () => {
  const TABLE: [FailureDetails, number, Record<string, string>][] = [
    [{ type: 'InvalidTask', faults: [] }, 400, {}],
    [budget, 402, { 'x-should-retry': 'false' }],
    [ofModel('RateLimited', 1_500), 429, { 'retry-after': '2', 'retry-after-ms': '1500' }],
    [ofModel('RateLimited'), 429, {}],
    [ofModel('RequestRejected'), 400, {}],
    [ofModel('NoModelAvailable', 100), 503, { 'retry-after': '1', 'retry-after-ms': '100' }],
    [ofModel('DeadlineExceeded'), 504, {}],
    [ofModel('ContentRefused'), 422, {}],
  ];
  test.each(TABLE)('%j becomes %i', (details, status, headers) => {
    const { problem, headers: sent } = refusal(details);
    expect(problem).toMatchObject({ ...details, status });
    expect(problem.title).toBeTruthy();
    expect(problem.detail).toBeTruthy();
    expect(sent).toEqual(headers);
  });

  test('of budget carries the same figures as the failure of a task', () => {
    expect(refusal(budget).problem).toMatchObject(budget);
    expect(refusal(budget).headers).not.toHaveProperty('retry-after');
  });
});

describe('an error', () => {
  test.each([
    [new TaskExistsError('t', undefined), 409, 'TaskExists'],
    [new BreakerOpen('redis', 2_500), 503, 'Unavailable'],
    [new StoreAway(new Error('x')), 503, 'Unavailable'],
    [
      Object.assign(new Error('x', { cause: Object.assign(new Error('y'), { code: 14 }) })),
      503,
      'Unavailable',
    ],
    [Object.assign(new Error('x'), { code: 5 }), 500, 'Internal'],
    [Object.assign(new Error('too big'), { statusCode: 413 }), 413, 'TooLarge'],
    [Object.assign(new Error('teapot'), { statusCode: 418 }), 418, 'InvalidRequest'],
    [new Error('unforeseen'), 500, 'Internal'],
    [new TypeError('a mistake'), 500, 'Internal'],
  ])('%s becomes %i %s', (error, status, type) => {
    expect(toHttpProblem(error).problem).toMatchObject({ status, type });
  });

  test('of a breaker tells when it lets calls through again', () => {
    const hints = { 'retry-after': '3', 'retry-after-ms': '2500' };
    expect(toHttpProblem(new BreakerOpen('redis', 2_500)).headers).toEqual(hints);
    expect(toHttpProblem(new StoreAway(new BreakerOpen('redis', 2_500))).headers).toEqual(hints);
  });

  test('of a store is told apart from a mistake in the program', async () => {
    const store = tellingOutage(
      {
        size: 3,
        now: () => 7,
        fail: async (error: Error): Promise<void> => {
          throw error;
        },
        async own() {
          return this.size;
        },
      },
      (error) => error instanceof Error && error.message !== 'a wrong statement',
    );
    await expect(store.fail(new Error('connection lost'))).rejects.toBeInstanceOf(StoreAway);
    await expect(store.fail(new Error('a wrong statement'))).rejects.toThrow('a wrong statement');
    await expect(store.fail(new TypeError('x is not a function'))).rejects.toBeInstanceOf(TypeError);
    expect([store.size, store.now(), await store.own()]).toEqual([3, 7, 3]);
  });
});

test.each([
  ['wait=5', 5],
  ['respond-async, wait=10', 10],
  ['Wait = "7"; x=y', 7],
  ['wait=100000', 60],
  ['wait=-1', undefined],
  ['await=5', undefined],
  ['wait=5s', undefined],
  ['', undefined],
  [undefined, undefined],
  [['handling=lenient', 'wait=3'], 3],
])('the preference %j waits %s seconds', (header, seconds) => {
  expect(preferredWait(header)).toBe(seconds);
});

test('an event is one line of data, whatever its text holds', () => {
  const event = {
    taskId: 't',
    epoch: 2,
    seq: 3,
    type: 'call_delta',
    at: 'now',
    data: { text: 'a\n\r\n: b\u2028' },
  } as const;
  const text = formatEvent(event);
  expect(text.split('\n')).toHaveLength(5);
  expect(text).toContain('id: 2-3\nevent: call_delta\ndata: {');
  expect(JSON.parse(text.split('\n')[2]?.slice(6) ?? '')).toEqual(event);
});
