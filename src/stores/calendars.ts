// The calendars of limits: one per time zone, each remembering its present windows.

import type { Limit } from '../task/budget.ts';
import { type Calendar, createCalendar, type Interval, type WeekDay } from '../task/window.ts';

export type CalendarSettings = { readonly zone: string; readonly weekStart: WeekDay };

export type Calendars = ReturnType<typeof createCalendars>;

/** `zone` is that of limits without one of their own. */
export function createCalendars(settings: CalendarSettings) {
  const byZone = new Map<string, Calendar>();
  const calendarOf = (zone: string): Calendar => {
    const known = byZone.get(zone) ?? createCalendar(zone, settings.weekStart);
    byZone.set(zone, known);
    return known;
  };
  return {
    /** The window of a limit that a moment lies in. */
    intervalOf: ({ window, zone = settings.zone }: Pick<Limit, 'window' | 'zone'>, atMs: number): Interval =>
      calendarOf(zone).at(window, atMs),
  };
}
