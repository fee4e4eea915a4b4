// The way of one logical call through its models, visit by visit: which model is next, what it has waited for, why others cannot
// answer. Pure, with time and chance given: the workflow and the direct way keep one each and drive it alike.

import type { CallOutcome } from './decision.ts';
import type { BudgetExceededDetails, FailureDetails } from './failure.ts';
import { type Fallen, noneLeft, withSetbacks } from './fallen.ts';
import { type CallStanding, endOf, nextMove, type Setback } from './next-move.ts';

const NEVER = Number.POSITIVE_INFINITY;

const LEAST_AWAY_MS = 250;

/** What a call sets out with. Times are milliseconds. */
export type CallRoute = {
  /** Models in the order in which they are tried, at least one. */
  readonly candidates: readonly string[];
  /** Cheaper models, for a call that an exceeded budget sends on. */
  readonly cheaper: readonly string[];
  readonly heldWaitMs: number;
  readonly shortHintMs: number;
  /** Of the task, since 1970; Infinity without one. */
  readonly deadlineMs: number;
  readonly maxDurationMs: number;
};

/** Why a call is not at its first model: the one before this, what it had against it, and the visit with which the call came here. */
export type Fallback = {
  readonly model: string;
  readonly reason: string;
  readonly cause: Setback['kind'];
  readonly since: number;
};

/** One visit, for whoever makes it. */
export type Visit = {
  readonly model: string;
  readonly candidate: number;
  /** From 1; the first one made may have a higher number. */
  readonly visit: number;
  readonly isFirst: boolean;
  readonly heldWaits: number;
  readonly heldWaitOver: boolean;
  readonly backpressureMs: number;
  /** Other models that can answer, now or in time. */
  readonly candidatesLeft: number;
  readonly fallback: Fallback | undefined;
  /** Since when the call waits, since 1970. */
  readonly queuedAtMs: number;
  /** It has waited for a place in rate control that was booked for it. */
  readonly isBooked: boolean;
};

/** What the driver does before the next visit. */
export type Step =
  | { readonly kind: 'done' }
  | { readonly kind: 'visit' }
  | {
      readonly kind: 'sleep';
      readonly ms: number;
      readonly limit: string;
      readonly isFor: 'limit' | 'window';
    }
  | { readonly kind: 'ask'; readonly failure: BudgetExceededDetails }
  | { readonly kind: 'fail'; readonly failure: FailureDetails };

export type Journey = {
  readonly route: CallRoute;
  readonly models: readonly string[];
  /** Why each model cannot answer; undefined for those that may. */
  readonly fallen: (Fallen | undefined)[];
  index: number;
  /** The first model that a budget had no room for. */
  degradedFrom: number | undefined;
  fallback: Fallback | undefined;
  visits: number;
  /** A visit was made: what was told before the first one counts as a visit too. */
  isUnderWay: boolean;
  waits: number;
  heldWaits: number;
  heldWaitLeftMs: number;
  heldWaitOver: boolean;
  backpressureMs: number;
  /** Where a place in rate control is booked. */
  place: { readonly model: string; readonly candidate: number } | undefined;
  readonly queuedAtMs: number;
  /** Of the call itself, since 1970: moves on while it waits for a window or a person. */
  endsAtMs: number;
};

export function startJourney(route: CallRoute, nowMs: number): Journey {
  const models = [...route.candidates, ...route.cheaper];
  return {
    route,
    models,
    fallen: models.map(() => undefined),
    index: 0,
    degradedFrom: undefined,
    fallback: undefined,
    visits: 0,
    isUnderWay: false,
    waits: 0,
    heldWaits: 0,
    heldWaitLeftMs: route.heldWaitMs,
    heldWaitOver: false,
    backpressureMs: 0,
    place: undefined,
    queuedAtMs: nowMs,
    endsAtMs: Math.min(route.deadlineMs, nowMs + route.maxDurationMs),
  };
}

/** The model at which the call is. */
export function modelOf({ models, index }: Journey): string {
  return models[index] ?? '';
}

/** Whether a cheaper model than the one that was asked for answers, because a budget had no room for that. */
export function isDegraded({ degradedFrom, index }: Journey): boolean {
  return degradedFrom !== undefined && index > degradedFrom;
}

