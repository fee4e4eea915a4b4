// A call's way through its models, on a clock of the test's own.

import { expect, it } from 'vitest';
import type { CallOutcome } from '../../src/task/decision.ts';
import type { BudgetExceededDetails } from '../../src/task/failure.ts';
import {
  type CallRoute,
  isDegraded,
  modelOf,
  nextVisit,
  proceed,
  type Step,
  startJourney,
  type Visit,
  wake,
} from '../../src/task/journey.ts';

const HOUR_MS = 3_600_000;
const NEVER = Number.POSITIVE_INFINITY;
const ROUTE: CallRoute = {
  candidates: ['a/free', 'b/paid', 'c/paid'],
  cheaper: [],
  heldWaitMs: 30_000,
  shortHintMs: 5_000,
  deadlineMs: NEVER,
  maxDurationMs: HOUR_MS,
};
const EXCEEDED: BudgetExceededDetails = {
  type: 'BudgetExceeded',
  scope: 'user',
  id: 'ada',
  unit: 'usd',
  window: 'day',
  limit: '0.00',
  settled: '0.00',
  held: '0.00',
  needed: '0.10',
};
const NO_ROOM = 'no room in the budget of user ada';

const away = (reason: string, retryAfterMs?: number): CallOutcome => ({
  kind: 'unavailable',
  reason,
  model: 'told by the journey',
  ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
});
const REFUSED: CallOutcome = { kind: 'refuse', failure: EXCEEDED };
const ANSWER: CallOutcome = {
  kind: 'completed',
  callKey: 'k',
  model: 'm',
  usage: { inputTokens: 1, cachedInputTokens: 0, cacheWriteTokens: 0, outputTokens: 1, reasoningTokens: 0 },
  costUsd: '0.01',
  finishReason: 'stop',
};

/** Walks through outcomes, one per visit; sleeps as long as it is told. */
function walk(route: Partial<CallRoute>, outcomes: readonly CallOutcome[], isNews = false) {
  const clock = { ms: 1_000 };
  const journey = startJourney({ ...ROUTE, ...route }, clock.ms);
  const visits: Visit[] = [];
  const steps: Step[] = [];
  for (const outcome of outcomes) {
    visits.push(nextVisit(journey, clock.ms));
    const step = proceed(journey, outcome, { nowMs: clock.ms, random: () => 0.5 });
    steps.push(step);
    if (step.kind !== 'sleep') continue;
    const sinceMs = clock.ms;
    clock.ms += isNews ? 1 : step.ms;
    wake(journey, { sinceMs, nowMs: clock.ms, isFor: step.isFor, isNews });
  }
  return { journey, visits, steps, models: visits.map(({ model }) => model), clock };
}

const lastOf = (steps: readonly Step[]) => steps.at(-1);

it('moves on at once from a model whose credential is dead, and says why', () => {
  const { visits, steps } = walk({}, [away('auth'), ANSWER]);
  expect(steps).toEqual([{ kind: 'visit' }, { kind: 'done' }]);
  expect(visits).toMatchObject([
    { model: 'a/free', candidate: 0, visit: 1, isFirst: true, candidatesLeft: 2, fallback: undefined },
    {
      model: 'b/paid',
      candidate: 1,
      visit: 2,
      isFirst: false,
      // The dead one does not come back.
      candidatesLeft: 1,
      fallback: { model: 'a/free', reason: 'auth', cause: 'away', since: 2 },
    },
  ]);
});

it('keeps in mind since when it is at another model', () => {
  const wait: CallOutcome = { kind: 'wait', reason: 'rate', ms: 10, limit: 'b rpm' };
  const { visits } = walk({}, [away('auth'), wait, ANSWER]);
  expect(visits.map(({ visit, fallback }) => [visit, fallback?.since])).toEqual([
    [1, undefined],
    [2, 2],
    [3, 2],
  ]);
});

