// The direct way alone: what it does where a task would wait, ask or be tried again by Temporal. That it goes by the same rules as the
// workflow is shown in tests/workflows/both-ways.test.ts.

import { expect, it } from 'vitest';
import type { CallRequest } from '../../src/calls/call.ts';
import { AttemptFailed, CallAborted } from '../../src/calls/govern.ts';
import { type RoutedCall, routeCall } from '../../src/calls/route.ts';
import type { CallOutcome } from '../../src/task/decision.ts';
import type { BudgetExceededDetails } from '../../src/task/failure.ts';
import { contextOf } from '../support/calls.ts';

const EXCEEDED: BudgetExceededDetails = {
  type: 'BudgetExceeded',
  scope: 'user',
  id: 'ada',
  unit: 'usd',
  window: 'day',
  limit: '1.00',
  settled: '1.00',
  held: '0.00',
  needed: '0.10',
};
const ANSWER: CallOutcome = {
  kind: 'completed',
  callKey: 'chat:1:0:1',
  model: 'a/one',
  usage: { inputTokens: 1, cachedInputTokens: 0, cacheWriteTokens: 0, outputTokens: 1, reasoningTokens: 0 },
  costUsd: '0.01',
  finishReason: 'stop',
};
const CALL: RoutedCall = {
  callKey: 'chat:1:0:1',
  stepId: 'answer',
  payer: { tenantId: 'tenant', userId: 'ada' },
  task: undefined,
  messages: [{ role: 'user', content: 'why' }],
  maxOutputTokens: 100,
  onExceeded: 'refuse',
  route: {
    candidates: ['a/one', 'b/two'],
    cheaper: ['c/cheap'],
    heldWaitMs: 1_000,
    shortHintMs: 5_000,
    deadlineMs: Number.POSITIVE_INFINITY,
    maxDurationMs: 60_000,
  },
  maxWaitMs: 2_000,
};

/** Drives a call whose visits end as written, errors thrown; pauses take no time. */
async function route(ends: readonly (CallOutcome | Error)[], change: Partial<RoutedCall> = {}) {
  const visits: CallRequest[] = [];
  const pauses: number[] = [];
  const calls = {
    async visit(request: CallRequest) {
      const end = ends[visits.push(request) - 1];
      if (end === undefined) throw new Error('the test did not say how this visit ends');
      if (end instanceof Error) throw end;
      return end;
    },
  };
  const pause = async (ms: number) => void pauses.push(ms);
  const end = await routeCall({ calls, pause }, { ...CALL, ...change }, contextOf());
  return {
    end,
    visits,
    pauses,
    numbers: visits.map(({ number: { candidate, visit, attempt } }) => [candidate, visit, attempt]),
  };
}

const failed = () => new AttemptFailed('the attempt failed', { cause: undefined });
const wait = (ms: number): CallOutcome => ({ kind: 'wait', reason: 'rate', ms, limit: 'a rpm' });

it('tries an attempt again under a number of its own, each time later', async () => {
  const { end, numbers, pauses } = await route([failed(), failed(), ANSWER]);
  expect(end).toEqual({ kind: 'answered', outcome: ANSWER });
  expect(numbers).toEqual([
    [0, 1, 1],
    [0, 1, 2],
    [0, 1, 3],
  ]);
  const [first = 0, second = 0] = pauses;
  expect(first).toBeGreaterThanOrEqual(187);
  expect(second).toBeGreaterThan(first);
});

it('waits as long in all as somebody is kept waiting, and then says how long it would be and that a task can wait', async () => {
  const { end, pauses } = await route([wait(1_500), wait(600)]);
  expect(pauses).toEqual([1_500]);
  expect(end).toEqual({
    kind: 'failed',
    canWait: true,
    failure: {
      type: 'RateLimited',
      reason: 'the wait for a rpm is longer than this request may take',
      retryAfterMs: 600,
    },
  });
});

it.each<[string, CallOutcome]>([
  ['window', { kind: 'budget_wait', ms: 3_600_000, limit: 'budget of user ada', failure: EXCEEDED }],
  ['person', { kind: 'ask', failure: EXCEEDED }],
])('fails with the budget where a task would wait for a %s', async (_, outcome) => {
  const { end } = await route([outcome]);
  expect(end).toEqual({ kind: 'failed', canWait: true, failure: EXCEEDED });
});

it('names the first model that is back where all are away for longer than it waits', async () => {
  const away = (model: string, retryAfterMs: number): CallOutcome => ({
    kind: 'unavailable',
    reason: 'breaker_open',
    model,
    retryAfterMs,
  });
  const { end } = await route([away('a/one', 30_000), away('b/two', 20_000)]);
  expect(end).toEqual({
    kind: 'failed',
    canWait: true,
    failure: {
      type: 'NoModelAvailable',
      reason: 'the first that is back: b/two (breaker_open)',
      retryAfterMs: expect.any(Number),
    },
  });
});

it('fails for good with what is wrong with the request', async () => {
  const failure = { type: 'RequestRejected', reason: 'wrong', model: 'a/one' } as const;
  expect((await route([{ kind: 'refuse', failure }])).end).toEqual({
    kind: 'failed',
    canWait: false,
    failure,
  });
});

it('says which cheaper model answered where a budget had no room', async () => {
  const degrade: CallOutcome = { kind: 'degrade', failure: EXCEEDED };
  const { end, visits } = await route([degrade, degrade, { ...ANSWER, model: 'c/cheap' }], {
    onExceeded: 'degrade',
  });
  expect(end).toMatchObject({ kind: 'answered', degradedTo: 'c/cheap' });
  expect(visits.map(({ model }) => model)).toEqual(['a/one', 'b/two', 'c/cheap']);
});

it('tries nothing again past the deadline', async () => {
  const soon = { ...CALL.route, deadlineMs: Date.now() + 100 };
  const { end, visits } = await route([failed()], { route: soon });
  expect(end).toMatchObject({ failure: { type: 'DeadlineExceeded', model: 'a/one' } });
  expect(visits).toHaveLength(1);
  const past = await route([], { route: { ...CALL.route, deadlineMs: Date.now() - 1 } });
  expect(past.end).toMatchObject({ failure: { type: 'DeadlineExceeded' } });
});

it.each([new CallAborted('cancelled'), new Error('a store is down')])(
  'throws what is not for it to mend: %s',
  async (error) => {
    await expect(route([error])).rejects.toBe(error);
  },
);
