// Routes that explain budgets: which limits bind a scope or a task, what is settled and held in each limit's window, how near it is,
// and why the last refusal happened. They read Postgres alone and decide nothing.

import { z } from 'zod';
import type { BudgetExplanation, ExplainedLimit, TaskExplanation, TaskView } from '../client/wire.ts';
import type { Spent } from '../stores/accounts.ts';
import type { BindingLimit, Limit, Payer, Scope } from '../task/budget.ts';
import { PRESSURES } from '../task/decision.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import { formatUsd } from '../task/money.ts';
import { pressureOf } from '../task/pressure.ts';
import { TASK_STATUSES } from '../task/status.ts';
import { type Interval, toIntervalKey } from '../task/window.ts';
import { budgetParams, budgetQuery, scopeOf } from './budget-scope.ts';
import { notFound } from './errors.ts';
import type { App, RouteParts } from './parts.ts';
import { id, problemAnswer } from './schemas.ts';
import { findTask } from './task-view.ts';

const explainedLimit = {
  unit: z.enum(['usd', 'tokens']),
  window: z.string(),
  zone: z.string().exactOptional(),
  amount: z.string(),
  hard: z.boolean(),
  settled: z.string(),
  held: z.string(),
  remaining: z.string(),
  pressure: z
    .enum(PRESSURES)
    .describe('Of settled and held: below 50 % low, below 75 % medium, below 90 % high, else critical'),
  resetsAt: z.string().exactOptional(),
};
const refusal = z.looseObject({ at: z.string() }).exactOptional();

const explanation: z.ZodType<BudgetExplanation> = z
  .object({
    scope: z.string(),
    id: z.string(),
    limits: z.array(z.object(explainedLimit)),
    lastRefusal: refusal,
  })
  .meta({ id: 'BudgetExplanation' });

const taskExplanation: z.ZodType<TaskExplanation> = z
  .object({
    taskId: z.string(),
    status: z.enum(TASK_STATUSES),
    waiting: z.object({ reason: z.string(), until: z.string().exactOptional() }).exactOptional(),
    limits: z.array(z.object({ scope: z.string(), id: z.string(), ...explainedLimit })),
    lastRefusal: refusal.describe(
      'What ended the task; while it goes on, the newest refusal since it began by a limit that binds it',
    ),
  })
  .meta({ id: 'TaskExplanation' });

export function registerExplain(app: App, parts: RouteParts): void {
  app.get(
    '/budgets/:scope/:id/explain',
    {
      schema: {
        tags: ['budgets'],
        params: budgetParams,
        querystring: budgetQuery,
        summary: 'What binds a scope, what is spent and held, why it was refused last',
        response: { 200: explanation, default: problemAnswer },
      },
    },
    async (request) => explainScope(parts, ...scopeOf(request)),
  );

  app.get(
    '/tasks/:taskId/explain',
    {
      schema: {
        tags: ['tasks'],
        params: z.object({ taskId: id }),
        summary: 'Every limit that binds a task, where it is parked, why it was refused last',
        description: 'What was granted to the task alone is in the amounts.',
        response: { 200: taskExplanation, default: problemAnswer },
      },
    },
    async ({ params: { taskId } }) => {
      const task = await findTask({ tasks: parts.stores.tasks, client: parts.client }, taskId);
      if (task === undefined) throw notFound(`there is no task ${taskId}`);
      return explainTask(parts, task);
    },
  );
}

async function explainScope(parts: RouteParts, tenantId: string, scope: Scope): Promise<BudgetExplanation> {
  const [limits, refused] = await Promise.all([
    limitsOf(parts, tenantId, scope),
    parts.stores.limits.lastRefusal(tenantId, scope),
  ]);
  return {
    scope: scope.kind,
    id: scope.id,
    limits: (await explainLimits(parts, tenantId, limits)).map(({ scope: _, id: __, ...limit }) => limit),
    ...(refused === undefined ? {} : { lastRefusal: toRefusal(refused) }),
  };
}

/** What was granted to a task binds it as well, and is in the amounts of `binding` alone. */
async function limitsOf(
  { stores: { limits } }: RouteParts,
  tenantId: string,
  scope: Scope,
): Promise<readonly BindingLimit[]> {
  if (scope.kind === 'task') {
    const all = await limits.binding({ tenantId, userId: '', taskId: scope.id });
    return all.filter((limit) => limit.scope.kind === 'task');
  }
  const own = (await limits.get(tenantId, scope)) ?? limits.defaultsOf(scope.kind);
  return own.map((limit) => ({ ...limit, scope }));
}

