// Durations as people write them. They become milliseconds here, once, and are integers everywhere else.

const UNITS_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

const DURATION = /^(\d{1,12}(?:\.\d{1,3})?)(ms|s|m|h|d)$/;

/** `250ms`, `5s`, `1.5m`, `24h`, `30d` in milliseconds; undefined for anything else, a bare number above all, and for broken milliseconds. */
export function parseDuration(text: string): number | undefined {
  const match = DURATION.exec(text);
  if (match === null) return undefined;
  const unit = match[2] as keyof typeof UNITS_MS; // the expression knows no other units
  const ms = Number(match[1]) * UNITS_MS[unit];
  const whole = Math.round(ms);
  // 1.1s is 1100.0000000000002 as a double; 0.0001s is no whole millisecond.
  return Math.abs(ms - whole) < 1e-6 ? whole : undefined;
}

/** Milliseconds as people write them, in the largest unit that keeps them whole. */
export function formatDuration(ms: number): string {
  const unit =
    (['d', 'h', 'm', 's'] as const).find((candidate) => ms > 0 && ms % UNITS_MS[candidate] === 0) ?? 'ms';
  return `${ms / UNITS_MS[unit]}${unit}`;
}
