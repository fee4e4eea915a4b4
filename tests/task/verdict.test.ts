// The provider table of the design, row by row, and what the workflow does with each outcome.

import { describe, expect, it } from 'vitest';
import type { CallOutcome } from '../../src/task/decision.ts';
import type { BudgetExceededDetails, FailureDetails } from '../../src/task/failure.ts';
import {
  type CallStanding,
  judge,
  type NextMove,
  nextMove,
  PROVIDER_FAULT_KINDS,
  type Verdict,
  type VerdictContext,
} from '../../src/task/verdict.ts';

const CONTEXT: VerdictContext = {
  model: 'openai/some',
  failedAttempts: 1,
  attemptsPerCandidate: 3,
  failedAttemptsOfCall: 1,
  attemptsPerCall: 6,
  unhintedWaits: 0,
  remainingMs: Number.POSITIVE_INFINITY,
};

type Fault = Parameters<typeof judge>[0];

const refusal = (type: 'RequestRejected' | 'ContentRefused', reason: string, status?: number): Verdict => ({
  kind: 'refuse',
  failure: { type, reason, model: 'openai/some', ...(status === undefined ? {} : { status }) },
});

const ROWS: [Fault, Verdict][] = [
  [
    { kind: 'bad_request', status: 400 },
    refusal('RequestRejected', 'the provider answered that the request is wrong', 400),
  ],
  [
    { kind: 'content_filter', status: 400 },
    refusal('ContentRefused', 'the provider refused the content', 400),
  ],
  [{ kind: 'content_filter' }, refusal('ContentRefused', 'the provider refused the content')],
  [
    { kind: 'not_found', status: 404 },
    { kind: 'unavailable', reason: 'not_found' },
  ],
  [
    { kind: 'too_long', status: 400 },
    { kind: 'unavailable', reason: 'too_long' },
  ],
  [
    { kind: 'auth', status: 401 },
    { kind: 'unavailable', reason: 'auth' },
  ],
  [
    { kind: 'quota', status: 429 },
    { kind: 'unavailable', reason: 'quota' },
  ],
  [
    { kind: 'rate_limited', status: 429, retryAfterMs: 700 },
    { kind: 'wait', ms: 700 },
  ],
  [
    { kind: 'rate_limited', status: 429 },
    { kind: 'wait', ms: 1_000 },
  ],
  [
    { kind: 'overloaded', status: 529, retryAfterMs: 90_000 },
    { kind: 'wait', ms: 90_000 },
  ],
  [{ kind: 'timeout', status: 408 }, { kind: 'retry' }],
  [{ kind: 'timeout' }, { kind: 'retry' }],
  [{ kind: 'connection' }, { kind: 'retry' }],
  [{ kind: 'cut' }, { kind: 'retry' }],
  [{ kind: 'unknown', status: 500 }, { kind: 'retry' }],
  [{ kind: 'unknown' }, { kind: 'retry' }],
];