async function explainTask(parts: RouteParts, task: TaskView): Promise<TaskExplanation> {
  const { taskId, status, waiting, tenantId, userId, sessionId } = task;
  const payer: Payer = { tenantId, userId, taskId, ...(sessionId === undefined ? {} : { sessionId }) };
  // Of a task that was started past the gateway and has not begun, nobody may know whose it is: nothing binds it yet.
  const binding = tenantId === '' ? [] : await parts.stores.limits.binding(payer);
  const [limits, refused] = await Promise.all([
    explainLimits(parts, tenantId, binding),
    lastRefusalOf(parts, task, binding),
  ]);
  return {
    taskId,
    status,
    ...(waiting === undefined ? {} : { waiting }),
    limits,
    ...(refused === undefined ? {} : { lastRefusal: refused }),
  };
}

type Refusal = NonNullable<BudgetExplanation['lastRefusal']>;

async function lastRefusalOf(
  { stores: { limits } }: RouteParts,
  task: TaskView,
  binding: readonly BindingLimit[],
): Promise<Refusal | undefined> {
  const { error, endedAt, createdAt, tenantId } = task;
  if (endedAt !== undefined)
    return error?.type === 'BudgetExceeded' ? { ...Object(error.details), at: endedAt } : undefined;
  const scopes = new Map(binding.map(({ scope }) => [`${scope.kind} ${scope.id}`, scope]));
  const refusals = await Promise.all(
    [...scopes.values()].map((scope) => limits.lastRefusal(tenantId, scope)),
  );
  const newest = refusals
    .filter((found) => found !== undefined)
    .toSorted((left, right) => right.at.getTime() - left.at.getTime())[0];
  if (newest === undefined || newest.at.getTime() < Date.parse(createdAt)) return undefined;
  return toRefusal(newest);
}

function toRefusal({ details, at }: { readonly details: BudgetExceededDetails; readonly at: Date }): Refusal {
  return { ...details, at: at.toISOString() };
}

/** Each by the sums of its own window; limits of one scope and window share a query. By this process's clock: nothing is decided. */
async function explainLimits(
  { stores: { limits, accounts } }: RouteParts,
  tenantId: string,
  binding: readonly BindingLimit[],
): Promise<readonly (ExplainedLimit & { readonly scope: string; readonly id: string })[]> {
  const nowMs = Date.now();
  const sums = new Map<string, Promise<readonly [Spent, Spent]>>();
  const sumsOf = (scope: Scope, interval: Interval) => {
    const key = `${scope.kind} ${scope.id} ${toIntervalKey(interval)}`;
    const asked =
      sums.get(key) ??
      Promise.all([
        accounts.settled(tenantId, scope, interval),
        accounts.held(tenantId, scope, interval),
      ] as const);
    sums.set(key, asked);
    return asked;
  };
  return Promise.all(
    binding.map(async (limit) => {
      const interval = limits.intervalOf(limit, nowMs);
      const [settled, held] = await sumsOf(limit.scope, interval);
      return {
        scope: limit.scope.kind,
        id: limit.scope.id,
        ...explainLimit(limit, interval, { settled, held }),
      };
    }),
  );
}

function explainLimit(
  { unit, window, zone, amount, hard }: Limit,
  interval: Interval,
  sums: { readonly settled: Spent; readonly held: Spent },
): ExplainedLimit {
  const pick = (spent: Spent) => (unit === 'usd' ? spent.nanoUsd : spent.tokens);
  const show = (value: bigint) => (unit === 'usd' ? formatUsd(value) : value.toString());
  const [settled, held] = [pick(sums.settled), pick(sums.held)];
  const left = amount - settled - held;
  return {
    unit,
    window,
    ...(zone === undefined ? {} : { zone }),
    amount: show(amount),
    hard,
    settled: show(settled),
    held: show(held),
    remaining: show(left < 0n ? 0n : left),
    pressure: pressureOf(settled + held, amount),
    ...(interval.endMs === Number.POSITIVE_INFINITY
      ? {}
      : { resetsAt: new Date(interval.endMs).toISOString() }),
  };
}
