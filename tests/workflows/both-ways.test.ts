// The provider table of the design, row by row, once driven by the workflow and once by the direct way: real stores, real calls.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LlmErrorFields } from '../../src/llm/error.ts';
import { type BothWays, openBothWays, type RoutedEnd, type RoutedRow } from '../support/both-ways.ts';
import type { FakeStep } from '../support/fake-models.ts';
import { hardLimit, openTestStores, type TestStores } from '../support/stores.ts';

const USAGE = {
  ...{ inputTokens: 3, cacheReadTokens: 0, cacheWrite5mTokens: 0, cacheWrite1hTokens: 0 },
  ...{ outputTokens: 2, reasoningTokens: 0 },
};
const ANSWER: FakeStep = { kind: 'reply', pieces: ['hello ', 'world'], usage: USAGE };
const fails = (fields: Partial<LlmErrorFields>, pieces: readonly string[] = []): FakeStep => ({
  kind: 'error',
  pieces,
  error: { kind: 'unknown', stage: 'answered', ...fields },
});
const OVERLOAD = fails({ kind: 'unknown', status: 500 });
const throttles = (retryAfterMs?: number) => fails({ kind: 'rate_limited', status: 429, retryAfterMs });

type Row = readonly [title: string, row: RoutedRow, end: RoutedEnd];

const unavailable = (title: string, fault: Partial<LlmErrorFields>): Row => [
  title,
  { script: [[fails(fault)], [ANSWER]] },
  { asked: [0, 1], answeredBy: 1 },
];
const retried = (title: string, step: FakeStep): Row => [
  title,
  { script: [[step, ANSWER], [ANSWER]] },
  { asked: [0, 0], answeredBy: 0 },
];
const refused = (title: string, fault: Partial<LlmErrorFields>, type: string): Row => [
  title,
  { script: [[fails(fault)], [ANSWER]] },
  { asked: [0], failure: expect.objectContaining({ type, model: expect.any(String) }) },
];