/** Counts a visit and says what it is made with. */
export function nextVisit(journey: Journey, nowMs: number): Visit {
  journey.visits += 1;
  const isFirst = !journey.isUnderWay;
  journey.isUnderWay = true;
  const { fallback, heldWaits, heldWaitOver, backpressureMs, index, fallen } = journey;
  const standing = standingOf(journey, nowMs);
  const others = reachable(journey).filter((other) => other !== index);
  return {
    model: modelOf(journey),
    candidate: index,
    visit: journey.visits,
    isFirst,
    heldWaits,
    heldWaitOver,
    backpressureMs,
    candidatesLeft: others.filter((other) => isBackInTime(fallen[other], standing, nowMs)).length,
    fallback,
    queuedAtMs: journey.queuedAtMs,
    isBooked: journey.place?.candidate === index,
  };
}

/** Takes a visit's outcome in and says what to do. `random` is from 0 to 1. */
export function proceed(
  journey: Journey,
  outcome: CallOutcome,
  { nowMs, random }: { readonly nowMs: number; readonly random: () => number },
): Step {
  const isBooked = outcome.kind === 'wait' && outcome.isBooked === true;
  journey.place = isBooked ? { model: modelOf(journey), candidate: journey.index } : undefined;
  const move = nextMove(outcome, standingOf(journey, nowMs));
  switch (move.kind) {
    case 'done':
    case 'ask':
      return move;
    case 'fail':
      return { kind: 'fail', failure: withSetbacks(journey, move.failure, nowMs) };
    case 'look_again':
      journey.heldWaitOver = true;
      return { kind: 'visit' };
    case 'sleep':
      return sleep(journey, outcome, { ...move, random });
    case 'next_candidate':
      fall(journey, move.setback, nowMs);
      if (outcome.kind === 'degrade') journey.degradedFrom ??= journey.index;
      select(journey, nowMs);
      return { kind: 'visit' };
    case 'rest':
      fall(journey, move.setback, nowMs);
      return rest(journey, nowMs, random);
    case 'give_up':
      fall(journey, move.setback, nowMs);
      return { kind: 'fail', failure: noneLeft(journey, nowMs) };
    default:
      return move satisfies never;
  }
}

/** What a wait was for; time that is spent on a budget's window or on a person is none of the call's own. */
export type Waited = {
  readonly sinceMs: number;
  readonly nowMs: number;
  readonly isFor: 'limit' | 'window' | 'person';
  /** Budgets have changed meanwhile: what they had no room for is tried again. */
  readonly isNews: boolean;
};

/** Goes on after a wait: at the same model, or where that was given up at the first that is back. */
export function wake(journey: Journey, { sinceMs, nowMs, isFor, isNews }: Waited): void {
  const { route, fallen } = journey;
  if (isFor !== 'limit') journey.endsAtMs = Math.min(route.deadlineMs, journey.endsAtMs + nowMs - sinceMs);
  // In the next window the holds of others are waited for anew.
  if (isFor === 'window')
    Object.assign(journey, { heldWaits: 0, heldWaitLeftMs: route.heldWaitMs, heldWaitOver: false });
  const isGivenUp = fallen[journey.index] !== undefined;
  if (isNews)
    for (const [index, one] of fallen.entries()) if (one?.kind === 'budget') fallen[index] = undefined;
  if (isGivenUp) select(journey, nowMs);
}

function standingOf(journey: Journey, nowMs: number): CallStanding {
  const { route, index, models, fallen, endsAtMs, heldWaitLeftMs, heldWaitOver } = journey;
  const isReady = (other: number) => other !== index && (fallen[other]?.backAtMs ?? 0) <= nowMs;
  const all = [...models.keys()];
  const ends = { remainingMs: endsAtMs - nowMs, untilDeadlineMs: route.deadlineMs - nowMs };
  const back = all
    .filter((other) => other !== index && !isReady(other) && isBackInTime(fallen[other], ends, nowMs))
    .map((other) => (fallen[other]?.backAtMs ?? NEVER) - nowMs);
  return {
    candidatesLeft: reachable(journey).filter(isReady).length,
    cheaperLeft: all.filter(isReady).length,
    othersBackInMs: Math.min(NEVER, ...back),
    isFallback: all.some((other) => other !== index && fallen[other]?.kind === 'away'),
    shortHintMs: route.shortHintMs,
    ...ends,
    heldWaitLeftMs,
    heldWaitOver,
  };
}

