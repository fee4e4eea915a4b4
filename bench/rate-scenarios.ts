// What rate-accuracy.ts and its processes agree on: the limits, and what is told of each permit.

export const LIMIT = { rpm: 600, tpm: 60_000 } as const;
export const TOKENS = 100;

/** Which of a call's limits is the tight one. Every scenario has a provider, a model and a tenant of its own. */
export const SCENARIOS = ['provider rpm', 'provider tpm', 'tier rpm', 'tier tpm'] as const;
export type Scenario = (typeof SCENARIOS)[number];

/** `lanes` make one call after another, each by itself. */
export type Order = { readonly lanes: Readonly<Record<Scenario, number>>; readonly untilMs: number };
/** Times are milliseconds since 1970, by the server's clock. */
export type Permit = {
  readonly scenario: Scenario;
  readonly grantedMs: number;
  /** When the bucket had it: at once, or at the place that was booked. */
  readonly slotMs: number;
};
/** One question to the tight bucket: what it was told to wait, 0 for nothing, and whether it took something of the bucket. */
export type Ask = { readonly atMs: number; readonly ms: number; readonly isTaken: boolean };
export type Report = {
  readonly asks: Readonly<Record<Scenario, readonly Ask[]>>;
  readonly permits: readonly Permit[];
  readonly calls: Readonly<Record<Scenario, { admit: number; redeem: number }>>;
};
