// Puts the methods of a connection or client behind a breaker.

import type { Breaker } from './breaker.ts';

type Methods = Record<string, (...args: unknown[]) => Promise<unknown>>;

/** The same, with its named asynchronous methods going through a breaker; the others stay as they are. */
export function guarded<Target extends object>(
  target: Target,
  breaker: Pick<Breaker, 'run'>,
  methods: readonly (keyof Target & string)[],
): Target {
  const all = target as unknown as Methods; // the caller names asynchronous methods only
  const wrapped = methods.map((name) => [
    name,
    (...args: unknown[]) => breaker.run(async () => all[name]?.(...args)),
  ]);
  return { ...target, ...Object.fromEntries(wrapped) };
}
