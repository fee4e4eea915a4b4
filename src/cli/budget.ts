// `weir budget`: the limits of a scope, read, replaced, taken away and explained.

import type { BudgetExplanation, BudgetView, LimitInput } from '../client/gateway-client.ts';
import type { CliEnvironment } from '../config.ts';
import { SCOPE_KINDS, type ScopeKind } from '../task/budget.ts';
import { parseUsd } from '../task/money.ts';
import type { AddressFlags } from './addresses.ts';
import { openGateway } from './connect.ts';
import { CliError } from './fault.ts';
import { dim, say, table } from './print.ts';

export type BudgetOptions = AddressFlags & {
  readonly tenant?: string;
  readonly usd?: string;
  readonly tokens?: string;
  readonly json?: boolean;
};

export const BUDGET_ACTIONS = ['get', 'set', 'remove', 'explain'] as const;
export type BudgetAction = (typeof BUDGET_ACTIONS)[number];

export async function runBudget(
  action: BudgetAction,
  target: { readonly scope: string; readonly id: string },
  options: BudgetOptions,
  environment: CliEnvironment,
): Promise<void> {
  const scope = toScope(target.scope);
  const { id } = target;
  const limits = action === 'set' ? toLimits(options) : [];
  const { budgets } = openGateway(options, environment);
  const tenant = { tenantId: options.tenant };
  const show = <Answer>(answer: Answer, inWords: (answer: Answer) => void) => {
    if (options.json === true) say(JSON.stringify(answer, null, 2));
    else inWords(answer);
  };
  switch (action) {
    case 'get':
      show(await budgets.get(scope, id, tenant), showBudget);
      return;
    case 'set':
      show(await budgets.set(scope, id, limits, tenant), showBudget);
      return;
    case 'remove':
      await budgets.remove(scope, id, tenant);
      if (options.json !== true) say(`${scope} ${id} has no limits of its own any more`);
      return;
    case 'explain':
      show(await budgets.explain(scope, id, tenant), showExplanation);
      return;
    default:
      action satisfies never;
  }
}

function toScope(text: string): ScopeKind {
  const scope = SCOPE_KINDS.find((known) => known === text);
  if (scope === undefined) throw new CliError(`a scope is one of ${SCOPE_KINDS.join(', ')}, got "${text}"`);
  return scope;
}

/** @throws CliError naming each amount that is none */
function toLimits({ usd, tokens }: BudgetOptions): readonly LimitInput[] {
  const faults: string[] = [];
  if (usd === undefined && tokens === undefined) faults.push('give --usd, --tokens or both');
  if (usd !== undefined && parseUsd(usd) === undefined)
    faults.push(`--usd is an amount such as 5.00, got "${usd}"`);
  if (tokens !== undefined && !/^\d{1,15}$/.test(tokens))
    faults.push(`--tokens is a whole number, got "${tokens}"`);
  if (faults.length > 0) throw new CliError(faults.join('\n'));
  return [
    ...(usd === undefined ? [] : [{ unit: 'usd', window: 'total', amount: usd } as const]),
    ...(tokens === undefined ? [] : [{ unit: 'tokens', window: 'total', amount: tokens } as const]),
  ];
}

function showBudget({ scope, id, limits, isDefault }: BudgetView): void {
  say(`${scope} ${id}${isDefault ? dim(' (configured defaults)') : ''}`);
  if (limits.length === 0) {
    say(dim('no limits'));
    return;
  }
  table(
    [{ title: 'unit' }, { title: 'window' }, { title: 'amount', right: true }, { title: '' }],
    limits.map((limit) => [
      limit.unit,
      limit.window,
      limit.amount,
      `${limit.hard ? 'hard' : 'soft'}, warns at ${Math.round(limit.warnAt * 100)} %`,
    ]),
  );
}

function showExplanation({ scope, id, limits, lastRefusal }: BudgetExplanation): void {
  say(`${scope} ${id}`);
  if (limits.length === 0) say(dim('no limits bind it'));
  else
    table(
      [
        { title: 'unit' },
        { title: 'window' },
        ...['limit', 'settled', 'held', 'remaining'].map((title) => ({ title, right: true })),
        { title: '' },
      ],
      limits.map((limit) => [
        limit.unit,
        limit.window,
        limit.amount,
        limit.settled,
        limit.held,
        limit.remaining,
        limit.hard ? 'hard' : 'soft',
      ]),
    );
  if (lastRefusal !== undefined) say(`last refusal: ${JSON.stringify(lastRefusal)}`);
}
