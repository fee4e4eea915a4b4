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

/** Whether the runtime knows a time zone of this IANA name. A bare offset such as +02:00, which Intl takes as well, is no name. */
export function isZone(name: string): boolean {
  if (!/^[A-Za-z]/.test(name)) return false;
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

/** Reads what `toIntervalKey` wrote. */
export function fromIntervalKey(key: string): Interval {
  if (key === 'all') return ALWAYS;
  const [startMs = 0, endMs = 0] = (/^(\d+)-(\d+)$/.exec(key) ?? []).slice(1).map(Number);
  if (startMs >= endMs) throw new Error(`not the name of an interval: ${key}`);
  return { startMs, endMs };
}

/** How many intervals of a kind are remembered: a hold asks for the present one and for the next. */
const REMEMBERED = 4;

/** Windows of one IANA zone. It remembers the last intervals of each kind, since finding one asks the zone some thirty times. */
export function createCalendar(zone: string, weekStart: WeekDay): Calendar {
  const format = formatOf(zone);
  const offset = (atMs: number) => offsetMs(format, atMs);
  const last = new Map<LimitWindow, readonly Interval[]>();
  return {
    at(window, atMs) {
      if (window === 'total') return ALWAYS;
      const recent = last.get(window) ?? [];
      const known = recent.find(({ startMs, endMs }) => startMs <= atMs && atMs < endMs);
      if (known !== undefined) return known;
      const found = window === 'hour' ? hourAt(offset, atMs) : daysAt(offset, window, weekStart, atMs);
      last.set(window, [found, ...recent].slice(0, REMEMBERED));
      return found;
    },
  };
}

/** What a zone's clocks show beyond UTC at a moment, in milliseconds. */
type Offset = (atMs: number) => number;

/**
 * Hours begin on the zone's full hours. Where its clocks are moved by no whole number of hours (Lord Howe, and every zone that ever
 * changed its offset by half an hour), the hour under way is cut off and the next one begins, short, with the new time.
 */
function hourAt(offset: Offset, atMs: number): Interval {
  const shiftMs = offset(atMs) % HOUR_MS;
  const startMs = Math.floor((atMs + shiftMs) / HOUR_MS) * HOUR_MS - shiftMs;
  const endMs = startMs + HOUR_MS;
  const isOfAnother = (ms: number) => (offset(ms) - shiftMs) % HOUR_MS !== 0;
  return {
    startMs: isOfAnother(startMs) ? firstMoment((ms) => !isOfAnother(ms), startMs, atMs) : startMs,
    endMs: isOfAnother(endMs - 1) ? firstMoment(isOfAnother, atMs, endMs - 1) : endMs,
  };
}

/**
 * Near midnight the clock alone does not tell the day: where it is set back from a minute past midnight (St John's until 2011) it
 * shows yesterday again. A day begins once, so there the neighbours are looked at as well.
 */
function daysAt(
  offset: Offset,
  window: 'day' | 'week' | 'month',
  weekStart: WeekDay,
  atMs: number,
): Interval {
  // The local date as if it were one in UTC, so that days can be counted without a zone.
  const today = Math.floor((atMs + offset(atMs)) / DAY_MS) * DAY_MS;
  const dateOf = datesFrom(window, weekStart, today);
  for (const ahead of [0, -1, 1]) {
    const startMs = startOfDay(offset, dateOf(ahead));
    const endMs = startOfDay(offset, dateOf(ahead + 1));
    if (startMs <= atMs && atMs < endMs) return { startMs, endMs };
  }
  throw new Error(`no ${window} of the zone holds the moment ${atMs}`);
}

/** The first date of the period that a date lies in, and of those so many periods ahead of it. */
function datesFrom(
  window: 'day' | 'week' | 'month',
  weekStart: WeekDay,
  today: number,
): (ahead: number) => number {
  const date = new Date(today);
  if (window === 'month') return (ahead) => Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + ahead, 1);
  if (window === 'day') return (ahead) => today + ahead * DAY_MS;
  const since = (date.getUTCDay() - WEEK_DAYS.indexOf(weekStart) + 7) % 7;
  return (ahead) => today + (7 * ahead - since) * DAY_MS;
}

/**
 * The first moment of a local date, given as its midnight in UTC. Looked for, because midnight may not exist (the clock jumps over
 * it), may come twice, or a whole date may be missing. No zone is further than 16 hours from UTC.
 */
function startOfDay(offset: Offset, date: number): number {
  return firstMoment((ms) => ms + offset(ms) >= date, date - 16 * HOUR_MS, date + 16 * HOUR_MS);
}

/** Bisects for the moment from which on something holds: it does not at `before`, and does at `from`. */
function firstMoment(holds: (ms: number) => boolean, before: number, from: number): number {
  let [without, withIt] = [before, from];
  while (withIt - without > 1) {
    const middle = Math.floor((without + withIt) / 2);
    if (holds(middle)) withIt = middle;
    else without = middle;
  }
  return withIt;
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
