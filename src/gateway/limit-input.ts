// Limits as the budgets API takes them: checked, and turned into what the stores keep.

import { z } from 'zod';
import { LIMIT_WINDOWS, type Limit } from '../task/budget.ts';
import { MAX_LIMIT_TOKENS, toLimitKey } from '../task/limit-key.ts';
import { MAX_LIMIT_NANO_USD, parseUsd } from '../task/money.ts';
import { isZone } from '../task/window.ts';

const WARN_AT = 0.8;
const MAX_LIMITS = 20;
const AMOUNT =
  'for usd an amount from 0 to 9000000 with at most 9 decimals, for tokens a whole number up to 9000000000000000';
const SHARE = 'a number from 0 to 1';
const ZONE = 'an IANA time zone such as Europe/Berlin';

const limit = z
  .strictObject({
    unit: z.enum(['usd', 'tokens'], { error: 'one of usd, tokens' }),
    window: z
      .enum(LIMIT_WINDOWS, { error: `one of ${LIMIT_WINDOWS.join(', ')}` })
      .optional()
      .describe('A calendar window; `total`, which never resets, where it is left out'),
    zone: z
      .string({ error: ZONE })
      .refine(isZone, ZONE)
      .optional()
      .describe('IANA time zone in which the window begins; the configured one where it is left out'),
    amount: z.union([z.string(), z.number()], { error: AMOUNT }).describe(AMOUNT),
    hard: z
      .boolean({ error: 'true or false' })
      .optional()
      .describe('true (left out: true) refuses what would pass it; false warns and slows down'),
    warnAt: z
      .number({ error: SHARE })
      .min(0, SHARE)
      .max(1, SHARE)
      .optional()
      .describe('Share at which `budget_threshold` is published; 0.8 where it is left out'),
  })
  .superRefine((given, context) => {
    if (toAmount(given.unit, given.amount) === undefined)
      context.addIssue({ code: 'custom', path: ['amount'], message: AMOUNT });
    if (given.zone !== undefined && (given.window ?? 'total') === 'total')
      context.addIssue({ code: 'custom', path: ['zone'], message: 'no zone: total never resets' });
  });

type GivenLimit = z.infer<typeof limit>;

export const budgetInput = z.strictObject({
  limits: z
    .array(limit)
    .max(MAX_LIMITS, `at most ${MAX_LIMITS} limits`)
    .refine(
      (limits) => new Set(limits.map((given) => toLimitKey(toLimit(given)))).size === limits.length,
      'one limit for each unit, window, zone and hardness',
    )
    .describe('All limits of the scope; an empty list: nothing binds it'),
});

export function toLimits({ limits }: z.infer<typeof budgetInput>): readonly Limit[] {
  return limits.map(toLimit);
}

function toLimit({ unit, amount, window = 'total', hard = true, warnAt = WARN_AT, zone }: GivenLimit): Limit {
  return {
    unit,
    window,
    hard,
    warnAt,
    amount: toAmount(unit, amount) ?? 0n, // the schema has refused what has no amount
    ...(zone === undefined ? {} : { zone }),
  };
}

function toAmount(unit: Limit['unit'], given: string | number): bigint | undefined {
  if (unit === 'usd') {
    const nano = parseUsd(given);
    return nano === undefined || nano > MAX_LIMIT_NANO_USD ? undefined : nano;
  }
  if (!/^\d{1,16}$/.test(String(given))) return undefined;
  const tokens = BigInt(given);
  return tokens > MAX_LIMIT_TOKENS ? undefined : tokens;
}
