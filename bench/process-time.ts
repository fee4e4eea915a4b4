// How much processor time a process and its children have used, all their threads together. Linux tells it; elsewhere the figure is missing.

import { readdir, readFile } from 'node:fs/promises';

/** Ticks of `/proc` are hundredths of a second on every Linux that Node runs on. */
const MS_PER_TICK = 10;
const PARENT = 1;
/** User and system time of a process, and of its children that have ended. */
const OWN = [11, 12];
const ENDED = [13, 14];

/** Milliseconds; NaN where it cannot be told. */
export async function cpuMs(pid: number): Promise<number> {
  const own = await statOf(String(pid));
  if (own === undefined) return Number.NaN;
  const names = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const all = await Promise.all(names.map(statOf));
  const children = all.filter((stat) => Number(stat?.[PARENT]) === pid);
  const ticks = [ticksOf(own, [...OWN, ...ENDED]), ...children.map((stat) => ticksOf(stat, OWN))];
  return ticks.reduce((sum, one) => sum + one * MS_PER_TICK, 0);
}

/** The fields behind the name of the program, which stands in brackets and may hold anything. */
async function statOf(pid: string): Promise<readonly string[] | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
}

function ticksOf(stat: readonly string[] | undefined, fields: readonly number[]): number {
  return fields.reduce((sum, field) => sum + Number(stat?.[field] ?? 0), 0);
}