describe('judge', () => {
  it.each(ROWS)('answers %o with %o', (fault, verdict) => {
    expect(judge(fault, CONTEXT)).toEqual(verdict);
  });

  it('has a row for every kind of fault but the abort', () => {
    const judged = new Set<string>(ROWS.map(([fault]) => fault.kind));
    expect(PROVIDER_FAULT_KINDS.filter((kind) => !judged.has(kind))).toEqual(['aborted']);
  });

  it.each(['timeout', 'connection', 'cut', 'unknown'] as const)(
    'gives up on %s at the cap of the candidate or of the call',
    (kind) => {
      const gone = { kind: 'unavailable', reason: kind };
      expect(judge({ kind }, { ...CONTEXT, failedAttempts: 2 })).toEqual({ kind: 'retry' });
      expect(judge({ kind }, { ...CONTEXT, failedAttempts: 3 })).toEqual(gone);
      expect(judge({ kind }, { ...CONTEXT, failedAttemptsOfCall: 5 })).toEqual({ kind: 'retry' });
      expect(judge({ kind }, { ...CONTEXT, failedAttemptsOfCall: 6 })).toEqual(gone);
    },
  );

  it('is not moved by caps where the provider throttles', () => {
    const capped = { ...CONTEXT, failedAttempts: 99, failedAttemptsOfCall: 99 };
    expect(judge({ kind: 'rate_limited', retryAfterMs: 5 }, capped)).toEqual({ kind: 'wait', ms: 5 });
  });

  it('waits longer each time a provider throttles without a hint, at most half a minute', () => {
    const waits = [0, 1, 2, 3, 4, 5, 6, 2_000].map((unhintedWaits) =>
      judge({ kind: 'overloaded' }, { ...CONTEXT, unhintedWaits }),
    );
    expect(waits.map((verdict) => (verdict.kind === 'wait' ? verdict.ms : verdict.kind))).toEqual([
      1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000,
    ]);
  });

  it.each<[number | undefined, number, number]>([
    [5_000, 5_000, 5_000],
    [5_001, 5_000, 5_001],
    [undefined, 900, 1_000],
    [10, 0, 10],
    [10, -1, 10],
  ])('refuses a hint of %s ms with %s ms left', (retryAfterMs, remainingMs, shown) => {
    expect(judge({ kind: 'rate_limited', status: 429, retryAfterMs }, { ...CONTEXT, remainingMs })).toEqual({
      kind: 'refuse',
      failure: {
        type: 'RateLimited',
        reason: 'the provider is throttling until after the deadline',
        model: 'openai/some',
        status: 429,
        retryAfterMs: shown,
      },
    });
  });

  it('waits where the hint ends just before the deadline', () => {
    expect(judge({ kind: 'rate_limited', retryAfterMs: 4_999 }, { ...CONTEXT, remainingMs: 5_000 })).toEqual({
      kind: 'wait',
      ms: 4_999,
    });
  });
});

const FAILURE: FailureDetails = { type: 'RequestRejected', reason: 'wrong' };
const EXCEEDED: BudgetExceededDetails = {
  type: 'BudgetExceeded',
  scope: 'user',
  id: 'ada',
  unit: 'usd',
  window: 'day',
  limit: '5.00',
  settled: '4.00',
  held: '1.00',
  needed: '0.10',
};
const STATE: CallStanding = {
  candidatesLeft: 0,
  cheaperLeft: 0,
  remainingMs: 10_000,
  untilDeadlineMs: 20_000,
  heldWaitLeftMs: 5_000,
  heldWaitOver: false,
};

const COMPLETED: CallOutcome = {
  kind: 'completed',
  callKey: 't:r:answer:1',
  model: 'a/b',
  usage: { inputTokens: 1, cachedInputTokens: 0, cacheWriteTokens: 0, outputTokens: 1, reasoningTokens: 0 },
  costUsd: '0.01',
  finishReason: 'stop',
};
const WAIT: CallOutcome = { kind: 'wait', reason: 'rate', ms: 9_999, limit: 'openai rpm' };
const HELD: CallOutcome = { kind: 'held', ms: 1_000, limit: 'budget of user ada', failure: EXCEEDED };
const PRESSED: CallOutcome = { kind: 'wait', reason: 'backpressure', ms: 5_000, limit: 'budget of user ada' };
const TURNS: CallOutcome = {
  kind: 'budget_wait',
  ms: 15_000,
  limit: 'budget of user ada',
  failure: EXCEEDED,
};
const LARGER: BudgetExceededDetails = { ...EXCEEDED, unit: 'tokens', limit: '999', needed: '1000' };
const GONE: CallOutcome = { kind: 'unavailable', reason: 'auth', model: 'a/b' };