/** A model that is away is no reason for a cheaper one, unless a budget has sent the call to these already. */
function reachable({ models, route, degradedFrom }: Journey): readonly number[] {
  const count = degradedFrom === undefined ? route.candidates.length : models.length;
  return [...models.keys()].slice(0, count);
}

function isBackInTime(
  fallen: Fallen | undefined,
  ends: Pick<CallStanding, 'remainingMs' | 'untilDeadlineMs'>,
  nowMs: number,
): boolean {
  return fallen === undefined || fallen.backAtMs - nowMs < endOf(fallen.kind, ends);
}

function fall(journey: Journey, { backInMs, ...setback }: Setback, nowMs: number): void {
  // One that says it is back at once would be visited again and again.
  journey.fallen[journey.index] = { ...setback, backAtMs: nowMs + Math.max(backInMs, LEAST_AWAY_MS) };
}

/** The first in order that can answer, else the one that is back first. */
function select(journey: Journey, nowMs: number): void {
  const { fallen } = journey;
  const among = reachable(journey);
  const backAt = (index: number) => fallen[index]?.backAtMs ?? 0;
  const soonest = among.reduce((best, index) => (backAt(index) < backAt(best) ? index : best));
  const next = among.find((index) => backAt(index) <= nowMs) ?? soonest;
  const left = fallen[journey.index];
  if (next === 0) journey.fallback = undefined;
  else if (next !== journey.index && left !== undefined)
    journey.fallback = {
      model: modelOf(journey),
      reason: left.reason,
      cause: left.kind,
      since: journey.visits + 1,
    };
  journey.index = next;
  fallen[next] = undefined;
}

function rest(journey: Journey, nowMs: number, random: () => number): Step {
  const { route, models, fallen, endsAtMs } = journey;
  const ends = { remainingMs: endsAtMs - nowMs, untilDeadlineMs: route.deadlineMs - nowMs };
  const [first] = [...fallen.entries()]
    .flatMap(([index, one]) => (one === undefined ? [] : [{ index, ...one }]))
    .filter((one) => isBackInTime(one, ends, nowMs))
    .sort((left, right) => left.backAtMs - right.backAtMs);
  if (first === undefined) return { kind: 'fail', failure: noneLeft(journey, nowMs) };
  const isFor = first.kind === 'budget' ? 'window' : 'limit';
  const limit = `${models[first.index] ?? ''} (${first.reason})`;
  journey.waits += 1;
  const ms = Math.max(first.backAtMs - nowMs, leastWaitMs(journey.waits, random));
  return { kind: 'sleep', ms, limit, isFor };
}

/** Notes what a wait at the present model takes. */
function sleep(
  journey: Journey,
  outcome: CallOutcome,
  { ms, limit, random }: { readonly ms: number; readonly limit: string; readonly random: () => number },
): Step {
  const isFor = outcome.kind === 'budget_wait' ? 'window' : 'limit';
  if (outcome.kind === 'held') {
    journey.heldWaits += 1;
    journey.heldWaitLeftMs -= ms;
  }
  if (outcome.kind !== 'wait') return { kind: 'sleep', ms, limit, isFor };
  if (outcome.reason === 'backpressure') {
    journey.backpressureMs += outcome.ms;
    return { kind: 'sleep', ms, limit, isFor };
  }
  journey.backpressureMs += outcome.slowedMs ?? 0;
  // A booked place is the call's own: nobody else comes for it, and it does not last.
  if (outcome.isBooked === true) return { kind: 'sleep', ms, limit, isFor };
  journey.waits += 1;
  return { kind: 'sleep', ms: Math.max(ms, leastWaitMs(journey.waits, random)), limit, isFor };
}

/**
 * A provider's slot is told exactly, but all who wait for it wake up together and most wait again. Every visit costs eleven events, so
 * that the waits of one call grow: from the third on 1, 2, 4 … at most 15 s, jittered.
 */
function leastWaitMs(waits: number, random: () => number): number {
  if (waits < 3) return 0;
  return Math.min(1_000 * 2 ** (waits - 3), 15_000) * (0.75 + random() / 2);
}
