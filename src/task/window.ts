// Calendar windows of limits: which stretch of time a moment belongs to, and the one after it. Lua knows no time zones, so this is the
// only place that does. Windows of one kind tile the time line: each ends where the next begins. Pure.

import type { LimitWindow } from './budget.ts';

/** Half open, in milliseconds since 1970 UTC. `total` is from 0 to Infinity. */
export type Interval = { readonly startMs: number; readonly endMs: number };

export const WEEK_DAYS = [
  'sunday',
  'monday',
  'tuesday',
  'wednesday',
  'thursday',
  'friday',
  'saturday',
] as const;
export type WeekDay = (typeof WEEK_DAYS)[number];

export const ALWAYS: Interval = { startMs: 0, endMs: Number.POSITIVE_INFINITY };

export type Calendar = {
  /** The window of a kind that a moment lies in. */
  at(window: LimitWindow, atMs: number): Interval;
};

const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;

/** Whether the runtime knows a time zone of this IANA name. */
export function isZone(name: string): boolean {
  try {
    formatOf(name);
    return true;
  } catch {
    return false; // RangeError is how Intl says that there is no such zone
  }
}

/** The name of an interval in keys and rows: `all`, or `<start>-<end>` in milliseconds. */
export function toIntervalKey(interval: Interval): string {
  return interval.endMs === Number.POSITIVE_INFINITY ? 'all' : `${interval.startMs}-${interval.endMs}`;
}

/** Windows of one IANA zone. It remembers the last interval of each kind, since finding one asks the zone some thirty times. */
export function createCalendar(zone: string, weekStart: WeekDay): Calendar {
  const format = formatOf(zone);
  const offset = (atMs: number) => offsetMs(format, atMs);
  const last = new Map<LimitWindow, Interval>();
  return {
    at(window, atMs) {
      if (window === 'total') return ALWAYS;
      const known = last.get(window);
      if (known !== undefined && known.startMs <= atMs && atMs < known.endMs) return known;
      const found = window === 'hour' ? hourAt(offset, atMs) : daysAt(offset, window, weekStart, atMs);
      last.set(window, found);
      return found;
    },
  };
}

/** What a zone's clocks show beyond UTC at a moment, in milliseconds. */
type Offset = (atMs: number) => number;

/**
 * Hours begin on the zone's full hours, by its offset at the beginning of the year: a shift of half an hour (Lord Howe) would
 * otherwise make two hours overlap.
 */
function hourAt(offset: Offset, atMs: number): Interval {
  const shiftMs = offset(Date.UTC(new Date(atMs).getUTCFullYear(), 0, 1)) % HOUR_MS;
  const startMs = Math.floor((atMs + shiftMs) / HOUR_MS) * HOUR_MS - shiftMs;
  return { startMs, endMs: startMs + HOUR_MS };
}

function daysAt(
  offset: Offset,
  window: 'day' | 'week' | 'month',
  weekStart: WeekDay,
  atMs: number,
): Interval {
  // The local date as if it were one in UTC, so that days can be counted without a zone.
  const today = Math.floor((atMs + offset(atMs)) / DAY_MS) * DAY_MS;
  const date = new Date(today);
  if (window === 'month') {
    const month = (ahead: number) => Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + ahead, 1);
    return { startMs: startOfDay(offset, month(0)), endMs: startOfDay(offset, month(1)) };
  }
  const days = window === 'day' ? 1 : 7;
  const since = window === 'day' ? 0 : (date.getUTCDay() - WEEK_DAYS.indexOf(weekStart) + 7) % 7;
  const first = today - since * DAY_MS;
  return { startMs: startOfDay(offset, first), endMs: startOfDay(offset, first + days * DAY_MS) };
}

/**
 * The first moment of a local date, given as its midnight in UTC. Bisected, because midnight may not exist (the clock jumps over it),
 * may come twice, or a whole date may be missing.
 */
function startOfDay(offset: Offset, date: number): number {
  let before = date - 16 * HOUR_MS;
  let from = date + 16 * HOUR_MS;
  while (from - before > 1) {
    const middle = Math.floor((before + from) / 2);
    if (middle + offset(middle) >= date) from = middle;
    else before = middle;
  }
  return from;
}

function offsetMs(format: Intl.DateTimeFormat, atMs: number): number {
  const second = Math.floor(atMs / 1000) * 1000;
  const parts = Object.fromEntries(
    format.formatToParts(second).map(({ type, value }) => [type, Number(value)]),
  );
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second: seconds = 0 } = parts;
  return Date.UTC(year, month - 1, day, hour, minute, seconds) - second;
}

function formatOf(zone: string): Intl.DateTimeFormat {
  return new Intl.DateTimeFormat('en-US', {
    timeZone: zone,
    hourCycle: 'h23',
    calendar: 'gregory',
    numberingSystem: 'latn',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  });
}
