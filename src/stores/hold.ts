// One hold in Redis: what hold.lua is told and what its answer means. It runs before every request of the product, so nothing is
// computed here twice; it decides nothing.

import type { BindingLimit, Scope } from '../task/budget.ts';
import { scopesOf } from '../task/budget.ts';
import { ALWAYS, fromIntervalKey, type Interval } from '../task/window.ts';
import type { Calendars } from './calendars.ts';
import type { GateHold, GateOptions, HoldRequest, LimitUse, ScopeIntervals } from './gate.ts';
import { budgetKeys } from './keys.ts';
import { loadScript, type Redis } from './redis.ts';

const script = loadScript('holds', 'hold');

/** Numbers of scopes and windows are told as one character, counted from this one. */
const ZERO = '0'.charCodeAt(0);

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
  const record = recordOf(request, runId);
  let previous: string | undefined;
  for (;;) {
    const asked = toAsked(options.calendars, scopes, {
      limits: request.limits,
      nowMs: Date.now() + options.clock.aheadMs,
    });
    const answer = (await redis.run(
      script,
      [
        ...[keys.holds, keys.leases, keys.call(request.callKey), keys.done(request.attemptKey), ...scopeKeys],
        ...(previous === undefined ? [] : [keys.done(previous)]),
      ],
      [
        request.attemptKey,
        `${request.generation}:${runId}`,
        options.leaseMs,
        request.estimate.nanoUsd.toString(),
        request.estimate.tokens,
        previous ?? '',
        options.markerTtlMs,
        record,
        scopes.length,
        ...scopes.map((scope) => JSON.stringify([scope.kind, scope.id]).slice(0, -1)),
        ...asked.args,
      ],
    )) as HoldAnswer;
    if (answer[0] === 'PREVIOUS') previous = String(answer[1]);
    else if (answer[0] === 'STALE_WINDOW') options.clock.aheadMs = Number(answer[1]) - Date.now();
    else return toGateHold(answer, scopes, asked);
  }
}

/** What the record of a hold says (holds.lua), but for what the script alone knows. Not closed: the script appends to it. */
function recordOf({ callKey, estimate, owner, generation }: HoldRequest, runId: string): string {
  const known = {
    call: callKey,
    run: runId,
    nano: estimate.nanoUsd.toString(),
    tokens: estimate.tokens.toString(),
    owner,
    generation: generation.toString(),
    sent: 'no',
    seen: '0',
  };
  return JSON.stringify(known).slice(0, -1);
}

/** The limits of a hold, with the number of the window of each: 0 is all time. */
type Asked = {
  readonly limits: readonly BindingLimit[];
  readonly windows: readonly number[];
  readonly args: readonly (string | number)[];
};

/** Every window once, with its present interval and the next one, and then the limits, which name their scope and window by number. */
function toAsked(
  calendars: Calendars,
  scopes: readonly Scope[],
  { limits, nowMs }: { limits: readonly BindingLimit[]; nowMs: number },
): Asked {
  const present: Interval[] = [];
  const bounds: number[] = [];
  const windowOf = (limit: BindingLimit): number => {
    if (limit.window === 'total') return 0;
    const interval = calendars.intervalOf(limit, nowMs);
    // The calendar remembers its intervals, so that limits of one window have the very same.
    const known = present.indexOf(interval);
    if (known >= 0) return 1 + known;
    bounds.push(interval.startMs, interval.endMs, calendars.intervalOf(limit, interval.endMs).endMs);
    return present.push(interval);
  };
  const windows = limits.map(windowOf);
  const coded = limits.flatMap((limit, index) => {
    const scope = 1 + scopes.findIndex(({ kind, id }) => kind === limit.scope.kind && id === limit.scope.id);
    const place = String.fromCharCode(ZERO + scope, ZERO + (windows[index] ?? 0));
    return [`${place}${limit.unit === 'usd' ? 'u' : 't'}${limit.hard ? 'h' : 's'}`, limit.amount.toString()];
  });
  return { limits, windows, args: [present.length, ...bounds, ...coded] };
}

function toGateHold(answer: HoldAnswer, scopes: readonly Scope[], asked: Asked): GateHold {
  const [kind, ...rest] = answer;
  switch (kind) {
    case 'OK':
      return { kind: 'ok', heldAtMs: Number(rest[0]), uses: toUses(rest.slice(1).map(String), asked) };
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
  [pairs, ...intervalKeys]: readonly string[],
  { limits, windows }: Asked,
): readonly LimitUse[] {
  if (pairs === undefined) return [];
  const amounts = pairs.split(' ');
  const intervals = [ALWAYS, ...intervalKeys.map(fromIntervalKey)];
  return limits.map((limit, index) => ({
    limit,
    settled: BigInt(amounts[2 * index] ?? 0),
    held: BigInt(amounts[2 * index + 1] ?? 0),
    interval: intervals[windows[index] ?? 0] ?? ALWAYS,
  }));
}

function toMissing(pairs: readonly (string | number)[], scopes: readonly Scope[]): readonly ScopeIntervals[] {
  return scopes.flatMap((scope, index) => {
    const keys = pairs.filter((_, at) => at % 2 === 1 && Number(pairs[at - 1]) === index + 1).map(String);
    return keys.length === 0 ? [] : [{ scope, intervals: [...new Set(keys)].map(fromIntervalKey) }];
  });
}
