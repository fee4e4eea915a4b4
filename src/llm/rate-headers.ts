// What a provider says of its limits beside every answer, in all the dialects there are. Pure. Headers come from strangers: what makes no
// sense is passed over, and nothing that is read here may ever let more through than is configured.

import type { RateDimension, RateReading } from '../task/rate-reading.ts';
import {
  type Header,
  type HeaderLookup,
  headerOf,
  providerNowMs,
  toNumber,
  toResetMs,
} from './header-time.ts';

/** Longest that a bucket counts as empty for a header's sake. */
export const LONGEST_EMPTY_MS = 3_600_000;

const MINUTE_MS = 60_000;
/** Resets are rounded, clocks tick: a minute that is said to be a little longer is one. */
const ABOUT_A_MINUTE_MS = 61_000;
/** Some servers write their "unlimited" as a number. */
const ABSURD = 1e9;
/** Windows longer than an hour are quotas to be spent, not rates to be kept. */
const LONGEST_WINDOW_SECONDS = 3_600;

/** Everything that the headers of one answer say of limits; one reading for each scope and dimension, the tightest of several. */
export function readRateHeaders(headers: HeaderLookup | undefined, nowMs: number): readonly RateReading[] {
  const header = headerOf(headers);
  const now = providerNowMs(header, nowMs);
  const readings = [
    ...fillingDialect(header, now, OPENAI),
    ...fillingDialect(header, now, ANTHROPIC),
    ...genericReading(header, now),
    ...ietfReading(header, now),
  ];
  const tightest = new Map<string, RateReading>();
  for (const reading of readings) {
    const key = `${reading.scope} ${reading.dimension}`;
    tightest.set(key, tighter(tightest.get(key), reading));
  }
  return [...tightest.values()];
}

/** What one key of several may, all of them may together; one that is used up leaves the others. */
export function forAllKeys(readings: readonly RateReading[], keys: number): readonly RateReading[] {
  if (keys <= 1) return readings;
  return readings.flatMap(({ scope, dimension, limit }) =>
    limit === undefined ? [] : [{ scope, dimension, limit: limit * keys }],
  );
}

type Dialect = {
  readonly names: Readonly<Record<string, RateDimension>>;
  readonly header: (limit: string, part: 'limit' | 'remaining' | 'reset') => string;
};

/** OpenAI and all who copy it, Azure among them: durations (`6m0s`), on Azure plain seconds. */
const OPENAI: Dialect = {
  names: { requests: 'rpm', tokens: 'tpm' },
  header: (limit, part) => `x-ratelimit-${part}-${limit}`,
};

/** Moments in RFC 3339. */
const ANTHROPIC: Dialect = {
  names: { requests: 'rpm', tokens: 'tpm', 'input-tokens': 'inputTpm', 'output-tokens': 'outputTpm' },
  header: (limit, part) => `anthropic-ratelimit-${limit}-${part}`,
};

/** Buckets that fill evenly: `reset` is when all of the limit is there again, and a part of it is there sooner. */
function fillingDialect(header: Header, nowMs: number, { names, header: nameOf }: Dialect): RateReading[] {
  return Object.entries(names).flatMap(([name, dimension]) => {
    const limit = toLimit(header(nameOf(name, 'limit')));
    const remaining = toRemaining(header(nameOf(name, 'remaining')));
    if (limit === undefined && remaining === undefined) return [];
    const resetMs = toPositive(toResetMs(header(nameOf(name, 'reset')), nowMs));
    const perMinute = isPerMinute(limit, remaining, resetMs) ? limit : undefined;
    const nextMs = dimension === 'rpm' && limit !== undefined ? perUnitMs(limit, resetMs) : SOON_MS;
    return [
      {
        scope: 'model' as const,
        dimension,
        ...(perMinute === undefined ? {} : { limit: perMinute }),
        ...(remaining === undefined ? {} : { remaining }),
        ...(remaining === 0 ? { emptyMs: capped(Math.min(resetMs ?? nextMs, nextMs)) } : {}),
      },
    ];
  });
}

/** Of a bucket of tokens nobody knows how many the next request takes. */
const SOON_MS = 1_000;

/** How long an empty bucket takes to have one again. */
function perUnitMs(limit: number, resetMs: number | undefined): number {
  return Math.max(MINUTE_MS, resetMs ?? 0) / limit;
}

/** A limit of a day is written under the same name: what is missing of it comes back far slower than in a minute. */
function isPerMinute(
  limit: number | undefined,
  remaining: number | undefined,
  resetMs: number | undefined,
): boolean {
  if (limit === undefined || resetMs === undefined || resetMs <= ABOUT_A_MINUTE_MS) return true;
  // Half of the rate: a bucket that is in debt for one large request takes longer than a minute, too.
  return ((limit - (remaining ?? limit)) * MINUTE_MS) / resetMs >= limit / 2;
}

/** `x-ratelimit-limit`, `-remaining`, `-reset`: a window that ends at the reset, in whatever form that is written. */
function genericReading(header: Header, nowMs: number): RateReading[] {
  const [limitText, ...policies] = listOf(header('x-ratelimit-limit') ?? header('ratelimit-limit'));
  const remaining = toRemaining(header('x-ratelimit-remaining') ?? header('ratelimit-remaining'));
  const resetMs = toPositive(toResetMs(header('x-ratelimit-reset') ?? header('ratelimit-reset'), nowMs));
  const quota = toLimit(limitText?.split(';')[0]?.trim());
  const window = windowOf([limitText ?? '', ...policies]);
  const isMinute = resetMs === undefined || resetMs <= ABOUT_A_MINUTE_MS;
  const limit = window === undefined ? (isMinute ? quota : undefined) : perMinuteOf(quota, window);
  return reading({ limit, remaining, resetMs });
}

