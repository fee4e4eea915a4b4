// A breaker whose counts and tries belong to all processes: what one of them learns of a model, all know. Its state is told by Redis and
// kept here, so that a call asks nobody while it is closed; counts are written after the call. While Redis is away this process
// goes on by what it sees itself.

import { randomUUID } from 'node:crypto';
import type { Logger } from '../log.ts';
import type { FleetBreakers, FleetState } from '../stores/fleet-breakers.ts';
import type { BreakerSettings, PassOutcome } from '../task/breaker.ts';
import { type Breaker, type BreakerOptions, runIn, withState } from './breaker.ts';
import { BreakerMachine, type Entry, endedAfter, FREE_ENTRY, type Pass } from './breaker-machine.ts';

export type FleetBreaker = Breaker & {
  /** What Redis says of it. Older than what is known, it is passed over. */
  adopt(state: FleetState): void;
  /** Resolves once everything that calls taught is written. */
  settled(): Promise<void>;
};

export type FleetBreakerOptions = BreakerOptions & {
  readonly fleet: Pick<FleetBreakers, 'note' | 'askProbe' | 'keepProbe' | 'endProbe' | 'isAway'>;
  /** How long a try outlives its process. Milliseconds. */
  readonly probeLeaseMs: number;
  readonly log: Logger;
};

/** Successes of this time are written together; a failure is written at once, with what has come before it. */
const NOTE_EVERY_MS = 50;
/** Somebody else tries: longest time until the next look, jittered so that those who wait do not come together. */
const LONGEST_WAIT_MS = 5_000;

export function createFleetBreaker(
  name: string,
  settingsOf: () => BreakerSettings,
  options: FleetBreakerOptions,
): FleetBreaker {
  const breaker = new SharedBreaker(name, settingsOf, options);
  return withState(name, breaker.machine, {
    enter: () => breaker.enter(),
    run: async <Result>(work: () => Promise<Result>, isFailure = options.isFailure): Promise<Result> =>
      runIn(name, await breaker.enter(), { work, isFailure }),
    adopt: (state: FleetState) => breaker.adopt(state),
    settled: () => breaker.settled(),
  });
}

class SharedBreaker {
  readonly machine: BreakerMachine;
  readonly #name: string;
  readonly #settingsOf: () => BreakerSettings;
  readonly #options: FleetBreakerOptions;
  /** Era of the change last adopted. */
  #era = 0;
  #pending = { calls: 0, failures: 0 };
  #timer: NodeJS.Timeout | undefined;
  readonly #writing = new Set<Promise<void>>();

  constructor(name: string, settingsOf: () => BreakerSettings, options: FleetBreakerOptions) {
    this.#name = name;
    this.#settingsOf = settingsOf;
    this.#options = options;
    this.machine = new BreakerMachine(settingsOf, (state) => options.onChange(name, state));
  }

  async enter(): Promise<Entry> {
    const { machine } = this;
    if (!this.#settingsOf().enabled) {
      machine.close();
      return FREE_ENTRY;
    }
    switch (machine.state) {
      case 'closed':
        return { kind: 'let_in', pass: this.#countedPass() };
      case 'open':
        return { kind: 'refused', retryAfterMs: machine.retryAfterMs() };
      case 'half_open':
        return this.#askProbe();
      default:
        return machine.state satisfies never;
    }
  }

  adopt(state: FleetState): void {
    const { machine } = this;
    // Answers and messages overtake each other; an equal era is news only for a process that has closed by itself while Redis was away.
    const isNews = state.era > this.#era || (machine.state === 'closed' && state.state !== 'closed');
    if (state.era < this.#era || !isNews) return;
    this.#era = state.era;
    if (state.state === 'closed') machine.close();
    else if (state.state === 'open' || machine.state !== 'half_open') machine.openFor(state.leftMs);
  }

  async settled(): Promise<void> {
    this.#flush();
    while (this.#writing.size > 0) await Promise.all(this.#writing);
  }

  get #shared() {
    return { name: this.#name, settings: this.#settingsOf() };
  }

  #countedPass(): Pass {
    return this.machine.pass((outcome) => {
      if (outcome === 'unknown') return;
      const failed = outcome === 'failed';
      this.machine.count(failed);
      this.#pending.calls += 1;
      if (failed) this.#pending.failures += 1;
      if (failed) this.#flush();
      else this.#timer ??= setTimeout(() => this.#flush(), NOTE_EVERY_MS).unref();
    });
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const counts = this.#pending;
    if (counts.calls === 0) return;
    this.#pending = { calls: 0, failures: 0 };
    this.#write(
      () => this.#options.fleet.note(this.#shared, counts),
      () => this.machine.judge(),
    );
  }

  async #askProbe(): Promise<Entry> {
    const { fleet, probeLeaseMs, hangMs } = this.#options;
    const token = randomUUID();
    try {
      const answer = await fleet.askProbe(this.#shared, { token, leaseMs: probeLeaseMs });
      switch (answer.verdict) {
        case 'closed':
          // Whoever else opened it: the fleet has not, and this call is one of its own.
          this.#era = Math.max(this.#era, answer.era);
          this.machine.close();
          return { kind: 'let_in', pass: this.#countedPass() };
        case 'wait':
          this.adopt(answer);
          return { kind: 'refused', retryAfterMs: answer.leftMs > 0 ? answer.leftMs : this.#someTime() };
        case 'probe':
          this.adopt(answer);
          return { kind: 'let_in', pass: endedAfter(hangMs, this.#probePass(token)) };
        default:
          return answer.verdict satisfies never;
      }
    } catch (error) {
      this.#told(error);
      return this.machine.probe(hangMs);
    }
  }

  /** Its lease is kept until it ends; a try whose process stands still or dies is given to somebody else. */
  #probePass(token: string): Pass {
    const { fleet, probeLeaseMs } = this.#options;
    const keeping = setInterval(() => {
      fleet
        .keepProbe(this.#shared, { token, leaseMs: probeLeaseMs })
        .catch((error: unknown) => this.#told(error));
    }, probeLeaseMs / 3);
    keeping.unref();
    let isOver = false;
    return {
      end: (outcome: PassOutcome) => {
        if (isOver) return;
        isOver = true;
        clearInterval(keeping);
        this.#write(
          () => fleet.endProbe(this.#shared, { token, outcome }),
          () => this.machine.probed(outcome),
        );
      },
    };
  }

  /** After the call, never awaited by it. `alone` is what this process makes of it while Redis is away. */
  #write(tell: () => Promise<FleetState>, alone: () => void): void {
    const written = tell()
      .then((state) => this.adopt(state))
      .catch((error: unknown) => {
        this.#told(error);
        alone();
      })
      .finally(() => this.#writing.delete(written));
    this.#writing.add(written);
  }

  #told(error: unknown): void {
    const { fleet, log } = this.#options;
    const fields = { breaker: this.#name, error };
    if (fleet.isAway(error)) log.debug('a breaker goes on without redis', fields);
    else log.warn('a breaker could not share what it knows', fields);
  }

  #someTime(): number {
    const longest = Math.min(LONGEST_WAIT_MS, this.#settingsOf().timeoutMs);
    return Math.ceil(longest * (0.5 + Math.random() / 2));
  }
}
