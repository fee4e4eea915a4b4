// What somebody may decide about a parked task, and by how much a task's budget may be raised: the only authority on both, asked by
// the workflow before it takes an update and by the gateway before it sends one. Pure; faults are collected, never thrown.

import { toBudgetName } from './budget.ts';
import type { BudgetExceededDetails, Fault } from './failure.ts';
import { describeValue, unknownFieldFault } from './input-fields.ts';
import { formatUsd, MAX_LIMIT_NANO_USD, parseUsd } from './money.ts';
import { isCleanText } from './text.ts';

export const APPROVAL_STATUSES = ['pending', 'approved', 'rejected', 'timed_out', 'withdrawn'] as const;
export type ApprovalStatus = (typeof APPROVAL_STATUSES)[number];

export const DECISIONS = ['approve', 'reject'] as const;

/** A valid decision. `raiseUsd` is canonical decimal text, above 0. */
export type Decision = {
  readonly approvalId: string;
  readonly decision: (typeof DECISIONS)[number];
  readonly raiseUsd?: string;
  readonly comment?: string;
  readonly by: string;
};

/** A valid raise: at least one of the two, above 0; `usd` is canonical decimal text. */
export type Raise = { readonly usd?: string; readonly tokens?: number; readonly by: string };

export type Parsed<Value> =
  | { readonly kind: 'valid'; readonly value: Value }
  | { readonly kind: 'invalid'; readonly faults: readonly Fault[] };

/** What a task waits for that asks to pass a budget, as its row, timer and page show it. */
export function toApprovalName(exceeded: BudgetExceededDetails): string {
  return `approval to pass the ${toBudgetName(exceeded)}`;
}

const MAX_ID = 256;
const MAX_NAME = 128;
/** Goes through a history and into a failure's details. */
const MAX_COMMENT = 500;
const MAX_TOKENS = 100_000_000;

type Field = {
  readonly expected: string;
  readonly required?: boolean;
  /** The value as it is kept, undefined when it is wrong. */
  readonly parse: (value: unknown) => unknown;
};

const decisionFields: Readonly<Record<string, Field>> = {
  approvalId: text('the id of an approval', MAX_ID, true),
  decision: {
    expected: `one of ${DECISIONS.join(', ')}`,
    required: true,
    parse: (value) => DECISIONS.find((known) => known === value),
  },
  raiseUsd: usd(),
  comment: text(`a text of at most ${MAX_COMMENT} characters`, MAX_COMMENT),
  by: text(`who decides, at most ${MAX_NAME} characters`, MAX_NAME, true),
};

const raiseFields: Readonly<Record<string, Field>> = {
  usd: usd(),
  tokens: {
    expected: `a whole number from 1 to ${MAX_TOKENS}`,
    parse: (value) =>
      Number.isInteger(value) && Number(value) >= 1 && Number(value) <= MAX_TOKENS ? value : undefined,
  },
  by: text(`who raises it, at most ${MAX_NAME} characters`, MAX_NAME, true),
};

/** Checks the argument of `decideApproval`. `exceeded` is what the approval asks to pass, where that is known. */
export function parseDecision(value: unknown, exceeded?: BudgetExceededDetails): Parsed<Decision> {
  const parsed = parseFields<Decision>(value, decisionFields);
  if (parsed.kind === 'invalid') return parsed;
  const { decision, raiseUsd } = parsed.value;
  if (raiseUsd === undefined) return parsed;
  const got = JSON.stringify(raiseUsd);
  if (decision === 'reject') return invalid('raiseUsd', 'nothing: what is rejected raises no limit', got);
  if (exceeded !== undefined && exceeded.unit !== 'usd')
    return invalid('raiseUsd', `nothing: the limit counts ${exceeded.unit}, USD cannot raise it`, got);
  return parsed;
}

/** Checks the argument of `raiseBudget`. */
export function parseRaise(value: unknown): Parsed<Raise> {
  const parsed = parseFields<Raise>(value, raiseFields);
  if (parsed.kind === 'invalid') return parsed;
  const { usd: amount, tokens } = parsed.value;
  if (amount === undefined && tokens === undefined)
    return invalid('usd', 'at least one of usd and tokens', 'neither');
  return parsed;
}

function parseFields<Value>(value: unknown, fields: Readonly<Record<string, Field>>): Parsed<Value> {
  const expected = `an object with ${Object.keys(fields).join(', ')}`;
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return invalid('', expected, describeValue(value));
  const faults: Fault[] = Object.entries(value)
    .filter(([name]) => !Object.hasOwn(fields, name))
    .slice(0, 5)
    .map(([name, extra]) => unknownFieldFault('', name, extra));
  const kept: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(fields)) {
    const given: unknown = Object.hasOwn(value, name) ? Reflect.get(value, name) : undefined;
    if (given === undefined && field.required !== true) continue;
    const parsed = given === undefined ? undefined : field.parse(given);
    if (parsed !== undefined) kept[name] = parsed;
    else
      faults.push({
        path: name,
        expected: field.expected,
        got: given === undefined ? 'nothing' : describeValue(given),
      });
  }
  if (faults.length > 0) return { kind: 'invalid', faults };
  // Every field was produced by its own parser, whose result types are those of the value.
  return { kind: 'valid', value: kept as Value };
}

function invalid(path: string, expected: string, got: string) {
  return { kind: 'invalid', faults: [{ path, expected, got }] } as const;
}

function usd(): Field {
  return {
    expected: 'an amount in USD above 0, at most 9000000, with at most 9 decimals',
    parse: (value) => {
      const nano = typeof value === 'string' || typeof value === 'number' ? parseUsd(value) : undefined;
      return nano === undefined || nano === 0n || nano > MAX_LIMIT_NANO_USD ? undefined : formatUsd(nano);
    },
  };
}

function text(expected: string, longest: number, required = false): Field {
  const isGood = (value: unknown): value is string =>
    typeof value === 'string' && value.length <= longest && value.trim() !== '' && isCleanText(value);
  return { expected, required, parse: (value) => (isGood(value) ? value : undefined) };
}
