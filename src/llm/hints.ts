// When a provider says that it can be asked again. Pure. Headers and bodies come from strangers: what is not a sensible time is no
// hint at all, and none may park a task for longer than an hour.

import { errorObjectOf, toRecord } from './error-body.ts';

/** Longest hint that is believed. */
export const LONGEST_HINT_MS = 3_600_000;

/** The part of `Headers` that is read; names are looked up without regard to case. */
export type HeaderLookup = { get(name: string): string | null };

/**
 * Milliseconds until the provider wants to be asked again, whole and at most an hour. The first that is there of: `retry-after-ms`,
 * `retry-after` (seconds, or a date), `retryDelay` in the body, and the latest reset among the limits that have nothing remaining.
 * Zero, negative and unreadable values are passed over: a refusal that says "at once" would be repeated without end.
 * @param body of the response, parsed or as text
 * @param nowMs against which dates are taken
 */
export function retryAfterMsFrom(
  headers: HeaderLookup | undefined,
  body: unknown,
  nowMs: number,
): number | undefined {
  const header = (name: string) => headers?.get(name)?.trim() || undefined;
  return (
    toHint(toNumber(header('retry-after-ms'))) ??
    toHint(fromRetryAfter(header('retry-after'), nowMs)) ??
    toHint(fromBody(body)) ??
    toHint(fromResets(header, nowMs))
  );
}

type Header = (name: string) => string | undefined;

function toHint(ms: number | undefined): number | undefined {
  if (ms === undefined || !Number.isFinite(ms) || ms <= 0) return undefined;
  return Math.min(Math.ceil(ms), LONGEST_HINT_MS);
}

function toNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,12}(\.\d{1,9})?$/.test(text) ? Number(text) : undefined;
}

function fromRetryAfter(text: string | undefined, nowMs: number): number | undefined {
  const seconds = toNumber(text);
  if (seconds !== undefined) return seconds * 1000;
  // Only HTTP's own form of a date (`Wed, 21 Oct 2026 07:28:00 GMT`): Date.parse takes `-1` for a year.
  return text !== undefined && /^[A-Z][a-z]{2}, .+ GMT$/.test(text) ? Date.parse(text) - nowMs : undefined;
}

/** Google: `details: [{"@type": "…RetryInfo", "retryDelay": "12.5s"}]`. */
function fromBody(body: unknown): number | undefined {
  const details = errorObjectOf(body)?.['details'];
  if (!Array.isArray(details)) return undefined;
  const delays = details.map((detail) => toRecord(detail)?.['retryDelay']);
  const delay = delays.find((value) => typeof value === 'string');
  return typeof delay === 'string' ? toDurationMs(delay) : undefined;
}

/** OpenAI counts down (`6m0s`), Anthropic names the moment (RFC 3339). */
const OPENAI_LIMITS = ['requests', 'tokens'];
const ANTHROPIC_LIMITS = ['requests', 'tokens', 'input-tokens', 'output-tokens'];

function fromResets(header: Header, nowMs: number): number | undefined {
  const waits = [
    ...OPENAI_LIMITS.filter((limit) => toNumber(header(`x-ratelimit-remaining-${limit}`)) === 0).map(
      (limit) => toDurationMs(header(`x-ratelimit-reset-${limit}`)),
    ),
    ...ANTHROPIC_LIMITS.filter(
      (limit) => toNumber(header(`anthropic-ratelimit-${limit}-remaining`)) === 0,
    ).map((limit) => fromTime(header(`anthropic-ratelimit-${limit}-reset`), nowMs)),
  ].filter((ms) => ms !== undefined);
  // All of them stand in the way, so the latest counts.
  return waits.length === 0 ? undefined : Math.max(...waits);
}

function fromTime(text: string | undefined, nowMs: number): number | undefined {
  if (text === undefined || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text))
    return undefined;
  const atMs = Date.parse(text);
  return Number.isNaN(atMs) ? undefined : atMs - nowMs;
}

const UNITS_MS: Readonly<Record<string, number>> = {
  d: 86_400_000,
  h: 3_600_000,
  m: 60_000,
  s: 1_000,
  ms: 1,
};

/** A duration as Go writes it: `1s`, `6m0s`, `1h2m3.5s`, `250ms`. */
function toDurationMs(text: string | undefined): number | undefined {
  if (text === undefined || !/^(\d{1,9}(\.\d{1,9})?(ms|[dhms]))+$/.test(text)) return undefined;
  const parts = text.matchAll(/([\d.]+)(ms|[dhms])/g);
  return [...parts].reduce((sum, [, value, unit]) => sum + Number(value) * (UNITS_MS[unit ?? ''] ?? 0), 0);
}