const ROWS: readonly Row[] = [
  refused('refuses a wrong request', { kind: 'bad_request', status: 400 }, 'RequestRejected'),
  refused('refuses what the provider does not want to answer', { kind: 'content_filter' }, 'ContentRefused'),
  unavailable('moves on from a model that is not there', { kind: 'not_found', status: 404 }),
  unavailable('moves on from a model that is too small', { kind: 'too_long', status: 400 }),
  unavailable('moves on from a dead credential', { kind: 'auth', status: 401 }),
  unavailable('moves on from an empty account', { kind: 'quota', status: 429 }),
  [
    'waits for a short hint',
    { script: [[throttles(50), ANSWER], [ANSWER]] },
    { asked: [0, 0], answeredBy: 0 },
  ],
  [
    'asks a provider that throttles once for each hint',
    { script: [[throttles(200), throttles(200), throttles(200), ANSWER]] },
    { asked: [0, 0, 0, 0], answeredBy: 0 },
  ],
  ['moves on at a long hint', { script: [[throttles(60_000)], [ANSWER]] }, { asked: [0, 1], answeredBy: 1 }],
  [
    'moves on at the long hint of an overloaded provider',
    { script: [[fails({ kind: 'overloaded', status: 529, retryAfterMs: 60_000 })], [ANSWER]] },
    { asked: [0, 1], answeredBy: 1 },
  ],
  [
    'refuses where the only provider throttles until after the deadline',
    { script: [[throttles(60_000)]], deadlineMs: 20_000 },
    { asked: [0], failure: expect.objectContaining({ type: 'RateLimited', retryAfterMs: 60_000 }) },
  ],
  [
    'is limited where all providers throttle until after the deadline, each asked once',
    { script: [[throttles(60_000)], [throttles(50_000)]], deadlineMs: 20_000 },
    { asked: [0, 1], failure: expect.objectContaining({ type: 'RateLimited' }) },
  ],
  [
    'waits for the earliest of two that throttle',
    { script: [[throttles(60_000)], [throttles(500), ANSWER]] },
    { asked: [0, 1, 1], answeredBy: 1 },
  ],
  retried('tries again after a timeout', fails({ kind: 'timeout', status: 408 })),
  retried('tries again after an error of the provider', OVERLOAD),
  retried('tries again after an error that says nothing', fails({ kind: 'unknown', stage: 'unanswered' })),
  retried('tries again where there was no connection', fails({ kind: 'connection', stage: 'unsent' })),
  retried(
    'tries again after a stream that was cut before any output',
    fails({ kind: 'cut', stage: 'unanswered' }),
  ),
  retried(
    'tries again after a stream that was cut after output',
    fails({ kind: 'cut', stage: 'output' }, ['hel']),
  ),
  [
    'moves on when a model has failed three times',
    { script: [[OVERLOAD], [ANSWER]] },
    { asked: [0, 0, 0, 1], answeredBy: 1 },
  ],
  [
    'ends when six attempts failed over all models, with a third one left',
    { script: [[OVERLOAD], [OVERLOAD], [ANSWER]] },
    {
      asked: [0, 0, 0, 1, 1, 1],
      failure: expect.objectContaining({
        type: 'NoModelAvailable',
        reason: '6 attempts failed, the last by unknown',
        candidates: [{ model: expect.stringMatching('-0/model$'), reason: 'unknown' }],
      }),
    },
  ],
  [
    'names both models where six attempts failed and no third one is left',
    { script: [[OVERLOAD], [OVERLOAD]] },
    {
      asked: [0, 0, 0, 1, 1, 1],
      failure: expect.objectContaining({
        type: 'NoModelAvailable',
        reason: expect.stringMatching(/-0\/model: unknown; .+-1\/model: unknown$/),
      }),
    },
  ],
  [
    'names every model with its reason where none can answer',
    { script: [[fails({ kind: 'auth', status: 401 })], [fails({ kind: 'not_found', status: 404 })]] },
    {
      asked: [0, 1],
      failure: {
        type: 'NoModelAvailable',
        reason: expect.stringMatching(/-0\/model: auth; .+-1\/model: not_found$/),
        candidates: [
          { model: expect.any(String), reason: 'auth' },
          { model: expect.any(String), reason: 'not_found' },
        ],
      },
    },
  ],
  [
    'moves on where a breaker is open',
    { script: [[OVERLOAD], [ANSWER]], breaker: { failureThreshold: 1, timeoutMs: 60_000 } },
    { asked: [0, 1], answeredBy: 1 },
  ],
  [
    'is without a model where the breaker of the only one opens until after the deadline',
    {
      script: [[OVERLOAD]],
      breaker: { failureThreshold: 1, timeoutMs: 60_000 },
      deadlineMs: 20_000,
    },
    { asked: [0], failure: expect.objectContaining({ type: 'NoModelAvailable', reason: 'breaker_open' }) },
  ],
  [
    'tries the free model and passes over the paid one that an empty budget has no room for',
    {
      script: [[fails({ kind: 'auth', status: 401 })], [ANSWER]],
      free: [0],
      budget: [hardLimit('usd', 1n)],
    },
    {
      asked: [0],
      failure: expect.objectContaining({
        type: 'NoModelAvailable',
        candidates: [
          { model: expect.stringMatching('-0/model$'), reason: 'auth' },
          {
            model: expect.stringMatching('-1/model$'),
            reason: expect.stringContaining('no room in the budget of task'),
          },
        ],
      }),
    },
  ],
  [
    'waits for the free model where an empty budget has no room for the paid one',
    {
      script: [[throttles(500), ANSWER], [ANSWER]],
      free: [0],
      budget: [hardLimit('usd', 1n)],
    },
    { asked: [0, 0], answeredBy: 0 },
  ],
  [
    'fails with the budget where it is the first model that it has no room for',
    { script: [[ANSWER], [ANSWER]], free: [1], budget: [hardLimit('usd', 0n)] },
    { asked: [], failure: expect.objectContaining({ type: 'BudgetExceeded', scope: 'task' }) },
  ],
];

let test: TestStores;
let ways: BothWays;
beforeAll(async () => {
  test = await openTestStores();
  ways = await openBothWays(test);
});
afterAll(async () => {
  await ways[Symbol.asyncDispose]();
  await test[Symbol.asyncDispose]();
});

describe.concurrent('a call', () => {
  it.for(ROWS)(
    '%s, by the workflow and by the direct way',
    { timeout: 60_000 },
    async ([, row, end], context) => {
      const ends = await Promise.all([ways.run('workflow', row), ways.run('direct', row)]);
      context.expect(ends).toEqual([end, end]);
    },
  );
});
