// The readers of `fan-out --drops`, in a process of their own: each is cut off many times, and tells in the end what it has.

import { type Read, readDropped } from '../tests/support/dropped-reader.ts';

export type DroppedOrder = {
  readonly path: string;
  readonly readers: number;
  readonly drops: number;
  readonly livesMs: number;
};

/** Readers that have the same are told once. */
export type DroppedReport = readonly {
  readonly milestones: readonly string[];
  readonly texts: readonly (readonly [call: string, text: string])[];
  readonly resets: number;
  readonly readers: number;
  readonly drops: number;
}[];

const port = Number(process.argv[2]);

process.on('message', (order: DroppedOrder) => void readAll(order));
process.on('disconnect', () => process.exit(0));
process.send?.('ready');

async function readAll({ path, readers, drops, livesMs }: DroppedOrder): Promise<void> {
  const options = { port, path, drops, livesMs };
  const reads = await Promise.all(Array.from({ length: readers }, () => readDropped(options)));
  const same = new Map<string, Read[]>();
  for (const read of reads) {
    const key = JSON.stringify([read.milestones, [...read.texts]]);
    same.set(key, [...(same.get(key) ?? []), read]);
  }
  const report: DroppedReport = [...same.values()].map((group) => ({
    milestones: group[0]?.milestones ?? [],
    texts: [...(group[0]?.texts ?? [])],
    resets: group.reduce((sum, { resets }) => sum + resets, 0),
    readers: group.length,
    drops: group.reduce((sum, one) => sum + one.drops, 0),
  }));
  process.send?.(report);
}
