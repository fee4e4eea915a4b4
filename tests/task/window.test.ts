// Calendar windows against what the zones' clocks did: every expectation here is a moment in UTC that anybody can look up.

import { describe, expect, it } from 'vitest';
import type { LimitWindow } from '../../src/task/budget.ts';
import {
  ALWAYS,
  createCalendar,
  fromIntervalKey,
  type Interval,
  isZone,
  toIntervalKey,
  WEEK_DAYS,
  type WeekDay,
} from '../../src/task/window.ts';

const HOUR_MS = 3_600_000;
const ms = (iso: string) => Date.parse(iso);
const iso = ({ startMs, endMs }: Interval) =>
  [startMs, endMs].map((at) => new Date(at).toISOString().slice(0, 19));
const windowOf = (zone: string, window: LimitWindow, at: string, weekStart: WeekDay = 'monday') =>
  iso(createCalendar(zone, weekStart).at(window, ms(at)));
const hours = ([start = '', end = '']: string[]) => (ms(`${end}Z`) - ms(`${start}Z`)) / HOUR_MS;

describe('a day', () => {
  it.each([
    ['Europe/Berlin', '2026-03-29T12:00:00Z', '2026-03-28T23:00:00', '2026-03-29T22:00:00', 23],
    ['Europe/Berlin', '2026-10-25T12:00:00Z', '2026-10-24T22:00:00', '2026-10-25T23:00:00', 25],
    ['America/New_York', '2026-03-08T12:00:00Z', '2026-03-08T05:00:00', '2026-03-09T04:00:00', 23],
    ['America/New_York', '2026-11-01T12:00:00Z', '2026-11-01T04:00:00', '2026-11-02T05:00:00', 25],
    ['Australia/Sydney', '2026-10-04T00:00:00Z', '2026-10-03T14:00:00', '2026-10-04T13:00:00', 23],
    ['Australia/Sydney', '2026-04-05T00:00:00Z', '2026-04-04T13:00:00', '2026-04-05T14:00:00', 25],
    // Moved by half an hour only.
    ['Australia/Lord_Howe', '2026-10-04T00:00:00Z', '2026-10-03T13:30:00', '2026-10-04T13:00:00', 23.5],
    ['Australia/Lord_Howe', '2026-04-05T00:00:00Z', '2026-04-04T13:00:00', '2026-04-05T13:30:00', 24.5],
    // Midnight did not exist: the clock went from 23:59:59 to 01:00.
    ['America/Sao_Paulo', '2018-11-04T12:00:00Z', '2018-11-04T03:00:00', '2018-11-05T02:00:00', 23],
    ['Asia/Beirut', '2026-03-29T12:00:00Z', '2026-03-28T22:00:00', '2026-03-29T21:00:00', 23],
    ['Africa/Cairo', '2024-04-26T12:00:00Z', '2024-04-25T22:00:00', '2024-04-26T21:00:00', 23],
    ['America/Havana', '2026-03-08T12:00:00Z', '2026-03-08T05:00:00', '2026-03-09T04:00:00', 23],
    // The hour before midnight came twice: 24:00 became 23:00 …
    ['America/Sao_Paulo', '2018-02-17T12:00:00Z', '2018-02-17T02:00:00', '2018-02-18T03:00:00', 25],
    ['Asia/Beirut', '2026-10-24T12:00:00Z', '2026-10-23T21:00:00', '2026-10-24T22:00:00', 25],
    ['Africa/Cairo', '2024-10-31T12:00:00Z', '2024-10-30T21:00:00', '2024-10-31T22:00:00', 25],
    // … and so did the hour after midnight.
    ['America/Havana', '2026-11-01T12:00:00Z', '2026-11-01T04:00:00', '2026-11-02T05:00:00', 25],
    ['Asia/Kolkata', '2026-06-01T12:00:00Z', '2026-05-31T18:30:00', '2026-06-01T18:30:00', 24],
    ['Asia/Kathmandu', '2026-06-01T12:00:00Z', '2026-05-31T18:15:00', '2026-06-01T18:15:00', 24],
    ['Pacific/Kiritimati', '2026-06-01T12:00:00Z', '2026-06-01T10:00:00', '2026-06-02T10:00:00', 24],
    ['Pacific/Niue', '2026-06-01T12:00:00Z', '2026-06-01T11:00:00', '2026-06-02T11:00:00', 24],
  ])('in %s at %s is from %s to %s: %d hours', (zone, at, start, end, length) => {
    const day = windowOf(zone, 'day', at);
    expect(day).toEqual([start, end]);
    expect(hours(day)).toBe(length);
  });

  it('is entered in the very millisecond in which it begins, on the days on which clocks are moved', () => {
    for (const [zone, at] of [
      ['Europe/Berlin', '2026-10-24T22:00:00Z'],
      ['America/Sao_Paulo', '2018-11-04T03:00:00Z'],
      ['Asia/Beirut', '2026-10-24T22:00:00Z'],
    ] as const) {
      expect(windowOf(zone, 'day', at)[0]).toBe(at.slice(0, 19));
      const before = createCalendar(zone, 'monday').at('day', ms(at) - 1);
      expect(before.endMs).toBe(ms(at));
    }
  });

  it('that a zone left out has no window: the days beside it meet', () => {
    // Samoa went from the 29th to the 31st of December 2011.
    expect(windowOf('Pacific/Apia', 'day', '2011-12-30T09:59:59Z')).toEqual([
      '2011-12-29T10:00:00',
      '2011-12-30T10:00:00',
    ]);
    expect(windowOf('Pacific/Apia', 'day', '2011-12-30T10:00:00Z')).toEqual([
      '2011-12-30T10:00:00',
      '2011-12-31T10:00:00',
    ]);
    expect(hours(windowOf('Pacific/Apia', 'week', '2011-12-30T10:00:00Z'))).toBe(6 * 24);
    expect(hours(windowOf('Pacific/Apia', 'month', '2011-12-30T10:00:00Z'))).toBe(30 * 24);
  });

  it('begins once where the clock is set back over midnight from a minute past it', () => {
    // St John's, 2010-11-07: 00:00:59 was followed by 23:01 of the day before.
    // A calendar of its own each time, since one remembers the day that it is in.
    const dayAt = (at: number) => createCalendar('America/St_Johns', 'monday').at('day', at);
    const starts = Array.from(
      { length: 180 },
      (_, minute) => dayAt(ms('2010-11-07T01:30:30Z') + minute * 60_000).startMs,
    );
    expect(new Set(starts).size).toBe(2);
    expect(starts).toEqual(starts.toSorted());
  });
});

