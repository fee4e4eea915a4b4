// One breaker's state in this process: opossum holds the three states and the timer between them, counting and probation are ours. It
// runs nothing and asks nobody; whoever has a breaker asks it for a pass and says what became of it.

import CircuitBreaker from 'opossum';
import {
  type BreakerSettings,
  type BreakerState,
  MIN_FAILURE_SHARE,
  type PassOutcome,
} from '../task/breaker.ts';
import { type Counts, createFailureWindow } from './failure-window.ts';

/** Leave to call once. It counts once, by its first `end`, and only while the state in which it was given lasts. */
export type Pass = { end(outcome: PassOutcome): void };

export type Entry =
  | { readonly kind: 'let_in'; readonly pass: Pass }
  | { readonly kind: 'refused'; readonly retryAfterMs: number };

/** For a breaker that is switched off. */
export const FREE_ENTRY: Entry = { kind: 'let_in', pass: { end: () => undefined } };

const DAY_MS = 86_400_000;

export class BreakerMachine {
  readonly #settingsOf: () => BreakerSettings;
  readonly #onChange: (state: BreakerState) => void;
  readonly #window;
  // opossum reads its reset timeout when it opens, so that one that was changed counts from then on.
  readonly #options: CircuitBreaker.Options & { resetTimeout: number };
  readonly #circuit: CircuitBreaker;
  #shown: BreakerState = 'closed';
  #changedAt: Date | undefined;
  #untilMs = 0;
  /** Moves with every change: what began before one says nothing of the time after it. */
  #era = 0;
  #probes = 0;
  #successes = 0;

  constructor(settingsOf: () => BreakerSettings, onChange: (state: BreakerState) => void) {
    this.#settingsOf = settingsOf;
    this.#onChange = onChange;
    this.#window = createFailureWindow(() => settingsOf().intervalMs);
    this.#options = {
      timeout: false,
      resetTimeout: settingsOf().timeoutMs,
      // Its own statistics are not read: they need not be kept up.
      rollingCountTimeout: DAY_MS,
      rollingCountBuckets: 1,
      rollingPercentilesEnabled: false,
      enableSnapshots: false,
    };
    this.#circuit = new CircuitBreaker(async () => undefined, this.#options);
    this.#circuit.on('halfOpen', () => this.#changed());
  }

  get state(): BreakerState {
    if (!this.#settingsOf().enabled || this.#circuit.closed) return 'closed';
    return this.#circuit.opened ? 'open' : 'half_open';
  }

  /** Undefined while it has never changed. */
  get changedAt(): Date | undefined {
    return this.#changedAt;
  }

  /** Of the interval, in this process. */
  get counts(): Counts {
    return this.#window.counts();
  }

  /** Milliseconds; 0 unless it is open. */
  retryAfterMs(): number {
    return this.state === 'open' ? Math.max(0, Math.ceil(this.#untilMs - performance.now())) : 0;
  }

  /** Adds to the window; `judge` draws the conclusion. */
  count(failed: boolean): void {
    this.#window.add(failed);
  }

  judge(): void {
    const { failureThreshold, timeoutMs } = this.#settingsOf();
    const { calls, failures } = this.#window.counts();
    if (this.state !== 'closed') return;
    if (failures >= failureThreshold && failures / calls >= MIN_FAILURE_SHARE) this.openFor(timeoutMs);
  }

  /** Leave to call while it is closed; `note` hears the outcome if it still counts then. */
  pass(note: (outcome: PassOutcome) => void): Pass {
    const era = this.#era;
    let isOver = false;
    return {
      end: (outcome) => {
        if (isOver) return;
        isOver = true;
        if (era === this.#era) note(outcome);
      },
    };
  }

  /** One of the tries of a half-open breaker. One that takes longer than `hangMs` has failed. */
  probe(hangMs: number): Entry {
    if (this.#probes >= this.#settingsOf().maxRequests) return { kind: 'refused', retryAfterMs: 0 };
    this.#probes += 1;
    const pass = this.pass((outcome) => {
      this.#probes -= 1;
      this.probed(outcome);
    });
    return { kind: 'let_in', pass: endedAfter(hangMs, pass) };
  }

  /** What a try taught, wherever it was granted. */
  probed(outcome: PassOutcome): void {
    const { successThreshold, timeoutMs } = this.#settingsOf();
    if (outcome === 'failed') this.openFor(timeoutMs);
    if (outcome !== 'succeeded') return;
    this.#successes += 1;
    if (this.#successes >= successThreshold) this.close();
  }

  /** Opens it, or keeps it open from now on for another time. Half open when the time is over. */
  openFor(ms: number): void {
    // opossum's timer is started by opening alone.
    if (this.#circuit.opened) this.#circuit.close();
    this.#options.resetTimeout = ms;
    this.#untilMs = performance.now() + ms;
    this.#circuit.open();
    this.#changed();
  }

  close(): void {
    if (this.#circuit.closed) return;
    this.#circuit.close();
    this.#changed();
  }

  #changed(): void {
    this.#era += 1;
    this.#probes = 0;
    this.#successes = 0;
    this.#window.clear();
    const { state } = this;
    if (state === this.#shown) return;
    this.#shown = state;
    this.#changedAt = new Date();
    this.#onChange(state);
  }
}

/** A pass that counts as failed when nobody has ended it by then: a call that hangs is told of by nobody else. */
export function endedAfter(ms: number, pass: Pass): Pass {
  const timer = setTimeout(() => pass.end('failed'), ms);
  timer.unref();
  return {
    end: (outcome) => {
      clearTimeout(timer);
      pass.end(outcome);
    },
  };
}