it('tries the free one and passes over what the empty budget has no room for, naming both', () => {
  const { models, steps } = walk({}, [away('timeout'), REFUSED, REFUSED]);
  expect(models).toEqual(['a/free', 'b/paid', 'c/paid']);
  expect(lastOf(steps)).toEqual({
    kind: 'fail',
    failure: {
      type: 'NoModelAvailable',
      reason: `a/free: timeout; b/paid: ${NO_ROOM}; c/paid: ${NO_ROOM}`,
      candidates: [
        { model: 'a/free', reason: 'timeout' },
        { model: 'b/paid', reason: NO_ROOM },
        { model: 'c/paid', reason: NO_ROOM },
      ],
    },
  });
});

it('waits for the free one to come back where the fallbacks are too dear', () => {
  const { models, steps } = walk({}, [away('breaker_open', 20_000), REFUSED, REFUSED, ANSWER]);
  expect(steps[2]).toEqual({ kind: 'sleep', ms: 20_000, limit: 'a/free (breaker_open)', isFor: 'limit' });
  expect(models).toEqual(['a/free', 'b/paid', 'c/paid', 'a/free']);
});

it('fails with the budget where it is the model that was wanted which it refuses', () => {
  const { steps } = walk({}, [REFUSED]);
  expect(steps).toEqual([{ kind: 'fail', failure: EXCEEDED }]);
});

it('sleeps until the earliest of several is back, and begins with it', () => {
  const { models, steps } = walk({}, [
    away('breaker_open', 30_000),
    away('rate_limited', 12_000),
    away('auth'),
    ANSWER,
  ]);
  expect(steps[2]).toEqual({ kind: 'sleep', ms: 12_000, limit: 'b/paid (rate_limited)', isFor: 'limit' });
  expect(models.at(-1)).toBe('b/paid');
});

it('begins with the first in order where several are back', () => {
  const { models } = walk({}, [away('breaker_open', 300), away('overloaded', 300), away('auth'), ANSWER]);
  expect(models.at(-1)).toBe('a/free');
});

it('is as if nothing had been once it is back at its first model', () => {
  const { visits } = walk({}, [away('breaker_open', 300), away('auth'), away('auth'), ANSWER]);
  expect(visits.at(-1)).toMatchObject({ model: 'a/free', fallback: undefined, candidatesLeft: 0 });
});

it('comes back to its only model after a sleep', () => {
  const { models, steps } = walk({ candidates: ['a/free'] }, [away('breaker_open', 300), ANSWER]);
  expect(models).toEqual(['a/free', 'a/free']);
  expect(steps[0]).toMatchObject({ kind: 'sleep', ms: 300, limit: 'a/free (breaker_open)' });
});

it('does not run to and fro between models that say they are back at once, and rests longer each time', () => {
  const outcomes = Array.from({ length: 10 }, () => away('breaker_open', 0));
  const { models, steps } = walk({ candidates: ['a/free', 'b/paid'] }, outcomes);
  expect(models).toEqual(Array.from({ length: 5 }, () => ['a/free', 'b/paid']).flat());
  const rests = steps.flatMap((step) => (step.kind === 'sleep' ? [step.ms] : []));
  expect(rests).toEqual([250, 250, 1_000, 2_000, 4_000]);
});

it('names every model and when it is back where none is back before the deadline', () => {
  const { steps } = walk({ deadlineMs: 11_000 }, [
    away('breaker_open', 10_000),
    away('auth'),
    away('rate_limited', 50_000),
  ]);
  expect(lastOf(steps)).toMatchObject({
    kind: 'fail',
    failure: {
      type: 'NoModelAvailable',
      reason: 'a/free: breaker_open; b/paid: auth; c/paid: rate_limited',
      candidates: [
        { model: 'a/free', retryAfterMs: 10_000 },
        { model: 'b/paid' },
        { model: 'c/paid', retryAfterMs: 50_000 },
      ],
      retryAfterMs: 10_000,
    },
  });
});

it('is limited, not without models, where all that stands in the way is that they throttle', () => {
  const { steps } = walk({ deadlineMs: 6_000 }, [
    away('rate_limited', 60_000),
    away('overloaded', 50_000),
    away('rate_limited', 70_000),
  ]);
  expect(lastOf(steps)).toMatchObject({ failure: { type: 'RateLimited', retryAfterMs: 50_000 } });
});