describe('a week', () => {
  it.each(WEEK_DAYS.map((day, index) => [day, index] as const))(
    'begins on %s where that was asked for',
    (day, index) => {
      for (let ahead = 0; ahead < 14; ahead++) {
        const at = ms('2026-02-20T15:00:00Z') + ahead * 24 * HOUR_MS;
        const { startMs, endMs } = createCalendar('UTC', day).at('week', at);
        expect(new Date(startMs).getUTCDay()).toBe(index);
        expect(startMs % (24 * HOUR_MS)).toBe(0);
        expect(endMs - startMs).toBe(7 * 24 * HOUR_MS);
        expect(startMs <= at && at < endMs).toBe(true);
      }
    },
  );

  it.each([
    ['Europe/Berlin', '2026-03-27T12:00:00Z', '2026-03-22T23:00:00', '2026-03-29T22:00:00', 167],
    ['Europe/Berlin', '2026-10-25T22:59:59Z', '2026-10-18T22:00:00', '2026-10-25T23:00:00', 169],
    ['America/New_York', '2026-03-08T12:00:00Z', '2026-03-02T05:00:00', '2026-03-09T04:00:00', 167],
    ['UTC', '2027-01-01T00:00:00Z', '2026-12-28T00:00:00', '2027-01-04T00:00:00', 168],
  ])('in %s at %s is from %s to %s: %d hours', (zone, at, start, end, length) => {
    const week = windowOf(zone, 'week', at);
    expect(week).toEqual([start, end]);
    expect(hours(week)).toBe(length);
  });

  it('begins by the date of the zone, not by that of UTC', () => {
    // Monday in Auckland, Sunday in London.
    expect(windowOf('Pacific/Auckland', 'week', '2026-06-07T12:30:00Z')[0]).toBe('2026-06-07T12:00:00');
    expect(windowOf('Europe/London', 'week', '2026-06-07T12:30:00Z')[0]).toBe('2026-05-31T23:00:00');
  });
});

