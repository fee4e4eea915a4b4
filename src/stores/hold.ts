// One hold in Redis: what hold.lua is told and what its answer means. It runs before every request of the product, so nothing is
// computed here twice; it decides nothing.

import type { BindingLimit, Scope } from '../task/budget.ts';
import { scopesOf } from '../task/budget.ts';
import { toCallKeyOfAttempt } from '../task/keys.ts';
import { ALWAYS, fromIntervalKey, type Interval } from '../task/window.ts';
import type { Calendars } from './calendars.ts';
import type { GateHold, GateOptions, HoldRequest, LimitUse, ScopeIntervals } from './gate.ts';
import { holdFunctions } from './hold-functions.ts';
import { budgetKeys, nameOfScope } from './keys.ts';
import type { Redis } from './redis.ts';

/** Bytes when it was held. */
type HoldAnswer = Buffer | readonly [Buffer, ...(Buffer | number)[]];

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
  const scopeKeys = scopes.map(({ kind, id }) => keys.scope(kind, id));
  const names = scopes.map(nameOfScope).join('\n');
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
        ...[keys.holds, keys.done(request.attemptKey), ...scopeKeys],
        ...(previous === undefined ? [] : [keys.leases, keys.done(previous)]),
      ],
      [
        request.attemptKey,
        toCallKeyOfAttempt(request.attemptKey),
        `${request.generation}:${runId}`,
        request.estimate.nanoUsd.toString(),
        request.estimate.tokens,
        `${request.owner}\0${names}`,
        asked.text,
        ...(previous === undefined ? [] : [previous, options.markerTtlMs]),
      ],
    )) as HoldAnswer;
    if (Buffer.isBuffer(answer))
      return { kind: 'ok', heldAtMs: answer.readDoubleLE(0), uses: toUses(answer, asked) };
    const [kind, ...rest] = answer.map(toTextOrNumber);
    if (kind === 'PREVIOUS') previous = String(rest[0]);
    else if (kind === 'STALE_WINDOW') options.clock.aheadMs = Number(rest[0]) - Date.now();
    else return toRefusedHold([String(kind), ...rest], scopes, asked);
  }
}

function toTextOrNumber(part: Buffer | number): string | number {
  return typeof part === 'number' ? part : part.toString();
}

/** The limits of a hold, with the number of the window of each: 0 is all time. */
type Asked = {
  readonly limits: readonly BindingLimit[];
  readonly windows: readonly number[];
  /** For each limit the number, from 0, of its pair of scope and window. */
  readonly groups: readonly number[];
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
  const places: string[] = [];
  const groups: number[] = [];
  for (const [index, { scope, unit, hard, amount }] of limits.entries()) {
    const number = 1 + scopes.findIndex(({ kind, id }) => kind === scope.kind && id === scope.id);
    const place = `${number},${windows[index]},`;
    const known = places.indexOf(place);
    groups.push(known < 0 ? places.push(place) - 1 : known);
    text += `${place}${unit === 'usd' ? 'u' : 't'}${hard ? 'h' : 's'}${amount};`;
  }
  return { limits, windows, groups, intervals, text };
}

function toRefusedHold(
  [kind, ...rest]: readonly [string, ...(string | number)[]],
  scopes: readonly Scope[],
  asked: Asked,
): GateHold {
  switch (kind) {
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

const DOUBLE = 8;
/** Settled USD and tokens, held USD and tokens. */
const AMOUNTS = 4 * DOUBLE;
/** What the counters of Redis tell to the last digit. */
const EXACT = 2 ** 53;

/** Nothing at all for the repetition of a hold that was made before. */
function toUses(bytes: Buffer, { limits, windows, intervals, groups }: Asked): readonly LimitUse[] {
  if (bytes.length === DOUBLE) return [];
  const amount = (at: number) => BigInt(Math.min(EXACT, bytes.readDoubleLE(at)));
  return limits.map((limit, index) => {
    const window = windows[index] ?? 0;
    const pair = intervals[window - 1];
    const isUsd = limit.unit === 'usd';
    const at = DOUBLE + intervals.length + AMOUNTS * (groups[index] ?? 0) + (isUsd ? 0 : DOUBLE);
    return {
      limit,
      settled: amount(at),
      held: amount(at + 2 * DOUBLE),
      interval: pair?.[bytes[DOUBLE + window - 1] === 1 ? 1 : 0] ?? ALWAYS,
    };
  });
}

function toMissing(pairs: readonly (string | number)[], scopes: readonly Scope[]): readonly ScopeIntervals[] {
  return scopes.flatMap((scope, index) => {
    const keys = pairs.filter((_, at) => at % 2 === 1 && Number(pairs[at - 1]) === index + 1).map(String);
    return keys.length === 0 ? [] : [{ scope, intervals: [...new Set(keys)].map(fromIntervalKey) }];
  });
}
