// How much processor time a process has used, all its threads together. Linux tells it; elsewhere the figure is missing.

import { readFile } from 'node:fs/promises';

/** Ticks of `/proc` are hundredths of a second on every Linux that Node runs on. */
const MS_PER_TICK = 10;
const [USER, SYSTEM] = [11, 12];

/** Milliseconds; NaN where it cannot be told. */
export async function cpuMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The name of the program stands in brackets and may hold anything.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[USER] ?? Number.NaN) + Number(fields[SYSTEM] ?? Number.NaN)) * MS_PER_TICK;
}
