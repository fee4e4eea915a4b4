// A V8 processor profile, folded to the parts of a program: which folder of Weir or which package a sample was in, its callees not counted.

type ProfileNode = {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string };
};

type Profile = {
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
};

export type Folded = {
  readonly busySeconds: number;
  /** By their share of that, the largest first. */
  readonly parts: readonly { readonly part: string; readonly share: number }[];
};

const IDLE = new Set(['(idle)', '(program)', '(root)']);

/** Where a thread spent the time in which it was not idle. */
export function foldProfile(text: string): Folded {
  const { nodes, samples, timeDeltas } = JSON.parse(text) as Profile; // written by V8
  const partById = new Map(nodes.map(({ id, callFrame }) => [id, partOf(callFrame)]));
  const micros = new Map<string, number>();
  for (const [index, id] of samples.entries()) {
    const part = partById.get(id) ?? '(unknown)';
    if (!IDLE.has(part)) micros.set(part, (micros.get(part) ?? 0) + (timeDeltas[index] ?? 0));
  }
  const total = [...micros.values()].reduce((sum, one) => sum + one, 0);
  const parts = [...micros].map(([part, time]) => ({ part, share: time / total }));
  return { busySeconds: total / 1e6, parts: parts.sort((a, b) => b.share - a.share) };
}

function partOf({ functionName, url }: ProfileNode['callFrame']): string {
  if (url === '') return functionName.startsWith('(') ? functionName : `native ${functionName}`;
  const inPackage = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1];
  if (inPackage !== undefined) return inPackage;
  const own = /\/src\/([^/]+)/.exec(url)?.[1];
  if (own !== undefined) return `weir src/${own}`;
  return url.startsWith('node:') ? `node ${url.split('/').slice(0, 2).join('/')}` : url.replace(/.*\//, '');
}
