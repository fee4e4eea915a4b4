// One hold in Redis: what hold.lua is told and what its answer means. It runs before every request of the product, so nothing is
// computed here twice; it decides nothing.

import type { BindingLimit, Scope } from '../task/budget.ts';
import { scopesOf } from '../task/budget.ts';
import { toCallKeyOfAttempt } from '../task/keys.ts';
import { ALWAYS, fromIntervalKey, type Interval } from '../task/window.ts';
import type { Calendars } from './calendars.ts';
import type { GateHold, GateOptions, HoldRequest, LimitUse, ScopeIntervals } from './gate.ts';
import { holdFunctions } from './hold-functions.ts';
import { budgetKeys } from './keys.ts';
import type { Redis } from './redis.ts';

type HoldAnswer = readonly [string, ...(string | number)[]];

/**
 * An older attempt of the same call that was not sent gives way in the same step; its key must be known to the script before, so that
 * only keys that were passed are touched: hence the second round. Another one comes when the windows were computed by a clock that
 * differs from the server's. `clock` is what the server's shows beyond ours, as far as it was learnt.
 */
export async function hold(
  redis: Redis,
  options: GateOptions & { readonly clock: { aheadMs: number } },
  request: HoldRequest,
): Promise<GateHold> {
  const keys = budgetKeys(redis.prefix, request.payer.tenantId);
  const scopes = scopesOf(request.payer);
  const scopeKeys = scopes.map((scope) => keys.scope(scope.kind, scope.id));
  const runId = await redis.runId();
  let previous: string | undefined;
  for (;;) {
    const asked = toAsked(options.calendars, scopes, {
      limits: request.limits,
      nowMs: Date.now() + options.clock.aheadMs,
    });
    const answer = (await redis.run(
      holdFunctions.hold,
      [
        ...[keys.holds, keys.leases, keys.done(request.attemptKey), ...scopeKeys],
        ...(previous === undefined ? [] : [keys.done(previous)]),
      ],
      [
        request.attemptKey,
        toCallKeyOfAttempt(request.attemptKey),
        `${request.generation}:${runId}`,
        options.leaseMs,
        request.estimate.nanoUsd.toString(),
        request.estimate.tokens,
        previous ?? '',
        options.markerTtlMs,
        request.owner,
        asked.text,
      ],
    )) as HoldAnswer;
    if (answer[0] === 'PREVIOUS') previous = String(answer[1]);
    else if (answer[0] === 'STALE_WINDOW') options.clock.aheadMs = Number(answer[1]) - Date.now();
    else return toGateHold(answer, scopes, asked);
  }
}

/** The limits of a hold, with the number of the window of each: 0 is all time. */
type Asked = {
  readonly limits: readonly BindingLimit[];
  readonly windows: readonly number[];
  /** Of each window the present interval and the next one. */
  readonly intervals: readonly (readonly [Interval, Interval])[];
  readonly text: string;
};

/**
 * Every window once, and then the limits, which name their scope and window by number. Who pays is not in it: Redis remembers what it
 * has read, and all payers with the same limits ask the same.
 */
function toAsked(
  calendars: Calendars,
  scopes: readonly Scope[],
  { limits, nowMs }: { limits: readonly BindingLimit[]; nowMs: number },
): Asked {
  const intervals: [Interval, Interval][] = [];
  let text = '';
  const windowOf = (limit: BindingLimit): number => {
    if (limit.window === 'total') return 0;
    const present = calendars.intervalOf(limit, nowMs);
    // The calendar remembers its intervals, so that limits of one window have the very same.
    const known = intervals.findIndex(([interval]) => interval === present);
    if (known >= 0) return 1 + known;
    const next = calendars.intervalOf(limit, present.endMs);
    text += `${present.startMs},${present.endMs},${next.endMs};`;
    return intervals.push([present, next]);
  };
  const windows = limits.map(windowOf);
  text += '|';
  for (const [index, { scope, unit, hard, amount }] of limits.entries()) {
    const number = 1 + scopes.findIndex(({ kind, id }) => kind === scope.kind && id === scope.id);
    text += `${number},${windows[index]},${unit === 'usd' ? 'u' : 't'}${hard ? 'h' : 's'}${amount};`;
  }
  return { limits, windows, intervals, text };
}

function toGateHold(answer: HoldAnswer, scopes: readonly Scope[], asked: Asked): GateHold {
  const [kind, ...rest] = answer;
  switch (kind) {
    case 'OK':
      return { kind: 'ok', heldAtMs: Number(rest[0]), uses: toUses(rest, asked) };
    case 'DONE':
      return { kind: 'done' };
    case 'MISS':
      return { kind: 'missing', scopes: toMissing(rest, scopes) };
    case 'REFUSED':
    case 'HELD': {
      const limit = asked.limits[Number(rest[0]) - 1];
      if (limit === undefined)
        throw new Error(`hold script named limit ${rest[0]} of ${asked.limits.length}`);
      return {
        kind: kind === 'REFUSED' ? 'refused' : 'crowded',
        limit,
        settled: BigInt(rest[1] ?? 0),
        held: BigInt(rest[2] ?? 0),
        interval: fromIntervalKey(String(rest[3])),
      };
    }
    default:
      throw new Error(`hold script answered ${kind}`);
  }
}

/** Nothing at all for the repetition of a hold that was made before. */
function toUses(
  [, ...told]: readonly (string | number)[],
  { limits, windows, intervals }: Asked,
): readonly LimitUse[] {
  if (told.length === 0) return [];
  const present = [ALWAYS, ...intervals.map((pair, index) => pair[told[index] === 1 ? 1 : 0])];
  return limits.map((limit, index) => {
    const at = intervals.length + 2 * index;
    const [settled = 0, held = 0] = [told[at], told[at + 1]];
    const interval = present[windows[index] ?? 0] ?? ALWAYS;
    return { limit, settled: BigInt(settled), held: BigInt(held), interval };
  });
}

function toMissing(pairs: readonly (string | number)[], scopes: readonly Scope[]): readonly ScopeIntervals[] {
  return scopes.flatMap((scope, index) => {
    const keys = pairs.filter((_, at) => at % 2 === 1 && Number(pairs[at - 1]) === index + 1).map(String);
    return keys.length === 0 ? [] : [{ scope, intervals: [...new Set(keys)].map(fromIntervalKey) }];
  });
}