it('names one model and its reason where there is only one', () => {
  const { steps } = walk({ candidates: ['a/free'] }, [away('auth')]);
  expect(steps).toEqual([
    { kind: 'fail', failure: { type: 'NoModelAvailable', reason: 'auth', model: 'a/free' } },
  ]);
});

it('adds what the models before had against them to the end that the last one caused', () => {
  const over: CallOutcome = {
    kind: 'refuse',
    failure: { type: 'NoModelAvailable', reason: '6 attempts failed, the last by cut', model: 'b/paid' },
  };
  const { steps } = walk({}, [away('timeout'), over]);
  expect(lastOf(steps)).toMatchObject({
    failure: {
      reason: '6 attempts failed, the last by cut',
      candidates: [{ model: 'a/free', reason: 'timeout' }],
    },
  });
});

it('waits in a window of its own time for a fallback whose budget turns before anything else is back', () => {
  const turns: CallOutcome = {
    kind: 'budget_wait',
    ms: 2 * HOUR_MS,
    limit: 'budget of user ada',
    failure: { ...EXCEEDED, limit: '1.00' },
  };
  const { models, steps, journey } = walk({ candidates: ['a/free', 'b/paid'] }, [
    away('auth'),
    turns,
    ANSWER,
  ]);
  expect(steps[1]).toEqual({ kind: 'sleep', ms: 2 * HOUR_MS, limit: `b/paid (${NO_ROOM})`, isFor: 'window' });
  expect(models.at(-1)).toBe('b/paid');
  expect(journey.endsAtMs).toBe(1_000 + 3 * HOUR_MS);
});

it('tries what a budget had no room for again as soon as budgets have changed', () => {
  const { models } = walk({}, [away('breaker_open', HOUR_MS / 2), REFUSED, REFUSED, ANSWER], true);
  expect(models.at(-1)).toBe('b/paid');
});

it('goes on to cheaper models only from a budget, and then over all that are there', () => {
  const degrade: CallOutcome = { kind: 'degrade', failure: EXCEEDED };
  const route = { candidates: ['a/large'], cheaper: ['b/medium', 'c/small'] };
  const { models, journey } = walk(route, [degrade, away('auth'), ANSWER]);
  expect(models).toEqual(['a/large', 'b/medium', 'c/small']);
  expect([modelOf(journey), isDegraded(journey)]).toEqual(['c/small', true]);
  const dead = walk(route, [away('auth')]);
  expect(dead.steps).toMatchObject([{ kind: 'fail', failure: { reason: 'auth', model: 'a/large' } }]);
});

it('fails with the budget where it has no room even for the cheapest', () => {
  const degrade: CallOutcome = { kind: 'degrade', failure: EXCEEDED };
  const { steps } = walk({ candidates: ['a/large'], cheaper: ['b/small'] }, [degrade, degrade]);
  expect(lastOf(steps)).toEqual({ kind: 'fail', failure: EXCEEDED });
});

it('is not degraded while it is at the model that was wanted', () => {
  const { journey } = walk({}, [away('auth')]);
  expect([modelOf(journey), isDegraded(journey)]).toEqual(['b/paid', false]);
});

it('lets the waits for a provider grow from the third on', () => {
  const wait: CallOutcome = { kind: 'wait', reason: 'rate', ms: 10, limit: 'a rpm' };
  const { steps } = walk({}, [wait, wait, wait, wait, wait, wait, wait, wait]);
  expect(steps.map((step) => (step.kind === 'sleep' ? step.ms : step.kind))).toEqual([
    10, 10, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000,
  ]);
});

it('gives the time that a person takes back to the call, but not past the deadline', () => {
  const journey = startJourney({ ...ROUTE, deadlineMs: 2 * HOUR_MS }, 0);
  wake(journey, { sinceMs: 0, nowMs: 10, isFor: 'person', isNews: false });
  expect(journey.endsAtMs).toBe(HOUR_MS + 10);
  wake(journey, { sinceMs: 10, nowMs: 3 * HOUR_MS, isFor: 'person', isNews: false });
  expect(journey.endsAtMs).toBe(2 * HOUR_MS);
});
