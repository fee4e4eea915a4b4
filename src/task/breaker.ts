// The words in which breakers speak of themselves, here, in the stores and over HTTP. Pure vocabulary.

export const BREAKER_STATES = ['closed', 'half_open', 'open'] as const;
export type BreakerState = (typeof BREAKER_STATES)[number];

/** What stands behind a breaker; each kind has settings of its own. */
export const BREAKER_KINDS = ['redis', 'postgres', 'temporal', 'llm', 'tool'] as const;
export type BreakerKind = (typeof BREAKER_KINDS)[number];

export type BreakerSettings = {
  readonly enabled: boolean;
  /** Failures within it count together. */
  readonly intervalMs: number;
  /** How long it stays open before somebody may try. */
  readonly timeoutMs: number;
  readonly failureThreshold: number;
  /** Tries that must succeed before it closes. */
  readonly successThreshold: number;
  /** Tries at a time. */
  readonly maxRequests: number;
};

/** What a call taught of the dependency; `unknown`: nothing, since it was refused, cancelled or never sent. */
export type PassOutcome = 'succeeded' | 'failed' | 'unknown';

/** Below this share of the calls failures do not open a breaker, however many there are. */
export const MIN_FAILURE_SHARE = 0.3;

/** The interval is counted in slices of this number: no call is remembered by itself. */
export const INTERVAL_SLICES = 20;
