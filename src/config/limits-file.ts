// limits.yaml: rate limits and the budgets of scopes that have none of their own. Read in its whole final shape, whatever part of it
// is enforced already; what is not is named by `notEnforced`, never dropped without a word.

import { z } from 'zod';
import { LIMIT_WINDOWS, type Limit } from '../task/budget.ts';
import type { Tier } from '../task/input.ts';
import { ID_PATTERN } from '../task/input-fields.ts';
import { MAX_LIMIT_TOKENS, toLimitKey } from '../task/limit-key.ts';
import { MAX_LIMIT_NANO_USD } from '../task/money.ts';
import { isZone } from '../task/window.ts';
import type { Environment } from './environment.ts';
import { type ConfigFault, toFaults } from './fault.ts';
import { applyRateOverrides } from './rate-overrides.ts';
import { toRecord, withoutUndefined } from './records.ts';
import { lazily, MODEL_ID, matching, PROVIDER_NAME, parsed, usdAmount, word } from './shapes.ts';
import type { LayeredFile } from './yaml-file.ts';

const BUDGET_SCOPES = ['tenant', 'user', 'session', 'task', 'perRequest'] as const;

/** Per minute, and at a time; an absent dimension has no limit. */
export type RateLimit = {
  readonly rpm?: number;
  readonly tpm?: number;
  /** Input and output apart, where a provider counts so. */
  readonly inputTpm?: number;
  readonly outputTpm?: number;
  readonly maxParallel?: number;
};

const DIMENSIONS = ['rpm', 'tpm', 'inputTpm', 'outputTpm', 'maxParallel'] as const;

export type PlanLimit = RateLimit & { readonly fairnessWeight: number };

export type Limits = {
  readonly rates: {
    /** `default` is there always: the row of a provider without one. Rows have taken what they leave out from it. */
    readonly providers: Readonly<Record<string, RateLimit>> & { readonly default: RateLimit };
    /** By `provider/model`. */
    readonly models: Readonly<Record<string, RateLimit>>;
    readonly tiers: Readonly<Partial<Record<Tier, RateLimit>>>;
    readonly plans: Readonly<Record<string, PlanLimit>>;
    /** The plan of each tenant that has another one than `default`. */
    readonly tenants: Readonly<Record<string, string>>;
  };
  readonly budgets: Readonly<Record<(typeof BUDGET_SCOPES)[number], readonly Limit[]>>;
};

/** A row as the file gives it; `unlimited` is told apart from "left out". */
export type GivenRate = { [D in keyof RateLimit]?: number | 'unlimited' | undefined };

/** Reads the merged file and lays RATE_… over it. Undefined when there is a fault. */
export function readLimitsFile(
  file: LayeredFile,
  sources: { readonly env: Environment; readonly providers: readonly string[] | undefined },
  faults: ConfigFault[],
): Limits | undefined {
  const result = fileShape().safeParse(file.value);
  if (!result.success) {
    faults.push(...toFaults(result.error, file.value, file.locate));
    return undefined;
  }
  const { rates, budgets } = result.data;
  const found = repeatedLimits(budgets).map((fault) => ({
    ...fault,
    source: file.locate(['budgets', fault.scope]),
  }));
  faults.push(...found.map(({ key, expected, got, source }) => ({ key, expected, got, source })));
  const { providers, tiers } = applyRateOverrides(
    { providers: rates.providers, tiers: presentRows(rates.tiers) },
    sources,
    faults,
  );
  const base = providers['default'] ?? {};
  const rows = toRecord(
    Object.entries(providers).map(([name, row]) => [
      name,
      toRateLimit({ ...base, ...withoutUndefined(row) }),
    ]),
  );
  return {
    rates: {
      providers: Object.assign(rows, { default: toRateLimit(base) }),
      models: toRecord(Object.entries(rates.models ?? {}).map(([id, row]) => [id, toRateLimit(row)])),
      tiers: toRecord(Object.entries(tiers).map(([tier, row]) => [tier, toRateLimit(row)])),
      plans: toRecord(
        Object.entries(rates.plans ?? {}).map(([plan, row]) => [
          plan,
          { ...toRateLimit(row), fairnessWeight: row.fairnessWeight ?? 1 },
        ]),
      ),
      tenants: toRecord(Object.entries(rates.tenants ?? {})),
    },
    budgets,
  };
}

const DEFAULT_PLAN = 'default';
const NO_PLAN: PlanLimit = { fairnessWeight: 1 };

/** What a tenant may: by the plan it is given, else by `default`. */
export function planOfTenant(
  { plans, tenants }: Pick<Limits['rates'], 'plans' | 'tenants'>,
  tenantId: string,
): PlanLimit {
  return plans[tenants[tenantId] ?? DEFAULT_PLAN] ?? NO_PLAN;
}