describe('a month', () => {
  it.each([
    ['UTC', '2026-01-31T23:59:59.999Z', '2026-01-01T00:00:00', '2026-02-01T00:00:00', 31],
    ['UTC', '2026-02-28T23:59:59.999Z', '2026-02-01T00:00:00', '2026-03-01T00:00:00', 28],
    ['UTC', '2028-02-29T12:00:00Z', '2028-02-01T00:00:00', '2028-03-01T00:00:00', 29],
    ['UTC', '2100-02-10T00:00:00Z', '2100-02-01T00:00:00', '2100-03-01T00:00:00', 28],
    ['UTC', '2000-02-29T00:00:00Z', '2000-02-01T00:00:00', '2000-03-01T00:00:00', 29],
    ['UTC', '2026-12-31T23:59:59.999Z', '2026-12-01T00:00:00', '2027-01-01T00:00:00', 31],
    ['Asia/Tokyo', '2026-12-31T15:00:00Z', '2026-12-31T15:00:00', '2027-01-31T15:00:00', 31],
    ['America/Los_Angeles', '2027-01-01T07:59:59Z', '2026-12-01T08:00:00', '2027-01-01T08:00:00', 31],
    ['Asia/Kathmandu', '2028-02-29T18:14:59Z', '2028-01-31T18:15:00', '2028-02-29T18:15:00', 29],
  ])('in %s at %s is from %s to %s: %d days', (zone, at, start, end, days) => {
    const month = windowOf(zone, 'month', at);
    expect(month).toEqual([start, end]);
    expect(hours(month)).toBe(days * 24);
  });

  it('is an hour shorter or longer where the clocks are moved in it', () => {
    expect(hours(windowOf('Europe/Berlin', 'month', '2026-03-15T00:00:00Z'))).toBe(31 * 24 - 1);
    expect(hours(windowOf('Europe/Berlin', 'month', '2026-10-15T00:00:00Z'))).toBe(31 * 24 + 1);
  });
});

describe('an hour', () => {
  it.each([
    ['UTC', '2026-06-01T12:59:59.999Z', '2026-06-01T12:00:00', '2026-06-01T13:00:00'],
    ['Asia/Kolkata', '2026-06-01T12:29:59Z', '2026-06-01T11:30:00', '2026-06-01T12:30:00'],
    ['Asia/Kolkata', '2026-06-01T12:30:00Z', '2026-06-01T12:30:00', '2026-06-01T13:30:00'],
    ['Asia/Kathmandu', '2026-06-01T12:14:59Z', '2026-06-01T11:15:00', '2026-06-01T12:15:00'],
    ['America/St_Johns', '2026-06-01T12:29:59Z', '2026-06-01T11:30:00', '2026-06-01T12:30:00'],
    // The two hours from 2 to 3 of that night are two windows.
    ['Europe/Berlin', '2026-10-25T00:30:00Z', '2026-10-25T00:00:00', '2026-10-25T01:00:00'],
    ['Europe/Berlin', '2026-10-25T01:30:00Z', '2026-10-25T01:00:00', '2026-10-25T02:00:00'],
    // Set back by half an hour at 02:00, set ahead by half an hour at 02:00: the hour after it is short.
    ['Australia/Lord_Howe', '2026-04-04T14:59:59Z', '2026-04-04T14:00:00', '2026-04-04T15:00:00'],
    ['Australia/Lord_Howe', '2026-04-04T15:00:00Z', '2026-04-04T15:00:00', '2026-04-04T15:30:00'],
    ['Australia/Lord_Howe', '2026-10-03T15:29:59Z', '2026-10-03T14:30:00', '2026-10-03T15:30:00'],
    ['Australia/Lord_Howe', '2026-10-03T15:30:00Z', '2026-10-03T15:30:00', '2026-10-03T16:00:00'],
    // Pyongyang gave up half an hour at midnight, in the middle of a year; the next year begins on its half hours.
    ['Asia/Pyongyang', '2015-08-14T15:00:00Z', '2015-08-14T15:00:00', '2015-08-14T15:30:00'],
    ['Asia/Pyongyang', '2015-12-31T23:45:00Z', '2015-12-31T23:30:00', '2016-01-01T00:30:00'],
  ])('in %s at %s is from %s to %s', (zone, at, start, end) => {
    expect(windowOf(zone, 'hour', at)).toEqual([start, end]);
  });
});