/**
 * The IETF's `RateLimit` and `RateLimit-Policy`, in the forms of its drafts: `limit=100, remaining=50, reset=30`,
 * `"default";r=50;t=30`, `100;w=60`, `"default";q=100;w=60`. Policies that count something else than requests are passed over.
 */
function ietfReading(header: Header, nowMs: number): RateReading[] {
  const policies = listOf(header('ratelimit-policy')).map(parametersOf).filter(countsRequests);
  const limits = policies.flatMap((policy) => {
    const limit = perMinuteOf(toLimit(policy.get('q') ?? policy.get('')), toNumber(policy.get('w')));
    return limit === undefined ? [] : [limit];
  });
  const states = statesOf(header('ratelimit'));
  const stated = states.map((state) => {
    const resetMs = toPositive(toResetMs(state.get('t') ?? state.get('reset'), nowMs));
    const isMinute = resetMs === undefined || resetMs <= ABOUT_A_MINUTE_MS;
    const limit = isMinute && policies.length === 0 ? toLimit(state.get('limit')) : undefined;
    return { limit, remaining: toRemaining(state.get('r') ?? state.get('remaining')), resetMs };
  });
  return [...limits.map((limit) => ({ limit })), ...stated].flatMap(reading);
}

function reading(found: {
  readonly limit?: number | undefined;
  readonly remaining?: number | undefined;
  readonly resetMs?: number | undefined;
}): RateReading[] {
  const { limit, remaining, resetMs } = found;
  if (limit === undefined && remaining === undefined) return [];
  return [
    {
      scope: 'provider',
      dimension: 'rpm',
      ...(limit === undefined ? {} : { limit }),
      ...(remaining === undefined ? {} : { remaining }),
      ...(remaining === 0 && resetMs !== undefined ? { emptyMs: capped(resetMs) } : {}),
    },
  ];
}

type Parameters = ReadonlyMap<string, string>;

/** `"default";q=100;w=60` → q and w; what stands before the first `;` has the empty name. Quotes are taken off. */
function parametersOf(item: string): Parameters {
  return new Map(
    item.split(';').map((part, index) => {
      const equals = part.indexOf('=');
      const name = equals < 0 ? (index === 0 ? '' : part.trim()) : part.slice(0, equals).trim().toLowerCase();
      return [
        name,
        part
          .slice(equals + 1)
          .trim()
          .replace(/^"(.*)"$/, '$1'),
      ] as const;
    }),
  );
}

function countsRequests(policy: Parameters): boolean {
  return (policy.get('qu') ?? 'requests') === 'requests';
}

/** Either a list of states, or one state whose parts are written as a list. */
function statesOf(text: string | undefined): Parameters[] {
  const items = listOf(text);
  if (items.some((item) => item.includes(';'))) return items.map(parametersOf);
  return items.length === 0 ? [] : [parametersOf(items.join(';'))];
}

function listOf(text: string | undefined): string[] {
  return (text ?? '')
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** `100, 100;w=60`: the window of the first item that names one, in seconds. */
function windowOf(items: readonly string[]): number | undefined {
  return items.map((item) => toNumber(parametersOf(item).get('w'))).find((window) => window !== undefined);
}

function perMinuteOf(quota: number | undefined, windowSeconds: number | undefined): number | undefined {
  if (quota === undefined || windowSeconds === undefined) return undefined;
  if (windowSeconds <= 0 || windowSeconds > LONGEST_WINDOW_SECONDS) return undefined;
  return toLimit(String(rounded((quota * 60) / windowSeconds)));
}

/** A limit of nothing is a mistake: it would close a provider for good. */
function toLimit(text: string | undefined): number | undefined {
  const value = toNumber(text);
  return value !== undefined && value > 0 && value < ABSURD ? rounded(value) : undefined;
}

function toRemaining(text: string | undefined): number | undefined {
  const value = toNumber(text);
  return value !== undefined && value < ABSURD ? Math.floor(value) : undefined;
}

function toPositive(ms: number | undefined): number | undefined {
  return ms !== undefined && ms > 0 ? ms : undefined;
}

function capped(ms: number): number {
  return Math.min(Math.ceil(ms), LONGEST_EMPTY_MS);
}

function rounded(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}

function tighter(known: RateReading | undefined, other: RateReading): RateReading {
  if (known === undefined) return other;
  const limit = least(known.limit, other.limit);
  const remaining = least(known.remaining, other.remaining);
  const emptyMs = known.emptyMs === undefined ? other.emptyMs : Math.max(known.emptyMs, other.emptyMs ?? 0);
  return {
    scope: known.scope,
    dimension: known.dimension,
    ...(limit === undefined ? {} : { limit }),
    ...(remaining === undefined ? {} : { remaining }),
    ...(emptyMs === undefined ? {} : { emptyMs }),
  };
}

function least(one: number | undefined, other: number | undefined): number | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Math.min(one, other);
}