const fileShape = lazily(() => {
  const dimension = parsed(
    'a whole number from 1 to 1000000000000, or unlimited',
    (value): number | 'unlimited' | undefined => {
      if (value === 'unlimited') return value;
      return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 1e12
        ? Number(value)
        : undefined;
    },
  );
  const rate = {
    ...{ rpm: dimension.optional(), tpm: dimension.optional(), maxParallel: dimension.optional() },
    ...{ inputTpm: dimension.optional(), outputTpm: dimension.optional() },
  };
  const row = z.strictObject(rate);
  const weight = parsed('a number from 0.001 to 1000', (value) =>
    typeof value === 'number' && value >= 0.001 && value <= 1_000 ? value : undefined,
  );
  const name = (what: string) =>
    matching(`${what} of 1 to 40 characters out of A-Z a-z 0-9 . _ -`, PROVIDER_NAME);
  const limits = z.array(limitShape(true)).default([]);
  return z.strictObject({
    rates: z
      .strictObject({
        providers: z.record(name('a provider'), row).superRefine((rows, context) => {
          if (!Object.hasOwn(rows, 'default'))
            context.addIssue({ code: 'custom', path: ['default'], message: 'a row' });
        }),
        models: z.record(matching('a model as provider/model', MODEL_ID), row).optional(),
        tiers: z
          .strictObject({ small: row.optional(), medium: row.optional(), large: row.optional() })
          .optional(),
        plans: z
          .record(name('a plan'), z.strictObject({ ...rate, fairnessWeight: weight.optional() }))
          .optional(),
        tenants: z.record(matching('the id of a tenant', ID_PATTERN), name('a plan')).optional(),
      })
      .superRefine(({ plans = {}, tenants = {} }, context) => {
        const known = [...new Set([DEFAULT_PLAN, ...Object.keys(plans)])];
        for (const [tenantId, plan] of Object.entries(tenants))
          if (!known.includes(plan))
            context.addIssue({
              code: 'custom',
              path: ['tenants', tenantId],
              message: `one of ${known.join(', ')}`,
            });
      }),
    budgets: z.strictObject({
      tenant: limits,
      user: limits,
      session: limits,
      task: limits,
      perRequest: z.array(limitShape(false)).default([]),
    }),
  });
});

/** Without `hasWindow`: of one request, which ends with it. */
function limitShape(hasWindow: boolean): z.ZodType<Limit> {
  const none = (expected: string) => parsed<never>(expected, () => undefined).optional();
  const time = hasWindow
    ? {
        window: word(LIMIT_WINDOWS).optional(),
        zone: parsed('an IANA time zone such as Europe/Berlin', (value) =>
          typeof value === 'string' && isZone(value) ? value : undefined,
        ).optional(),
      }
    : {
        window: none('no window: a limit on one request ends with it'),
        zone: none('no zone: a limit on one request has no window'),
      };
  const rest = {
    ...time,
    hard: parsed('true or false', (value) => (typeof value === 'boolean' ? value : undefined)).optional(),
    warnAt: parsed('a number from 0 to 1', (value) =>
      typeof value === 'number' && value >= 0 && value <= 1 ? value : undefined,
    ).optional(),
  };
  const shape: z.ZodType<GivenLimit> = z.discriminatedUnion(
    'unit',
    [
      z.strictObject({
        unit: z.literal('usd'),
        amount: usdAmount(MAX_LIMIT_NANO_USD, 'an amount in USD from 0 to 9000000 with at most 9 decimals'),
        ...rest,
      }),
      z.strictObject({ unit: z.literal('tokens'), amount: tokenAmount(), ...rest }),
    ],
    { error: (issue) => (issue.code === 'invalid_union' ? 'one of usd, tokens' : undefined) },
  );
  return shape.transform(toLimit);
}

function toLimit(
  { unit, amount, window = 'total', hard = true, warnAt = 0.8, zone }: GivenLimit,
  context: z.RefinementCtx,
): Limit {
  if (zone !== undefined && window === 'total')
    context.addIssue({ code: 'custom', path: ['zone'], message: 'no zone: total never resets' });
  return { unit, window, amount, hard, warnAt, ...(zone === undefined ? {} : { zone }) };
}

function tokenAmount(): z.ZodType<bigint> {
  return parsed(`a whole number of tokens from 0 to ${MAX_LIMIT_TOKENS}`, (value) => {
    const isWhole =
      typeof value === 'string'
        ? /^\d{1,16}$/.test(value)
        : Number.isSafeInteger(value) && Number(value) >= 0;
    return isWhole && BigInt(Number(value)) <= MAX_LIMIT_TOKENS ? BigInt(Number(value)) : undefined;
  });
}

type GivenLimit = Pick<Limit, 'unit' | 'amount'> & {
  readonly [K in 'window' | 'hard' | 'warnAt' | 'zone']?: Limit[K] | undefined;
};

/** Two limits of the same unit, window, zone and hardness would share one counter, and only the tighter one could ever bind. */
function repeatedLimits(budgets: Limits['budgets']) {
  return BUDGET_SCOPES.filter((scope) => {
    const names = budgets[scope].map(toLimitKey);
    return new Set(names).size < names.length;
  }).map((scope) => ({
    scope,
    key: `budgets.${scope}`,
    expected: 'one limit for each unit, window, zone and hardness',
    got: 'several',
  }));
}

function presentRows(
  rows: Readonly<Record<string, GivenRate | undefined>> = {},
): Readonly<Record<string, GivenRate>> {
  return toRecord(
    Object.entries(rows).flatMap(([name, row]) => (row === undefined ? [] : [[name, row] as const])),
  );
}

function toRateLimit(row: GivenRate): RateLimit {
  const limited = DIMENSIONS.filter((dimension) => typeof row[dimension] === 'number');
  return Object.fromEntries(limited.map((dimension) => [dimension, row[dimension]]));
}

export type NotEnforcedSources = { readonly limits: Limits };

/**
 * The rows that are accepted and not enforced yet, as paths (`budgets.perRequest[0]`), for one warning at start.
 */
export function notEnforced({ limits }: NotEnforcedSources): string[] {
  return limits.budgets.perRequest.map((_, index) => `budgets.perRequest[${index}]`);
}
