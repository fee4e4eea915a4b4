// Routes of budgets: the limits of a scope, and the scopes that have limits of their own. What they leave is told by explain.ts.

import { z } from 'zod';
import type { BudgetPage, BudgetView, LimitView } from '../client/wire.ts';
import type { Limit, Scope } from '../task/budget.ts';
import { formatUsd } from '../task/money.ts';
import { notifyBudgetChanged } from './budget-changed.ts';
import { budgetParams, budgetQuery, DEFAULT_TENANT, scopeKind, scopeOf } from './budget-scope.ts';
import { notFound } from './errors.ts';
import { budgetInput, toLimits } from './limit-input.ts';
import type { App, RouteParts } from './parts.ts';
import { id, problemAnswer, queryNumber } from './schemas.ts';

const DEFAULT_PAGE = 100;
const MAX_PAGE = 1_000;
/** Who changed a limit, as the record of changes names it. */
const BY = { by: 'api' } as const;

const limitView: z.ZodType<LimitView> = z.object({
  unit: z.enum(['usd', 'tokens']),
  window: z.string(),
  zone: z.string().exactOptional(),
  amount: z.string(),
  hard: z.boolean(),
  warnAt: z.number(),
});

const budget: z.ZodType<BudgetView> = z
  .object({
    scope: z.string(),
    id: z.string(),
    tenantId: z.string(),
    limits: z.array(limitView),
    isDefault: z.boolean().describe('Nobody set limits on this scope: the configured ones hold'),
  })
  .meta({ id: 'Budget' });

const budgetPage: z.ZodType<BudgetPage> = z
  .object({
    budgets: z.array(budget),
    truncated: z.literal(true).exactOptional().describe('There are more than were asked for'),
  })
  .meta({ id: 'BudgetPage' });

export function registerBudgets(app: App, parts: RouteParts): void {
  registerReading(app, parts);
  const { limits } = parts.stores;
  const common = { tags: ['budgets'], params: budgetParams, querystring: budgetQuery };

  app.put(
    '/budgets/:scope/:id',
    {
      schema: {
        ...common,
        summary: 'Replace all limits of a scope',
        description: 'They bind from the next call on; tasks that wait for a budget of the scope look again.',
        body: budgetInput,
        response: { 200: budget, default: problemAnswer },
      },
    },
    async (request) => {
      const [tenantId, scope] = scopeOf(request);
      const own = toLimits(request.body);
      await limits.set(tenantId, scope, own, BY);
      await notifyBudgetChanged(parts, tenantId, scope);
      return toView(tenantId, scope, { own });
    },
  );

  app.delete(
    '/budgets/:scope/:id',
    {
      schema: {
        ...common,
        summary: 'Go back to the configured limits',
        response: { 204: z.undefined().describe('Removed'), default: problemAnswer },
      },
    },
    async (request, reply) => {
      const [tenantId, scope] = scopeOf(request);
      if (!(await limits.remove(tenantId, scope, BY)))
        throw notFound(`nobody set limits on ${scope.kind} ${scope.id}`);
      await notifyBudgetChanged(parts, tenantId, scope);
      return reply.code(204).send();
    },
  );
}

function registerReading(app: App, { stores: { limits } }: RouteParts): void {
  app.get(
    '/budgets',
    {
      schema: {
        tags: ['budgets'],
        summary: 'Scopes of a tenant whose limits somebody set, changed last first',
        querystring: z.strictObject({
          tenantId: id.optional().describe('Left out: `default`'),
          scope: scopeKind.optional().describe('Left out: all but tasks, which bring their own limits'),
          limit: queryNumber(1, MAX_PAGE).optional(),
        }),
        response: { 200: budgetPage, default: problemAnswer },
      },
    },
    async ({ query }) => {
      const { tenantId = DEFAULT_TENANT, scope } = query;
      const limit = Number(query.limit ?? DEFAULT_PAGE);
      // One more than asked for tells whether there are others.
      const rows = await limits.list(tenantId, { scope, limit: limit + 1 });
      return {
        budgets: rows.slice(0, limit).map((row) => toView(tenantId, row.scope, { own: row.limits })),
        ...(rows.length > limit ? { truncated: true as const } : {}),
      };
    },
  );

  app.get(
    '/budgets/:scope/:id',
    {
      schema: {
        tags: ['budgets'],
        params: budgetParams,
        querystring: budgetQuery,
        summary: 'Limits of a scope',
        response: { 200: budget, default: problemAnswer },
      },
    },
    async (request) => {
      const [tenantId, scope] = scopeOf(request);
      const own = await limits.get(tenantId, scope);
      return toView(
        tenantId,
        scope,
        own === undefined ? { defaults: limits.defaultsOf(scope.kind) } : { own },
      );
    },
  );
}

function toView(
  tenantId: string,
  scope: Scope,
  limits: { readonly own: readonly Limit[] } | { readonly defaults: readonly Limit[] },
): BudgetView {
  const isDefault = 'defaults' in limits;
  return {
    scope: scope.kind,
    id: scope.id,
    tenantId,
    limits: (isDefault ? limits.defaults : limits.own).map(toLimitView),
    isDefault,
  };
}

function toLimitView({ unit, window, zone, hard, warnAt, amount }: Limit): LimitView {
  return {
    unit,
    window,
    ...(zone === undefined ? {} : { zone }),
    amount: unit === 'usd' ? formatUsd(amount) : amount.toString(),
    hard,
    warnAt,
  };
}
