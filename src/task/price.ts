// What a model costs: integer prices in nano-USD per million tokens, and the one formula that holds, settles and reports. Pure and
// exact; a second price rule anywhere else would make holds and charges disagree.

/** Prices of one row, all of them in nano-USD per million tokens (0.25 USD per million is 250,000,000). */
export type PriceTier = {
  /** The row holds for requests with more input tokens than this. */
  readonly inputTokens: number;
  readonly input: bigint;
  readonly cachedInput?: bigint;
  readonly cacheWrite5m?: bigint;
  readonly cacheWrite1h?: bigint;
  readonly output: bigint;
};

/** Prices from a moment on. `above` rows are whole: what one of them leaves out takes that row's input price. */
export type PriceEntry = {
  readonly validFromMs: number;
  readonly input: bigint;
  readonly cachedInput: bigint;
  readonly cacheWrite5m: bigint;
  readonly cacheWrite1h: bigint;
  readonly output: bigint;
  readonly above: readonly PriceTier[];
};

/** Tokens of one attempt in disjoint buckets; `inputTokens` are those that no cache touched. */
export type PricedUsage = {
  readonly inputTokens: number;
  readonly cacheReadTokens: number;
  readonly cacheWrite5mTokens: number;
  readonly cacheWrite1hTokens: number;
  readonly outputTokens: number;
};

const TOKENS_PER_PRICE = 1_000_000n;

/** The entry that holds at a moment: the latest one whose `validFromMs` has passed. Undefined: the price is not known. */
export function priceAt(entries: readonly PriceEntry[], atMs: number): PriceEntry | undefined {
  return entries
    .filter((entry) => entry.validFromMs <= atMs)
    .reduce<PriceEntry | undefined>(
      (latest, entry) => (latest === undefined || entry.validFromMs >= latest.validFromMs ? entry : latest),
      undefined,
    );
}

/**
 * What an attempt costs in nano-USD, rounded up once. All input kinds together decide which `above` row holds, and the last one
 * passed prices every token of the request.
 * @throws RangeError when a count is negative or not whole
 */
export function costNanoUsd(entry: PriceEntry, usage: PricedUsage): bigint {
  const tokens = {
    input: toCount(usage.inputTokens),
    cacheRead: toCount(usage.cacheReadTokens),
    cacheWrite5m: toCount(usage.cacheWrite5mTokens),
    cacheWrite1h: toCount(usage.cacheWrite1hTokens),
    output: toCount(usage.outputTokens),
  };
  const row = rowFor(entry, tokens.input + tokens.cacheRead + tokens.cacheWrite5m + tokens.cacheWrite1h);
  const cost =
    tokens.input * row.input +
    tokens.cacheRead * (row.cachedInput ?? row.input) +
    tokens.cacheWrite5m * (row.cacheWrite5m ?? row.input) +
    tokens.cacheWrite1h * (row.cacheWrite1h ?? row.input) +
    tokens.output * row.output;
  return (cost + TOKENS_PER_PRICE - 1n) / TOKENS_PER_PRICE;
}

function rowFor(entry: PriceEntry, inputTokens: bigint): Omit<PriceTier, 'inputTokens'> {
  let row: PriceTier | undefined;
  for (const tier of entry.above) {
    const passed = inputTokens > BigInt(tier.inputTokens);
    if (passed && (row === undefined || tier.inputTokens > row.inputTokens)) row = tier;
  }
  return row ?? entry;
}

function toCount(tokens: number): bigint {
  if (!Number.isSafeInteger(tokens) || tokens < 0) throw new RangeError(`not a count of tokens: ${tokens}`);
  return BigInt(tokens);
}
