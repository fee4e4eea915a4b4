// What is done with each outcome, row by row.

import { describe, expect, it } from 'vitest';
import type { CallOutcome } from '../../src/task/decision.ts';
import type { BudgetExceededDetails, FailureDetails } from '../../src/task/failure.ts';
import { type CallStanding, type NextMove, nextMove } from '../../src/task/next-move.ts';

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
const NEVER = Number.POSITIVE_INFINITY;
const STATE: CallStanding = {
  candidatesLeft: 0,
  cheaperLeft: 0,
  othersBackInMs: NEVER,
  isFallback: false,
  shortHintMs: 5_000,
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
const COOLS: CallOutcome = { kind: 'wait', reason: 'provider_limit', ms: 5_001, limit: 'openai cooldown' };
const AWAY = { kind: 'away', reason: 'auth', backInMs: NEVER } as const;
const NO_ROOM = { kind: 'budget', reason: 'no room in the budget of user ada', backInMs: NEVER } as const;
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
      { kind: 'next_candidate', setback: NO_ROOM },
    ],
    [
      'fails where no model is cheap enough',
      { kind: 'degrade', failure: EXCEEDED },
      {},
      { kind: 'fail', failure: EXCEEDED },
    ],
    [
      'gives up where a fallback is too dear and nothing is cheaper',
      { kind: 'degrade', failure: EXCEEDED },
      { isFallback: true },
      { kind: 'give_up', setback: NO_ROOM },
    ],
    [
      'takes no cheaper model where a model is away',
      GONE,
      { cheaperLeft: 1 },
      { kind: 'give_up', setback: AWAY },
    ],
    [
      'takes the next candidate',
      { ...GONE, retryAfterMs: 5 },
      { candidatesLeft: 1 },
      { kind: 'next_candidate', setback: { ...AWAY, backInMs: 5 } },
    ],
    [
      'rests until the last candidate is back',
      { ...GONE, retryAfterMs: 500 },
      {},
      { kind: 'rest', setback: { ...AWAY, backInMs: 500 } },
    ],
    ['rests until another one is back', GONE, { othersBackInMs: 9_000 }, { kind: 'rest', setback: AWAY }],
    ['gives up where nobody knows when it is back', GONE, {}, { kind: 'give_up', setback: AWAY }],
    [
      'gives up where it is back after the deadline',
      { ...GONE, retryAfterMs: 10_000 },
      {},
      { kind: 'give_up', setback: { ...AWAY, backInMs: 10_000 } },
    ],
    [
      'fails with the budget that refuses the model that was wanted, whatever is left',
      { kind: 'refuse', failure: EXCEEDED },
      { candidatesLeft: 2 },
      { kind: 'fail', failure: EXCEEDED },
    ],
    [
      'passes over a fallback that a budget has no room for',
      { kind: 'refuse', failure: EXCEEDED },
      { isFallback: true, candidatesLeft: 1 },
      { kind: 'next_candidate', setback: NO_ROOM },
    ],
    [
      'waits for the model that was wanted where a fallback is too dear',
      { kind: 'refuse', failure: EXCEEDED },
      { isFallback: true, othersBackInMs: 900 },
      { kind: 'rest', setback: NO_ROOM },
    ],
    [
      'gives up where the last fallback is too dear',
      { kind: 'refuse', failure: EXCEEDED },
      { isFallback: true },
      { kind: 'give_up', setback: NO_ROOM },
    ],
    [
      'fails at once with what is wrong with the request, fallback or not',
      { kind: 'refuse', failure: FAILURE },
      { isFallback: true, candidatesLeft: 1 },
      { kind: 'fail', failure: FAILURE },
    ],
    [
      'passes over a fallback whose budget others hold at the last look',
      HELD,
      { heldWaitOver: true, isFallback: true, candidatesLeft: 1 },
      { kind: 'next_candidate', setback: NO_ROOM },
    ],
    [
      'rests where the window of a fallback turns',
      TURNS,
      { isFallback: true },
      { kind: 'rest', setback: { ...NO_ROOM, backInMs: 15_000 } },
    ],
    [
      'gives up where no window has room for the fallback',
      { ...TURNS, failure: LARGER },
      { isFallback: true },
      { kind: 'give_up', setback: NO_ROOM },
    ],
    [
      'asks nobody for a fallback while the model that was wanted comes back',
      { kind: 'ask', failure: EXCEEDED },
      { isFallback: true, othersBackInMs: 900 },
      { kind: 'rest', setback: NO_ROOM },
    ],
    [
      'asks for a fallback where nothing comes back',
      { kind: 'ask', failure: EXCEEDED },
      { isFallback: true },
      { kind: 'ask', failure: EXCEEDED },
    ],
    [
      'takes the next candidate where a wait would reach the deadline',
      WAIT,
      { remainingMs: 9_999, candidatesLeft: 1 },
      { kind: 'next_candidate', setback: { kind: 'away', reason: 'rate', backInMs: 9_999 } },
    ],
    [
      'waits for its own rate limit although another candidate is left',
      WAIT,
      { candidatesLeft: 1 },
      { kind: 'sleep', ms: 9_999, limit: 'openai rpm' },
    ],
    [
      'waits for a throttling provider for a short time',
      { ...COOLS, ms: 5_000 },
      { candidatesLeft: 1 },
      { kind: 'sleep', ms: 5_000, limit: 'openai cooldown' },
    ],
    [
      'takes the next candidate where a provider throttles for longer',
      COOLS,
      { candidatesLeft: 1 },
      { kind: 'next_candidate', setback: { kind: 'away', reason: 'provider_limit', backInMs: 5_001 } },
    ],
    [
      'waits for the last candidate for as long as its provider throttles',
      COOLS,
      {},
      { kind: 'sleep', ms: 5_001, limit: 'openai cooldown' },
    ],
    [
      'rests where another one is back before the provider stops throttling',
      COOLS,
      { othersBackInMs: 5_000 },
      { kind: 'rest', setback: { kind: 'away', reason: 'provider_limit', backInMs: 5_001 } },
    ],
  ])('%s', (_title, outcome, state, move) => {
    expect(nextMove(outcome, { ...STATE, ...state })).toEqual(move);
  });
});