describe('windows', () => {
  const ZONES = Intl.supportedValuesOf('timeZone');
  const KINDS = ['hour', 'day', 'week', 'month'] as const;

  it('tile the time line, in any zone, at any moment, with any week', () => {
    const below = seeded(20_261_124);
    for (let round = 0; round < 200; round++) {
      const zone = ZONES[below(ZONES.length)] ?? 'UTC';
      const weekStart = WEEK_DAYS[below(7)] ?? 'monday';
      const at = ms('1990-01-01T00:00:00Z') + below(50 * 365 * 24) * HOUR_MS + below(HOUR_MS);
      for (const kind of KINDS) expectTiles(zone, weekStart, kind, at);
    }
  });

  it('tile the hours around every time that clocks were moved', () => {
    const zones = [
      ['Australia/Lord_Howe', 2019, 2020],
      ['America/St_Johns', 2010, 2012],
      ['Antarctica/Casey', 2009, 2012],
      ['Pacific/Apia', 2011, 2012],
      ['Asia/Pyongyang', 2015, 2019],
      ['America/Caracas', 2016, 2017],
      ['Africa/Cairo', 2014, 2015],
    ] as const;
    for (const [zone, fromYear, toYear] of zones)
      for (const changeMs of changesOf(zone, fromYear, toYear))
        for (const kind of ['hour', 'day'] as const)
          for (const minutes of [-31, -1, 0, 1, 29, 59])
            expectTiles(zone, 'monday', kind, changeMs + minutes * 60_000);
  });

  it('are found again after two months of sleep, from whatever was remembered before', () => {
    const calendar = createCalendar('Europe/Berlin', 'monday');
    for (const kind of KINDS) {
      const asleep = calendar.at(kind, ms('2026-03-01T10:00:00Z'));
      const awake = calendar.at(kind, ms('2026-05-01T10:00:00Z'));
      expect(asleep.endMs).toBeLessThan(awake.startMs + 1);
      expect(awake).toEqual(createCalendar('Europe/Berlin', 'monday').at(kind, ms('2026-05-01T10:00:00Z')));
      expect(calendar.at(kind, ms('2026-03-01T10:00:00Z'))).toEqual(asleep);
    }
  });

  it('turn once, and in the right place, for twenty requests on the boundary', () => {
    const calendar = createCalendar('Europe/Berlin', 'monday');
    const midnight = ms('2026-10-25T23:00:00Z');
    const starts = Array.from(
      { length: 20 },
      (_, index) => calendar.at('day', midnight - 10 + index).startMs,
    );
    expect(starts).toEqual([
      ...Array.from({ length: 10 }, () => ms('2026-10-24T22:00:00Z')),
      ...Array.from({ length: 10 }, () => midnight),
    ]);
  });

  it('of all time are one', () => {
    expect(createCalendar('Asia/Tokyo', 'sunday').at('total', 5)).toBe(ALWAYS);
  });
});

describe('the key of an interval', () => {
  it('is read back as the interval', () => {
    const day = createCalendar('Asia/Kathmandu', 'monday').at('day', ms('2026-06-01T12:00:00Z'));
    expect(toIntervalKey(day)).toBe('1780251300000-1780337700000');
    for (const interval of [day, ALWAYS]) expect(fromIntervalKey(toIntervalKey(interval))).toEqual(interval);
    expect(toIntervalKey(ALWAYS)).toBe('all');
  });

  it.each(['', 'ever', '5', '5-', '-5', '7-5', '5-5', 'a-b'])('is not %j', (key) => {
    expect(() => fromIntervalKey(key)).toThrow('not the name of an interval');
  });
});

describe('isZone', () => {
  it.each([
    'UTC',
    'Europe/Berlin',
    'america/argentina/buenos_aires',
    'Etc/GMT+5',
    'Asia/Calcutta',
    'Asia/Kolkata',
  ])('knows %s', (zone) => {
    expect(isZone(zone)).toBe(true);
  });

  it.each(['', ' ', 'Europe/Atlantis', '+02:00', '-05', 'UTC+1', 'Europe/Berlin ', 'local', '__proto__'])(
    'does not know %j',
    (zone) => {
      expect(isZone(zone)).toBe(false);
    },
  );
});

function expectTiles(zone: string, weekStart: WeekDay, kind: LimitWindow, at: number): void {
  const calendar = createCalendar(zone, weekStart);
  const found = calendar.at(kind, at);
  const told = `${kind} of ${zone} at ${new Date(at).toISOString()}, weeks from ${weekStart}`;
  expect(found.startMs <= at && at < found.endMs, told).toBe(true);
  // A calendar of its own each time: what another one remembers must not decide.
  expect(createCalendar(zone, weekStart).at(kind, found.startMs), told).toEqual(found);
  expect(createCalendar(zone, weekStart).at(kind, found.endMs - 1), told).toEqual(found);
  expect(createCalendar(zone, weekStart).at(kind, found.endMs).startMs, told).toBe(found.endMs);
}

/** When a zone's clocks were moved, to the minute: where an hour of UTC is not an hour later on the clock. */
function changesOf(zone: string, fromYear: number, toYear: number): number[] {
  const format = new Intl.DateTimeFormat('en-US', { timeZone: zone, timeZoneName: 'longOffset' });
  const name = (at: number) => format.formatToParts(at).find(({ type }) => type === 'timeZoneName')?.value;
  const changes: number[] = [];
  const step = 24 * HOUR_MS;
  for (let at = Date.UTC(fromYear, 0, 1); at < Date.UTC(toYear, 0, 1); at += step) {
    if (name(at) === name(at + step)) continue;
    let [before, after] = [at, at + step];
    while (after - before > 1_000) {
      const middle = Math.floor((before + after) / 2);
      if (name(middle) === name(at)) before = middle;
      else after = middle;
    }
    changes.push(Math.round(after / 60_000) * 60_000);
  }
  return changes;
}

/** Whole numbers below a bound (mulberry32): a run that fails can be run again. */
function seeded(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  };
}
