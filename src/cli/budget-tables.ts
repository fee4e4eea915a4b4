// What `weir budget` shows: limits, scopes with limits, and explanations with bars. It asks nobody anything.

import type {
  BudgetExplanation,
  BudgetPage,
  BudgetView,
  ExplainedLimit,
  TaskExplanation,
} from '../client/gateway-client.ts';
import { type Column, dim, say, table } from './print.ts';

const LIMIT_COLUMNS: readonly Column[] = [
  { title: 'unit' },
  { title: 'window' },
  { title: 'amount', right: true },
  { title: '' },
];

export function showBudget({ scope, id, limits, isDefault }: BudgetView): void {
  say(`${scope} ${id}${isDefault ? dim(' (configured defaults)') : ''}`);
  if (limits.length === 0) say(dim('no limits'));
  else table(LIMIT_COLUMNS, limits.map(toCells));
}

export function showBudgets({ budgets, truncated }: BudgetPage): void {
  if (budgets.length === 0) say(dim('nobody set limits: the configured ones hold'));
  else
    table(
      [{ title: 'scope' }, { title: 'id' }, ...LIMIT_COLUMNS],
      budgets.flatMap(({ scope, id, limits }) =>
        (limits.length === 0 ? [['–', '–', '–', 'nothing binds it']] : limits.map(toCells)).map((cells) => [
          scope,
          id,
          ...cells,
        ]),
      ),
    );
  if (truncated === true) say(dim('there are more than these (--limit)'));
}

export function showExplanation({ scope, id, limits, lastRefusal }: BudgetExplanation): void {
  say(`${scope} ${id}`);
  if (limits.length === 0) say(dim('no limits bind it'));
  else table(EXPLAINED_COLUMNS, limits.map(toExplainedCells));
  showRefusal(lastRefusal);
}

export function showTaskExplanation({ taskId, status, waiting, limits, lastRefusal }: TaskExplanation): void {
  const until = waiting?.until === undefined ? '' : ` until ${waiting.until}`;
  say(`task ${taskId}: ${waiting === undefined ? status : `${status} for ${waiting.reason}${until}`}`);
  if (limits.length === 0) say(dim('no limits bind it'));
  else
    table(
      [{ title: 'scope' }, { title: 'id' }, ...EXPLAINED_COLUMNS],
      limits.map((limit) => [limit.scope, limit.id, ...toExplainedCells(limit)]),
    );
  showRefusal(lastRefusal);
}

function toCells(limit: BudgetView['limits'][number]): readonly string[] {
  return [
    limit.unit,
    windowName(limit),
    limit.amount,
    `${limit.hard ? 'hard' : 'soft'}, warns at ${Math.round(limit.warnAt * 1_000) / 10} %`,
  ];
}

const EXPLAINED_COLUMNS: readonly Column[] = [
  { title: 'unit' },
  { title: 'window' },
  ...['limit', 'settled', 'held', 'remaining'].map((title) => ({ title, right: true })),
  { title: '' },
  { title: 'pressure' },
  { title: 'in use' },
  { title: 'resets at' },
];

function toExplainedCells(limit: ExplainedLimit): readonly string[] {
  return [
    limit.unit,
    windowName(limit),
    limit.amount,
    limit.settled,
    limit.held,
    limit.remaining,
    limit.hard ? 'hard' : 'soft',
    limit.pressure,
    useBar(limit),
    limit.resetsAt?.replace('.000Z', 'Z') ?? '',
  ];
}

function windowName({ window, zone }: { readonly window: string; readonly zone?: string }): string {
  return zone === undefined ? window : `${window} (${zone})`;
}

const BAR_LENGTH = 12;

/** Settled solid, held hatched, the rest dotted; what is in use at all is seen, and a limit that is passed is full. */
function useBar({ amount, settled, held }: ExplainedLimit): string {
  const cellsOf = (value: number) => {
    if (value <= 0) return 0;
    const limit = Number(amount);
    return limit > 0 ? Math.max(1, Math.round((value / limit) * BAR_LENGTH)) : BAR_LENGTH;
  };
  const solid = Math.min(BAR_LENGTH, cellsOf(Number(settled)));
  const hatched = Math.min(BAR_LENGTH - solid, cellsOf(Number(held)));
  return '█'.repeat(solid) + '▒'.repeat(hatched) + '·'.repeat(BAR_LENGTH - solid - hatched);
}

function showRefusal(refusal: BudgetExplanation['lastRefusal']): void {
  if (refusal === undefined) return;
  const { at, scope, id, unit, window, limit, settled, held, needed, resetsAt } = refusal;
  const span = window === 'total' ? 'in all' : `per ${window}`;
  const until = resetsAt === undefined ? '' : `, resets at ${resetsAt}`;
  say(
    `last refusal ${at}: ${scope} ${id}, ${unit} ${span}: limit ${limit}, settled ${settled}, held ${held}, needed ${needed}${until}`,
  );
}
