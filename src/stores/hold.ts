// One hold in Redis: what hold.lua is told and what its answer means. It runs before every request of the product, so nothing is
// computed here twice; it decides nothing.

import type { BindingLimit, Scope } from '../task/budget.ts';
import { scopesOf } from '../task/budget.ts';
import { fromIntervalKey, type Interval } from '../task/window.ts';
import type { Calendars } from './calendars.ts';
import type { GateHold, GateOptions, HoldRequest, LimitUse, ScopeIntervals } from './gate.ts';
import { budgetKeys } from './keys.ts';
import { loadScript, type Redis } from './redis.ts';

const script = loadScript('holds', 'hold');

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
  const done = keys.done(request.attemptKey);
  const runId = await redis.runId();
  const record = recordOf(request, runId);
  let previous = '';
  for (;;) {
    const nowMs = Date.now() + options.clock.aheadMs;
    const answer = (await redis.run(
      script,
      [
        keys.holds,
        keys.leases,
        keys.call(request.callKey),
        done,
        previous === '' ? done : keys.done(previous),
        ...scopeKeys,
      ],
      [
        request.attemptKey,
        request.generation.toString(),
        runId,
        options.leaseMs,
        request.estimate.nanoUsd.toString(),
        request.estimate.tokens,
        previous,
        options.markerTtlMs,
        record,
        scopes.length,
        ...scopes.map((scope) => JSON.stringify([scope.kind, scope.id]).slice(0, -1)),
        ...limitArgs(options.calendars, scopes, { limits: request.limits, nowMs }),
      ],
    )) as HoldAnswer;
    if (answer[0] === 'PREVIOUS') previous = String(answer[1]);
    else if (answer[0] === 'STALE_WINDOW') options.clock.aheadMs = Number(answer[1]) - Date.now();
    else return toGateHold(answer, scopes, request.limits);
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

/** Every window once, with its present interval and the next one, and then the limits, which name their window by its place. */
function limitArgs(
  calendars: Calendars,
  scopes: readonly Scope[],
  { limits, nowMs }: { limits: readonly BindingLimit[]; nowMs: number },
): (string | number)[] {
  const windows: Interval[] = [];
  const bounds: number[] = [];
  const args: (string | number)[] = [];
  for (const limit of limits) {
    const scope = scopes.findIndex(({ kind, id }) => kind === limit.scope.kind && id === limit.scope.id);
    args.push(1 + scope, limit.unit, limit.amount.toString(), limit.hard ? 1 : 0);
    if (limit.window === 'total') {
      args.push(0);
      continue;
    }
    const present = calendars.intervalOf(limit, nowMs);
    // The calendar remembers its intervals, so that limits of one window have the very same.
    let window = windows.indexOf(present);
    if (window < 0) {
      window = windows.push(present) - 1;
      bounds.push(present.startMs, present.endMs, calendars.intervalOf(limit, present.endMs).endMs);
    }
    args.push(1 + window);
  }
  return [windows.length, ...bounds, ...args];
}

function toGateHold(answer: HoldAnswer, scopes: readonly Scope[], limits: readonly BindingLimit[]): GateHold {
  const [kind, ...rest] = answer;
  switch (kind) {
    case 'OK':
      return { kind: 'ok', heldAtMs: Number(rest[0]), uses: toUses(rest, limits) };
    case 'DONE':
      return { kind: 'done' };
    case 'MISS':
      return { kind: 'missing', scopes: toMissing(rest, scopes) };
    case 'REFUSED':
    case 'HELD': {
      const limit = limits[Number(rest[0]) - 1];
      if (limit === undefined) throw new Error(`hold script named limit ${rest[0]} of ${limits.length}`);
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

/** After the moment, three values per limit; none at all for the repetition of a hold that was made before. */
function toUses(values: readonly (string | number)[], limits: readonly BindingLimit[]): readonly LimitUse[] {
  if (values.length === 1) return [];
  const intervals = new Map<string, Interval>();
  const intervalOf = (key: string): Interval => {
    const interval = intervals.get(key) ?? fromIntervalKey(key);
    intervals.set(key, interval);
    return interval;
  };
  return limits.map((limit, index) => ({
    limit,
    settled: BigInt(values[3 * index + 1] ?? 0),
    held: BigInt(values[3 * index + 2] ?? 0),
    interval: intervalOf(String(values[3 * index + 3])),
  }));
}

function toMissing(pairs: readonly (string | number)[], scopes: readonly Scope[]): readonly ScopeIntervals[] {
  return scopes.flatMap((scope, index) => {
    const keys = pairs.filter((_, at) => at % 2 === 1 && Number(pairs[at - 1]) === index + 1).map(String);
    return keys.length === 0 ? [] : [{ scope, intervals: [...new Set(keys)].map(fromIntervalKey) }];
  });
}
