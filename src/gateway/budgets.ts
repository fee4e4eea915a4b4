// Routes of budgets: the limits of a scope, and what they leave.

import { z } from 'zod';
import { isEnforced } from '../calls/call.ts';
import type { BudgetExplanation, BudgetView, LimitView } from '../client/wire.ts';
import { type Limit, SCOPE_KINDS, type Scope } from '../task/budget.ts';
import { formatUsd } from '../task/money.ts';
import { invalidRequest, notFound } from './errors.ts';
import { budgetInput, toLimits } from './limit-input.ts';
import type { App, RouteParts } from './parts.ts';
import { id, problemAnswer } from './schemas.ts';

const DEFAULT_TENANT = 'default';
/** Scopes whose limits are enforced; limits that nothing enforces are not taken. */
const SETTABLE: readonly Scope['kind'][] = ['user', 'task'];

const unit = z.enum(['usd', 'tokens']);

const budget: z.ZodType<BudgetView> = z
  .object({
    scope: z.string(),
    id: z.string(),
    tenantId: z.string(),
    limits: z.array(
      z.object({ unit, window: z.string(), amount: z.string(), hard: z.boolean(), warnAt: z.number() }),
    ),
    isDefault: z.boolean().describe('Nobody set limits on this scope: the configured ones hold'),
  })
  .meta({ id: 'Budget' });

const explanation: z.ZodType<BudgetExplanation> = z
  .object({
    scope: z.string(),
    id: z.string(),
    limits: z.array(
      z.object({
        unit,
        window: z.string(),
        amount: z.string(),
        hard: z.boolean(),
        settled: z.string(),
        held: z.string(),
        remaining: z.string(),
        resetsAt: z.string().exactOptional(),
      }),
    ),
    lastRefusal: z.looseObject({ at: z.string() }).exactOptional(),
  })
  .meta({ id: 'BudgetExplanation' });

const params = z.object({ scope: z.enum(SCOPE_KINDS, { error: `one of ${SCOPE_KINDS.join(', ')}` }), id });
const querystring = z.strictObject({ tenantId: id.optional().describe('Left out: `default`') });

export function registerBudgets(app: App, parts: RouteParts): void {
  const { limits } = parts.stores;
  const common = { tags: ['budgets'], params, querystring };

  app.get(
    '/budgets/:scope/:id',
    {
      schema: { ...common, summary: 'Limits of a scope', response: { 200: budget, default: problemAnswer } },
    },
    async (request) => viewOf(parts, ...scopeOf(request)),
  );

  app.put(
    '/budgets/:scope/:id',
    {
      schema: {
        ...common,
        summary: 'Replace all limits of a scope',
        description: 'They bind from the next call on.',
        body: budgetInput,
        response: { 200: budget, default: problemAnswer },
      },
    },
    async (request) => {
      const [tenantId, scope] = scopeOf(request);
      if (!SETTABLE.includes(scope.kind))
        throw invalidRequest([
          {
            path: 'scope',
            expected: `one of ${SETTABLE.join(', ')} (not available yet: ${scope.kind})`,
            got: JSON.stringify(scope.kind),
          },
        ]);
      await limits.set(tenantId, scope, toLimits(request.body));
      return viewOf(parts, tenantId, scope);
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
      if (!(await limits.remove(tenantId, scope)))
        throw notFound(`nobody set limits on ${scope.kind} ${scope.id}`);
      return reply.code(204).send();
    },
  );

  app.get(
    '/budgets/:scope/:id/explain',
    {
      schema: {
        ...common,
        summary: 'What binds a scope, what is spent and held, why it was refused last',
        response: { 200: explanation, default: problemAnswer },
      },
    },
    async (request) => explain(parts, ...scopeOf(request)),
  );
}

type ScopeRequest = { readonly params: z.infer<typeof params>; readonly query: z.infer<typeof querystring> };

function scopeOf({ params: { scope, id: scopeId }, query }: ScopeRequest): [string, Scope] {
  return [query.tenantId ?? DEFAULT_TENANT, { kind: scope, id: scopeId }];
}

async function viewOf(
  { stores: { limits } }: RouteParts,
  tenantId: string,
  scope: Scope,
): Promise<BudgetView> {
  const own = await limits.get(tenantId, scope);
  return {
    scope: scope.kind,
    id: scope.id,
    tenantId,
    limits: (own ?? limits.defaultsOf(scope.kind)).map(toLimitView),
    isDefault: own === undefined,
  };
}

function toLimitView(limit: Limit): LimitView {
  const { unit: of, window, hard, warnAt, amount } = limit;
  return { unit: of, window, amount: show(of, amount), hard, warnAt };
}

/** Only limits that are enforced bind; the others are named in a warning when a process starts. */
async function explain({ stores }: RouteParts, tenantId: string, scope: Scope): Promise<BudgetExplanation> {
  const [own, settled, held, refusal] = await Promise.all([
    stores.limits.get(tenantId, scope),
    stores.accounts.settled(tenantId, scope),
    stores.accounts.held(tenantId, scope),
    stores.limits.lastRefusal(tenantId, scope),
  ]);
  const binding = (own ?? stores.limits.defaultsOf(scope.kind)).filter((limit) =>
    isEnforced({ ...limit, scope }),
  );
  return {
    scope: scope.kind,
    id: scope.id,
    limits: binding.map(({ unit: of, window, hard, amount }) => {
      const [spent, open] = of === 'usd' ? [settled.nanoUsd, held.nanoUsd] : [settled.tokens, held.tokens];
      const left = amount - spent - open;
      return {
        unit: of,
        window,
        amount: show(of, amount),
        hard,
        settled: show(of, spent),
        held: show(of, open),
        remaining: show(of, left < 0n ? 0n : left),
      };
    }),
    ...(refusal === undefined ? {} : { lastRefusal: { ...refusal.details, at: refusal.at.toISOString() } }),
  };
}

function show(of: Limit['unit'], amount: bigint): string {
  return of === 'usd' ? formatUsd(amount) : amount.toString();
}
