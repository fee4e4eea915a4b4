// Clocks, timers and chance of the code under test, answered by the run that the code belongs to. Many runs share one thread; the
// asynchronous context says whose turn it is. Whoever is in no run keeps the real ones.

import { AsyncLocalStorage } from 'node:async_hooks';

/** What a process of a run sees of the world. */
export type Surroundings = {
  /** Its own clock, which may differ from the servers'. Milliseconds since 1970. */
  nowMs(): number;
  monotonicMs(): number;
  random(): number;
  /** Answers what ends the timer. */
  startTimer(ms: number, work: () => void, repeat: boolean): () => void;
};

const current = new AsyncLocalStorage<Surroundings>();

/** Runs work, and whatever it starts, as a part of a run. */
export function within<Result>(surroundings: Surroundings, work: () => Result): Result {
  return current.run(surroundings, work);
}

/** Runs work outside of any run: what the run's own machinery asks of real servers. */
export function outside<Result>(work: () => Result): Result {
  return current.exit(work);
}

class VirtualTimer {
  readonly stop: () => void;

  constructor(stop: () => void) {
    this.stop = stop;
  }
}

/** Replaces the globals until disposed. Only one at a time. */
export function installVirtualTime(): Disposable {
  const real = {
    now: Date.now,
    random: Math.random,
    monotonic: performance.now,
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
    setInterval: globalThis.setInterval,
    clearInterval: globalThis.clearInterval,
  };
  Date.now = () => current.getStore()?.nowMs() ?? real.now.call(Date);
  Math.random = () => current.getStore()?.random() ?? real.random.call(Math);
  performance.now = () => current.getStore()?.monotonicMs() ?? real.monotonic.call(performance);
  type Work = (...args: unknown[]) => void;
  const start =
    (repeat: boolean, otherwise: (...args: never[]) => unknown) =>
    (work: Work, ms = 0, ...args: unknown[]): unknown => {
      const surroundings = current.getStore();
      if (surroundings === undefined) return (otherwise as (...all: unknown[]) => unknown)(work, ms, ...args);
      return new VirtualTimer(
        surroundings.startTimer(ms, () => within(surroundings, () => work(...args)), repeat),
      );
    };
  const stop = (otherwise: (handle: never) => void) => (handle: unknown) => {
    if (handle instanceof VirtualTimer) handle.stop();
    else otherwise(handle as never);
  };
  Object.assign(globalThis, {
    setTimeout: start(false, real.setTimeout),
    setInterval: start(true, real.setInterval),
    clearTimeout: stop(real.clearTimeout),
    clearInterval: stop(real.clearInterval),
  });
  return {
    [Symbol.dispose]() {
      Date.now = real.now;
      Math.random = real.random;
      performance.now = real.monotonic;
      const { setTimeout, clearTimeout, setInterval, clearInterval } = real;
      Object.assign(globalThis, { setTimeout, clearTimeout, setInterval, clearInterval });
    },
  };
}
