// The rows under `prices` of models.yaml: from decimals in USD to integers in nano-USD per million tokens, and from dates to moments.

import { z } from 'zod';
import type { PriceEntry, PriceTier } from '../task/price.ts';
import { withoutUndefined } from './records.ts';
import { MAX_PRICE_NANO, PRICE, parsed, usdAmount, wholeNumber } from './shapes.ts';

type GivenPrices = z.infer<ReturnType<typeof priceShape>>;

export function priceShape() {
  const price = usdAmount(MAX_PRICE_NANO, PRICE);
  const row = {
    input: price,
    cachedInput: price.optional(),
    cacheWrite5m: price.optional(),
    cacheWrite1h: price.optional(),
    output: price,
  };
  return z.strictObject({
    validFrom: parsed('a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z', parseMoment),
    ...row,
    above: z.array(z.strictObject({ inputTokens: wholeNumber(1, 100_000_000), ...row })).optional(),
  });
}

/** A date is its beginning in UTC. Dates that no calendar has are refused, though JavaScript would roll them over. */
function parseMoment(value: unknown): number | undefined {
  const match =
    typeof value === 'string'
      ? /^(\d{4}-\d{2}-\d{2})(T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2}))?$/.exec(value)
      : null;
  const [, day = '', time] = match ?? [];
  const midnight = Date.parse(`${day}T00:00:00Z`);
  if (Number.isNaN(midnight) || new Date(midnight).toISOString().slice(0, 10) !== day) return undefined;
  const moment = time === undefined ? midnight : Date.parse(`${day}${time}`);
  return Number.isNaN(moment) ? undefined : moment;
}

export function toPriceEntry({ validFrom, above = [], ...row }: GivenPrices): PriceEntry {
  return {
    validFromMs: validFrom,
    input: row.input,
    cachedInput: row.cachedInput ?? row.input,
    cacheWrite5m: row.cacheWrite5m ?? row.input,
    cacheWrite1h: row.cacheWrite1h ?? row.input,
    output: row.output,
    above: above
      .map(
        ({ inputTokens, input, output, ...parts }): PriceTier => ({
          inputTokens,
          input,
          output,
          ...withoutUndefined(parts),
        }),
      )
      .sort((left, right) => left.inputTokens - right.inputTokens),
  };
}
