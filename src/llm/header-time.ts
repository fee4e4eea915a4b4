// Numbers and times as strangers write them in headers. Pure; what is not a sensible value is undefined, never a guess.

/** The part of `Headers` that is read; names are looked up without regard to case. */
export type HeaderLookup = { get(name: string): string | null };

/** A header by its name, without surrounding space; undefined when it is absent or empty. */
export type Header = (name: string) => string | undefined;

export function headerOf(headers: HeaderLookup | undefined): Header {
  return (name) => headers?.get(name)?.trim() || undefined;
}

/** A plain decimal that is not negative. */
export function toNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}(\.\d{1,9})?$/.test(text) ? Number(text) : undefined;
}

const UNITS_MS: Readonly<Record<string, number>> = {
  d: 86_400_000,
  h: 3_600_000,
  m: 60_000,
  s: 1_000,
  ms: 1,
};

/** A duration as Go writes it, in milliseconds: `1s`, `6m0s`, `1h2m3.5s`, `250ms`. */
export function toDurationMs(text: string | undefined): number | undefined {
  if (text === undefined || !/^(\d{1,9}(\.\d{1,9})?(ms|[dhms]))+$/.test(text)) return undefined;
  const parts = text.matchAll(/([\d.]+)(ms|[dhms])/g);
  return [...parts].reduce((sum, [, value, unit]) => sum + Number(value) * (UNITS_MS[unit ?? ''] ?? 0), 0);
}

/** HTTP's own form of a date (`Wed, 21 Oct 2026 07:28:00 GMT`), as ms since 1970: Date.parse takes `-1` for a year. */
export function toHttpDateMs(text: string | undefined): number | undefined {
  if (text === undefined || !/^[A-Z][a-z]{2}, .+ GMT$/.test(text)) return undefined;
  return validMs(text);
}

/** RFC 3339 (`2026-10-21T07:28:00Z`), as ms since 1970. */
function toTimeMs(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text))
    return undefined;
  return validMs(text);
}

/** From here on a number cannot be meant as seconds until something happens. */
const FIRST_EPOCH_SECONDS = 1e9;
const FIRST_EPOCH_MS = 1e12;

/** Until a reset, in milliseconds, by any of: seconds, a moment in seconds or ms since 1970, a duration, a date. Negative when it is over. */
export function toResetMs(text: string | undefined, nowMs: number): number | undefined {
  const value = toNumber(text);
  if (value !== undefined) {
    if (value >= FIRST_EPOCH_MS) return value - nowMs;
    return value >= FIRST_EPOCH_SECONDS ? value * 1_000 - nowMs : value * 1_000;
  }
  const atMs = toHttpDateMs(text) ?? toTimeMs(text);
  return atMs === undefined ? toDurationMs(text) : atMs - nowMs;
}

/** The provider's own clock where it says it, so that its dates mean what it means, however wrong the clock here may be. */
export function providerNowMs(header: Header, nowMs: number): number {
  return toHttpDateMs(header('date')) ?? nowMs;
}

function validMs(text: string): number | undefined {
  const atMs = Date.parse(text);
  return Number.isNaN(atMs) ? undefined : atMs;
}
