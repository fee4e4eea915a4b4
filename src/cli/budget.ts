// `weir budget`: the limits of a scope, read, replaced, added to, taken away and explained. What is shown is made in budget-tables.ts.

import type { GatewayClient, LimitInput } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import { LIMIT_WINDOWS, SCOPE_KINDS, type ScopeKind } from '../task/budget.ts';
import { toLimitKey } from '../task/limit-key.ts';
import { parseUsd } from '../task/money.ts';
import type { AddressFlags } from './addresses.ts';
import { showBudget, showBudgets, showExplanation, showTaskExplanation } from './budget-tables.ts';
import { openGateway } from './connect.ts';
import { CliError } from './fault.ts';
import { say } from './print.ts';

export type BudgetOptions = AddressFlags &
  LimitFlags & {
    readonly tenant?: string;
    /** Of `list`. */
    readonly scope?: string;
    readonly limit?: number;
    readonly json?: boolean;
  };

type LimitFlags = {
  readonly usd?: string;
  readonly tokens?: string;
  readonly window?: string;
  readonly zone?: string;
  readonly soft?: boolean;
  readonly warnAt?: string;
};

export const BUDGET_ACTIONS = ['get', 'set', 'add', 'remove', 'explain', 'list'] as const;
export type BudgetAction = (typeof BUDGET_ACTIONS)[number];

/** @throws CliError naming everything that is wrong with the arguments, before the gateway is asked */
export async function runBudget(
  action: BudgetAction,
  target: { readonly scope: string | undefined; readonly id: string | undefined },
  options: BudgetOptions,
  environment: CliEnvironment,
): Promise<void> {
  const isSetting = action === 'set' || action === 'add';
  if (!isSetting) refuseLimitFlags(action, options);
  if (action === 'list') {
    if (target.scope !== undefined) throw new CliError('list takes no scope of its own: give --scope');
    await list(openGateway(options, environment), options);
    return;
  }
  if (options.scope !== undefined || options.limit !== undefined)
    throw new CliError('--scope and --limit belong to list');
  const { scope, id } = target;
  if (scope === undefined || id === undefined)
    throw new CliError(`give a scope and an id, such as: weir budget ${action} user ada`);
  const command = { action, scope: toScope(scope), id, limits: isSetting ? toLimits(options) : [] };
  await runOnScope(command, openGateway(options, environment), options);
}

type ScopeCommand = {
  readonly action: Exclude<BudgetAction, 'list'>;
  readonly scope: ScopeKind;
  readonly id: string;
  readonly limits: readonly LimitInput[];
};

async function runOnScope(
  { action, scope, id, limits }: ScopeCommand,
  gateway: GatewayClient,
  options: BudgetOptions,
): Promise<void> {
  const { budgets } = gateway;
  const tenant = { tenantId: options.tenant };
  switch (action) {
    case 'get':
      show(options, await budgets.get(scope, id, tenant), showBudget);
      return;
    case 'set':
      show(options, await budgets.set(scope, id, limits, tenant), showBudget);
      return;
    case 'add': {
      // Not atomic: of two who add at the same time the later one may not have seen the other's.
      const known = await budgets.get(scope, id, tenant);
      show(options, await budgets.set(scope, id, added(known.limits, limits), tenant), showBudget);
      return;
    }
    case 'remove':
      await budgets.remove(scope, id, tenant);
      if (options.json !== true) say(`${scope} ${id} has no limits of its own any more`);
      return;
    case 'explain':
      if (scope === 'task') show(options, await gateway.explain(id), showTaskExplanation);
      else show(options, await budgets.explain(scope, id, tenant), showExplanation);
      return;
    default:
      action satisfies never;
  }
}

async function list(
  { budgets }: GatewayClient,
  { tenant, scope, limit, ...options }: BudgetOptions,
): Promise<void> {
  const kind = scope === undefined ? undefined : toScope(scope);
  show(options, await budgets.list({ tenantId: tenant, scope: kind, limit }), showBudgets);
}

function show<Answer>(
  { json }: Pick<BudgetOptions, 'json'>,
  answer: Answer,
  inWords: (answer: Answer) => void,
): void {
  if (json === true) say(JSON.stringify(answer, null, 2));
  else inWords(answer);
}

/** The known limits, configured defaults too, with these in the place of those they replace, or behind them. */
function added(known: readonly LimitInput[], more: readonly LimitInput[]): readonly LimitInput[] {
  const keyOf = ({ unit, window = 'total', hard = true, zone }: LimitInput) =>
    toLimitKey({ unit, window, hard, zone });
  return [...new Map([...known, ...more].map((limit) => [keyOf(limit), limit])).values()];
}

function toScope(text: string): ScopeKind {
  const scope = SCOPE_KINDS.find((known) => known === text);
  if (scope === undefined) throw new CliError(`a scope is one of ${SCOPE_KINDS.join(', ')}, got "${text}"`);
  return scope;
}

function refuseLimitFlags(action: BudgetAction, options: BudgetOptions): void {
  const flags = [
    ...(['usd', 'tokens', 'window', 'zone', 'soft'] as const).filter((name) => options[name] !== undefined),
    ...(options.warnAt === undefined ? [] : ['warn-at']),
  ];
  if (flags.length > 0)
    throw new CliError(`${flags.map((name) => `--${name}`).join(', ')}: for set and add, not for ${action}`);
}

/** One limit for each amount, all of the same window. @throws CliError naming each flag that is wrong */
function toLimits({ usd, tokens, window = 'total', zone, soft, warnAt }: LimitFlags): readonly LimitInput[] {
  const faults: string[] = [];
  if (usd === undefined && tokens === undefined) faults.push('give --usd, --tokens or both');
  if (usd !== undefined && parseUsd(usd) === undefined)
    faults.push(`--usd is an amount such as 5.00, got "${usd}"`);
  if (tokens !== undefined && !/^\d{1,16}$/.test(tokens))
    faults.push(`--tokens is a whole number, got "${tokens}"`);
  if (!LIMIT_WINDOWS.some((known) => known === window))
    faults.push(`--window is one of ${LIMIT_WINDOWS.join(', ')}, got "${window}"`);
  if (zone !== undefined && window === 'total')
    faults.push('--zone needs a --window that resets: hour, day, week or month');
  if (warnAt !== undefined && !/^(0(\.\d{1,9})?|1(\.0+)?)$/.test(warnAt))
    faults.push(`--warn-at is a share from 0 to 1 such as 0.9, got "${warnAt}"`);
  if (faults.length > 0) throw new CliError(faults.join('\n'));
  const common = {
    window,
    ...(zone === undefined ? {} : { zone }),
    ...(soft === true ? { hard: false } : {}),
    ...(warnAt === undefined ? {} : { warnAt: Number(warnAt) }),
  };
  return [
    ...(usd === undefined ? [] : [{ unit: 'usd', amount: usd, ...common } as const]),
    ...(tokens === undefined ? [] : [{ unit: 'tokens', amount: tokens, ...common } as const]),
  ];
}
