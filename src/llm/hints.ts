// When a provider says that it can be asked again. Pure. Headers and bodies come from strangers: what is not a sensible time is no
// hint at all, and none may park a task for longer than an hour.

import { errorObjectOf, toRecord } from './error-body.ts';
import {
  type Header,
  type HeaderLookup,
  headerOf,
  providerNowMs,
  toDurationMs,
  toHttpDateMs,
  toNumber,
  toResetMs,
} from './header-time.ts';

/** Longest hint that is believed. */
export const LONGEST_HINT_MS = 3_600_000;

/**
 * Milliseconds until the provider wants to be asked again, whole and at most an hour. The first that is there of: `retry-after-ms`,
 * `retry-after` (seconds, or a date), `retryDelay` in the body, and the latest reset among the limits that have nothing remaining.
 * Zero, negative and unreadable values are passed over: a refusal that says "at once" would be repeated without end.
 * @param body of the response, parsed or as text
 * @param nowMs against which dates are taken where the provider does not say what time it is
 */
export function retryAfterMsFrom(
  headers: HeaderLookup | undefined,
  body: unknown,
  nowMs: number,
): number | undefined {
  const header = headerOf(headers);
  const now = providerNowMs(header, nowMs);
  return (
    toHint(toNumber(header('retry-after-ms'))) ??
    toHint(fromRetryAfter(header('retry-after'), now)) ??
    toHint(fromBody(body)) ??
    toHint(fromResets(header, now))
  );
}

function toHint(ms: number | undefined): number | undefined {
  if (ms === undefined || !Number.isFinite(ms) || ms <= 0) return undefined;
  return Math.min(Math.ceil(ms), LONGEST_HINT_MS);
}

function fromRetryAfter(text: string | undefined, nowMs: number): number | undefined {
  const seconds = toNumber(text);
  if (seconds !== undefined) return seconds * 1000;
  const atMs = toHttpDateMs(text);
  return atMs === undefined ? undefined : atMs - nowMs;
}

/** Google: `details: [{"@type": "…RetryInfo", "retryDelay": "12.5s"}]`. */
function fromBody(body: unknown): number | undefined {
  const details = errorObjectOf(body)?.['details'];
  if (!Array.isArray(details)) return undefined;
  const delays = details.map((detail) => toRecord(detail)?.['retryDelay']);
  const delay = delays.find((value) => typeof value === 'string');
  return typeof delay === 'string' ? toDurationMs(delay) : undefined;
}

/** OpenAI counts down (`6m0s`), Azure in plain seconds, Anthropic names the moment (RFC 3339), others write what they like. */
const LIMITS: readonly { readonly remaining: string; readonly reset: string }[] = [
  ...['requests', 'tokens'].map((limit) => ({
    remaining: `x-ratelimit-remaining-${limit}`,
    reset: `x-ratelimit-reset-${limit}`,
  })),
  ...['requests', 'tokens', 'input-tokens', 'output-tokens'].map((limit) => ({
    remaining: `anthropic-ratelimit-${limit}-remaining`,
    reset: `anthropic-ratelimit-${limit}-reset`,
  })),
  { remaining: 'x-ratelimit-remaining', reset: 'x-ratelimit-reset' },
  { remaining: 'ratelimit-remaining', reset: 'ratelimit-reset' },
];

function fromResets(header: Header, nowMs: number): number | undefined {
  const waits = LIMITS.filter(({ remaining }) => toNumber(header(remaining)) === 0)
    .map(({ reset }) => toResetMs(header(reset), nowMs))
    .filter((ms) => ms !== undefined);
  // All of them stand in the way, so the latest counts.
  return waits.length === 0 ? undefined : Math.max(...waits);
}