describe('nextMove', () => {
  it.each<[string, CallOutcome, Partial<CallStanding>, NextMove]>([
    ['is done with an answer', COMPLETED, {}, { kind: 'done' }],
    ['is done with an answer that came after the deadline', COMPLETED, { remainingMs: -1 }, { kind: 'done' }],
    [
      'fails with the failure of a refusal',
      { kind: 'refuse', failure: FAILURE },
      { candidatesLeft: 3 },
      { kind: 'fail', failure: FAILURE },
    ],
    ['sleeps through a wait', WAIT, {}, { kind: 'sleep', ms: 9_999, limit: 'openai rpm' }],
    [
      'fails where a wait would reach the deadline',
      WAIT,
      { remainingMs: 9_999 },
      {
        kind: 'fail',
        failure: {
          type: 'RateLimited',
          reason: 'the wait for openai rpm would end after the deadline',
          retryAfterMs: 9_999,
        },
      },
    ],
    [
      'sleeps while others hold the budget',
      HELD,
      {},
      { kind: 'sleep', ms: 1_000, limit: 'budget of user ada' },
    ],
    [
      'sleeps no longer than holds may be waited for',
      HELD,
      { heldWaitLeftMs: 300 },
      { kind: 'sleep', ms: 300, limit: 'budget of user ada' },
    ],
    [
      'sleeps no longer than the deadline',
      HELD,
      { remainingMs: 200 },
      { kind: 'sleep', ms: 200, limit: 'budget of user ada' },
    ],
    [
      'does not sleep backwards',
      HELD,
      { remainingMs: -5 },
      { kind: 'sleep', ms: 0, limit: 'budget of user ada' },
    ],
    [
      'looks once more when holds were waited for long enough',
      HELD,
      { heldWaitLeftMs: 0 },
      { kind: 'look_again' },
    ],
    [
      'fails where holds are still in the way at the last look',
      HELD,
      { heldWaitLeftMs: 0, heldWaitOver: true },
      { kind: 'fail', failure: EXCEEDED },
    ],
    ['serves back-pressure', PRESSED, {}, { kind: 'sleep', ms: 5_000, limit: 'budget of user ada' }],
    [
      'serves half of the time that is left where back-pressure would reach the deadline, and refuses nobody',
      PRESSED,
      { remainingMs: 4_001 },
      { kind: 'sleep', ms: 2_000, limit: 'budget of user ada' },
    ],
    [
      'sleeps until the window turns, beyond the time of the call itself',
      TURNS,
      {},
      { kind: 'sleep', ms: 15_000, limit: 'budget of user ada' },
    ],
    [
      'fails where the window turns at the deadline',
      TURNS,
      { untilDeadlineMs: 15_000 },
      { kind: 'fail', failure: EXCEEDED },
    ],
    [
      'fails where no window can have room for the call',
      { ...TURNS, failure: LARGER },
      {},
      { kind: 'fail', failure: LARGER },
    ],
    ['asks', { kind: 'ask', failure: EXCEEDED }, {}, { kind: 'ask', failure: EXCEEDED }],
    [
      'takes a cheaper model where a budget is exceeded',
      { kind: 'degrade', failure: EXCEEDED },
      { cheaperLeft: 1 },
      { kind: 'next_candidate' },
    ],
    [
      'fails where no model is cheap enough',
      { kind: 'degrade', failure: EXCEEDED },
      {},
      { kind: 'fail', failure: EXCEEDED },
    ],
    [
      'takes no cheaper model where a model is away',
      GONE,
      { cheaperLeft: 1 },
      { kind: 'fail', failure: { type: 'NoModelAvailable', reason: 'auth', model: 'a/b' } },
    ],
    [
      'takes the next candidate',
      { ...GONE, retryAfterMs: 5 },
      { candidatesLeft: 1 },
      { kind: 'next_candidate' },
    ],
    [
      'sleeps until the last candidate is back',
      { ...GONE, retryAfterMs: 500 },
      {},
      { kind: 'sleep', ms: 500, limit: 'auth' },
    ],
    [
      'fails where nobody knows when it is back',
      GONE,
      {},
      { kind: 'fail', failure: { type: 'NoModelAvailable', reason: 'auth', model: 'a/b' } },
    ],
    [
      'fails where it is back after the deadline',
      { ...GONE, retryAfterMs: 10_000 },
      {},
      { kind: 'fail', failure: { type: 'NoModelAvailable', reason: 'auth', model: 'a/b' } },
    ],
  ])('%s', (_title, outcome, state, move) => {
    expect(nextMove(outcome, { ...STATE, ...state })).toEqual(move);
  });
});
