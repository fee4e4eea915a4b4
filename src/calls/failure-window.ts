// Calls and failures of the last interval, in a few time slices: what it remembers does not grow with the number of calls.

import { INTERVAL_SLICES } from '../task/breaker.ts';

export type Counts = { readonly calls: number; readonly failures: number };

type Slice = { readonly startsAtMs: number; calls: number; failures: number };

/** `intervalMs` may change at any time. A slice is let go as a whole once it began an interval ago. */
export function createFailureWindow(intervalMs: () => number, now: () => number = () => performance.now()) {
  let slices: Slice[] = [];
  const keepRecent = (at: number) => {
    const oldest = at - intervalMs();
    if (slices[0] !== undefined && slices[0].startsAtMs <= oldest)
      slices = slices.filter((slice) => slice.startsAtMs > oldest);
  };
  return {
    add(failed: boolean): void {
      const at = now();
      const width = intervalMs() / INTERVAL_SLICES;
      let last = slices.at(-1);
      if (last === undefined || at >= last.startsAtMs + width) {
        keepRecent(at);
        last = { startsAtMs: at, calls: 0, failures: 0 };
        slices.push(last);
      }
      last.calls += 1;
      if (failed) last.failures += 1;
    },

    counts(): Counts {
      keepRecent(now());
      return slices.reduce(
        (sum, slice) => ({ calls: sum.calls + slice.calls, failures: sum.failures + slice.failures }),
        { calls: 0, failures: 0 },
      );
    },

    clear(): void {
      slices = [];
    },
  };
}
