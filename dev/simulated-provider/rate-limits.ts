// The limits that this provider really enforces: requests and tokens per minute for each model, as token buckets that hold one
// minute's worth and fill evenly. A refusal takes nothing.

const MINUTE_MS = 60_000;
/** Sums of fractions of a millisecond are not exact: without this, waiting exactly `retryAfterMs` could be refused again. */
const ROUNDING = 1e-6;

/** Per minute; Infinity is no limit. */
export type Limits = { readonly rpm: number; readonly tpm: number };

export type LimitState = {
  readonly limit: number;
  readonly remaining: number;
  /** Until the whole limit is there again. */
  readonly resetMs: number;
};

export type RateState = { readonly requests: LimitState; readonly tokens: LimitState };

export type Admission = { readonly state: RateState } & (
  | { readonly kind: 'admitted' }
  | { readonly kind: 'refused'; readonly by: 'requests' | 'tokens'; readonly retryAfterMs: number }
);

export type RateLimits = ReturnType<typeof createRateLimits>;

export function createRateLimits(initial: Limits, now: () => number = Date.now) {
  let limits = initial;
  const models = new Map<string, { readonly requests: Bucket; readonly tokens: Bucket }>();

  function bucketsOf(model: string) {
    const known = models.get(model);
    if (known !== undefined) return known;
    const made = { requests: createBucket(limits.rpm, now), tokens: createBucket(limits.tpm, now) };
    models.set(model, made);
    return made;
  }

  return {
    /**
     * Takes one request of so many tokens, or says how long until it could be taken. A request larger than the whole limit is taken
     * from a full bucket and leaves it in debt: it is late, but never refused for ever.
     */
    admit(model: string, tokens: number): Admission {
      const buckets = bucketsOf(model);
      const requestWaitMs = buckets.requests.waitMs(1);
      const tokenWaitMs = buckets.tokens.waitMs(tokens);
      if (requestWaitMs > 0 || tokenWaitMs > 0) {
        const by = requestWaitMs >= tokenWaitMs ? 'requests' : 'tokens';
        const retryAfterMs = Math.ceil(Math.max(requestWaitMs, tokenWaitMs));
        return { kind: 'refused', by, retryAfterMs, state: stateOf(buckets) };
      }
      buckets.requests.take(1);
      buckets.tokens.take(tokens);
      return { kind: 'admitted', state: stateOf(buckets) };
    },
    state(model: string): RateState {
      return stateOf(bucketsOf(model));
    },
    /** New limits start with full buckets. */
    replace(next: Limits): void {
      limits = next;
      models.clear();
    },
  };
}

type Bucket = ReturnType<typeof createBucket>;

function createBucket(limit: number, now: () => number) {
  let level = limit;
  let at = now();

  function fill(): number {
    const time = now();
    level = Math.min(limit, level + (Math.max(0, time - at) * limit) / MINUTE_MS);
    at = time;
    return level;
  }

  return {
    waitMs(amount: number): number {
      if (limit === Infinity) return 0;
      const missing = Math.min(amount, limit) - fill();
      return missing <= ROUNDING ? 0 : (missing * MINUTE_MS) / limit;
    },
    take(amount: number): void {
      if (limit !== Infinity) level = fill() - amount;
    },
    state(): LimitState {
      if (limit === Infinity) return { limit, remaining: Infinity, resetMs: 0 };
      const current = fill();
      return {
        limit,
        remaining: Math.max(0, Math.floor(current + ROUNDING)),
        resetMs: Math.ceil(((limit - current) * MINUTE_MS) / limit),
      };
    },
  };
}

function stateOf(buckets: { readonly requests: Bucket; readonly tokens: Bucket }): RateState {
  return { requests: buckets.requests.state(), tokens: buckets.tokens.state() };
}
