// A circuit breaker around one dependency: opossum's three states, with our own counting (a number of failures within a time, and
// their share of the calls), which opossum does not know. Asked before anything is held.

import CircuitBreaker from 'opossum';

export type BreakerSettings = {
  readonly enabled: boolean;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly failureThreshold: number;
  readonly successThreshold: number;
};

export type BreakerState = 'closed' | 'open' | 'half_open';

export type Breaker = {
  readonly name: string;
  readonly state: BreakerState;
  /** How long until a call may try again; 0 when one may now. Milliseconds. */
  retryAfterMs(): number;
  /** Runs the work, or throws `BreakerOpen` without running it. */
  run<Result>(work: () => Promise<Result>): Promise<Result>;
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

/** Below this share of the calls failures do not open a breaker, however many there are. */
const MIN_FAILURE_SHARE = 0.3;

/**
 * `isFailure` says which errors speak against the dependency; others pass through. After a half-open success, failures open the
 * breaker at once until `successThreshold` successes came.
 */
export function createBreaker(
  name: string,
  settings: BreakerSettings,
  options: {
    readonly isFailure: (error: unknown) => boolean;
    readonly onChange: (name: string, state: BreakerState) => void;
  },
): Breaker {
  const outcomes: { atMs: number; failed: boolean }[] = [];
  let probation = 0;
  let openedAtMs = 0;
  const circuit = new CircuitBreaker((work: () => Promise<unknown>) => work(), {
    timeout: false,
    resetTimeout: settings.timeoutMs,
    // opossum never opens by itself while closed: the rule is ours, below.
    errorThresholdPercentage: 100,
    volumeThreshold: Number.MAX_SAFE_INTEGER,
    errorFilter: (error: unknown) => !options.isFailure(error),
    enabled: settings.enabled,
  });
  const note = (failed: boolean) => {
    const now = performance.now();
    outcomes.push({ atMs: now, failed });
    while ((outcomes[0]?.atMs ?? now) < now - settings.intervalMs) outcomes.shift();
    if (!failed) probation = Math.max(0, probation - 1);
    if (failed && (probation > 0 || isTooMuch(outcomes, settings.failureThreshold))) circuit.open();
  };
  circuit.on('success', () => note(false));
  circuit.on('failure', () => note(true));
  circuit.on('open', () => {
    openedAtMs = performance.now();
    outcomes.length = 0;
    options.onChange(name, 'open');
  });
  circuit.on('halfOpen', () => options.onChange(name, 'half_open'));
  circuit.on('close', () => {
    // opossum closes before it tells of the success that closed it: that one is counted next.
    probation = settings.successThreshold;
    options.onChange(name, 'closed');
  });
  const stateOf = (): BreakerState => (circuit.opened ? 'open' : circuit.halfOpen ? 'half_open' : 'closed');
  const retryAfterMs = () =>
    circuit.opened ? Math.max(0, Math.ceil(openedAtMs + settings.timeoutMs - performance.now())) : 0;
  return {
    name,
    get state() {
      return stateOf();
    },
    retryAfterMs,
    run: async <Result>(work: () => Promise<Result>): Promise<Result> => {
      try {
        return (await circuit.fire(work)) as Result; // the action returns what the work returns
      } catch (error) {
        if (error instanceof Error && CircuitBreaker.isOurError(error))
          throw new BreakerOpen(name, retryAfterMs());
        throw error;
      }
    },
  };
}

type Methods = Record<string, (...args: unknown[]) => Promise<unknown>>;

/** A connection or client whose named asynchronous methods go through a breaker; the others stay as they are. */
export function guarded<Target extends object>(
  target: Target,
  breaker: Breaker,
  methods: readonly (keyof Target & string)[],
): Target {
  const all = target as unknown as Methods; // the caller names asynchronous methods only
  const wrapped = methods.map((name) => [
    name,
    (...args: unknown[]) => breaker.run(async () => all[name]?.(...args)),
  ]);
  return { ...target, ...Object.fromEntries(wrapped) };
}

function isTooMuch(outcomes: readonly { failed: boolean }[], threshold: number): boolean {
  const failures = outcomes.filter((outcome) => outcome.failed).length;
  return failures >= threshold && failures / outcomes.length >= MIN_FAILURE_SHARE;
}
