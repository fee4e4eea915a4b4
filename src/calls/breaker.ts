// A circuit breaker around one dependency of this process. It is asked before anything is held. Closed, it counts; open, it refuses
// without calling; half open, it lets a few calls try.

import type { BreakerSettings, BreakerState } from '../task/breaker.ts';
import { BreakerMachine, type Entry, FREE_ENTRY } from './breaker-machine.ts';
import type { Counts } from './failure-window.ts';

export type Breaker = {
  readonly name: string;
  readonly state: BreakerState;
  readonly changedAt: Date | undefined;
  /** Calls and failures that this process saw within the interval. */
  readonly counts: Counts;
  /** How long until a call may try again; 0 when one may now. Milliseconds. */
  retryAfterMs(): number;
  /** Asks for leave to call. A pass must be ended, whatever becomes of the call: a half-open breaker waits for it. */
  enter(): Promise<Entry>;
  /**
   * Runs the work, or throws `BreakerOpen` without running it. `isFailure` says which of the work's errors speak against the dependency;
   * without it those that the breaker was made with.
   */
  run<Result>(work: () => Promise<Result>, isFailure?: (error: unknown) => boolean): Promise<Result>;
};

export class BreakerOpen extends Error {
  /** Which one: each stands before another server. */
  readonly breaker: string;
  readonly retryAfterMs: number;

  constructor(name: string, retryAfterMs: number) {
    super(`the breaker of ${name} is open, next try in ${retryAfterMs} ms`);
    this.name = 'BreakerOpen';
    this.breaker = name;
    this.retryAfterMs = retryAfterMs;
  }
}

export type BreakerOptions = {
  readonly isFailure: (error: unknown) => boolean;
  readonly onChange: (name: string, state: BreakerState) => void;
  /** A try of a half-open breaker that takes longer has failed. Above the time limit of any call. Milliseconds. */
  readonly hangMs: number;
};

/**
 * Settings are read anew for every call. Opens at `failureThreshold` failures within the interval when they are three tenths of the calls;
 * half open after the timeout, it lets `maxRequests` calls try at a time, closes after `successThreshold` successes, opens on a failure.
 */
export function createBreaker(
  name: string,
  settingsOf: () => BreakerSettings,
  options: BreakerOptions,
): Breaker {
  const machine = new BreakerMachine(settingsOf, (state) => options.onChange(name, state));
  const enter = (): Entry => {
    if (!settingsOf().enabled) {
      machine.close();
      return FREE_ENTRY;
    }
    switch (machine.state) {
      case 'closed': {
        const pass = machine.pass((outcome) => {
          if (outcome === 'unknown') return;
          machine.count(outcome === 'failed');
          if (outcome === 'failed') machine.judge();
        });
        return { kind: 'let_in', pass };
      }
      case 'open':
        return { kind: 'refused', retryAfterMs: machine.retryAfterMs() };
      case 'half_open':
        return machine.probe(options.hangMs);
      default:
        return machine.state satisfies never;
    }
  };
  return withState(name, machine, {
    enter: async () => enter(),
    // Not through `enter`'s promise: every command of a store comes this way.
    run: (work, isFailure = options.isFailure) => runIn(name, enter(), { work, isFailure }),
  });
}

/** The breaker of a machine: what is read of it is of that moment. */
export function withState<Methods extends Pick<Breaker, 'enter' | 'run'>>(
  name: string,
  machine: BreakerMachine,
  methods: Methods,
): Breaker & Methods {
  return {
    ...methods,
    name,
    get state() {
      return machine.state;
    },
    get changedAt() {
      return machine.changedAt;
    },
    get counts() {
      return machine.counts;
    },
    retryAfterMs: () => machine.retryAfterMs(),
  };
}

/** The work of one call, its outcome told to its pass. */
export async function runIn<Result>(
  name: string,
  entry: Entry,
  { work, isFailure }: { work: () => Promise<Result>; isFailure: (error: unknown) => boolean },
): Promise<Result> {
  if (entry.kind === 'refused') throw new BreakerOpen(name, entry.retryAfterMs);
  try {
    const result = await work();
    entry.pass.end('succeeded');
    return result;
  } catch (error) {
    if (isFailure(error)) entry.pass.end('failed');
    // What the dependency refuses it has answered; what was called off it may never have seen.
    else entry.pass.end(isAbort(error) ? 'unknown' : 'succeeded');
    throw error;
  }
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || error.name === 'CancelledFailure');
}
