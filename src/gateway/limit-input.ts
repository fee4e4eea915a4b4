// Limits as the budgets API takes them: checked, and turned into what the stores keep.

import { z } from 'zod';
import { LIMIT_WINDOWS, type Limit } from '../task/budget.ts';
import { MAX_LIMIT_NANO_USD, parseUsd } from '../task/money.ts';

const WARN_AT = 0.8;
const MAX_LIMITS = 20;
/** As many as the largest amount in nano-USD: what every store counts exactly. */
const MAX_LIMIT_TOKENS = 9_000_000_000_000_000n;
const AMOUNT = 'for usd an amount from 0 to 9000000 with at most 9 decimals, for tokens a whole number';

const limit = z
  .strictObject({
    unit: z.enum(['usd', 'tokens'], { error: 'one of usd, tokens' }),
    window: z
      .enum(LIMIT_WINDOWS, { error: `one of ${LIMIT_WINDOWS.join(', ')}` })
      .refine((window) => window === 'total', 'total (another window is not available yet)')
      .optional()
      .describe('`total`; other windows are not available yet'),
    amount: z.union([z.string(), z.number()], { error: AMOUNT }).describe(AMOUNT),
    hard: z
      .boolean({ error: 'true or false' })
      .refine((hard) => hard, 'true (a soft limit is not available yet)')
      .optional()
      .describe('true; soft limits are not available yet'),
    warnAt: z.number().min(0, 'a number from 0 to 1').max(1, 'a number from 0 to 1').optional(),
  })
  .superRefine((given, context) => {
    if (toAmount(given.unit, given.amount) === undefined)
      context.addIssue({ code: 'custom', path: ['amount'], message: AMOUNT });
  });

export const budgetInput = z.strictObject({
  limits: z
    .array(limit)
    .max(MAX_LIMITS, `at most ${MAX_LIMITS} limits`)
    .refine(
      (limits) => new Set(limits.map(({ unit }) => unit)).size === limits.length,
      'one limit for each unit and window',
    )
    .describe('All limits of the scope; an empty list: nothing binds it'),
});

export function toLimits({ limits }: z.infer<typeof budgetInput>): readonly Limit[] {
  return limits.map(({ unit, amount, window = 'total', hard = true, warnAt = WARN_AT }) => ({
    unit,
    window,
    hard,
    warnAt,
    amount: toAmount(unit, amount) ?? 0n, // the schema has refused what has no amount
  }));
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
