// The input of `runTask` and the only authority on what is valid. Plain code without libraries: the workflow calls it first, the
// gateway calls it too. Faults are collected, never thrown.

import type { ExceededPolicy } from './budget.ts';
import type { Fault } from './failure.ts';
import {
  describeValue,
  ID_PATTERN,
  type InputField,
  inputFields,
  MAX_FAULTS,
  unknownFieldFault,
} from './input-fields.ts';
import { isTooDeep, MAX_JSON_DEPTH } from './json.ts';
import type { Message, ResponseFormat } from './message.ts';
import { utf8Bytes } from './text.ts';

export const STRATEGIES = [
  'auto',
  'simple',
  'dag',
  'react',
  'research',
  'reflection',
  'debate',
  'tree_of_thoughts',
] as const;
export const PRIORITIES = ['critical', 'high', 'normal', 'low'] as const;
export const TIERS = ['small', 'medium', 'large'] as const;
/** How hard a model is asked to think. */
export const REASONING_EFFORTS = ['minimal', 'low', 'medium', 'high'] as const;
export const ABORT_POLICIES = ['cancel', 'drain', 'detach'] as const;

export type Strategy = (typeof STRATEGIES)[number];
export type Priority = (typeof PRIORITIES)[number];
export type Tier = (typeof TIERS)[number];
export type ReasoningEffort = (typeof REASONING_EFFORTS)[number];
/** What a cancellation does to a call under way: end it and pay what came, wait for its usage, or let it finish. */
export type AbortPolicy = (typeof ABORT_POLICIES)[number];

/** How long a task waits for somebody's decision, and what then. */
export type ApprovalPolicy = {
  readonly before: 'never';
  readonly timeoutSeconds: number;
  readonly onTimeout: 'reject' | 'approve';
};

/** A valid input with its defaults filled in. Money is a canonical decimal string in USD. */
export type TaskInput = {
  readonly messages: readonly Message[];
  readonly tenantId: string;
  readonly userId: string;
  readonly sessionId?: string;
  readonly strategy: Strategy;
  readonly tier?: Tier;
  readonly model?: string;
  readonly maxOutputTokens?: number;
  readonly temperature?: number;
  /** Passed on to models that can reason; others answer without it. */
  readonly reasoningEffort?: ReasoningEffort;
  readonly responseFormat?: ResponseFormat;
  readonly tools: readonly string[];
  readonly budget: { readonly usd?: string; readonly tokens?: number; readonly onExceeded: ExceededPolicy };
  readonly approval: ApprovalPolicy;
  readonly priority: Priority;
  readonly deadline?: string;
  readonly abort: AbortPolicy;
  readonly labels: Readonly<Record<string, string>>;
};

export type ParsedInput =
  | { readonly kind: 'valid'; readonly input: TaskInput }
  | { readonly kind: 'invalid'; readonly faults: readonly Fault[] };

/** Largest input as JSON. Temporal itself refuses a start above 2 MiB. */
export const MAX_INPUT_BYTES = 1024 * 1024;

/** Checks an input and fills in defaults. All faults are reported at once, at most 20. */
export function parseTaskInput(value: unknown): ParsedInput {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return invalid([
      { path: '', expected: 'an object', got: Array.isArray(value) ? 'a list' : describeValue(value) },
    ]);
  if (isTooDeep(value))
    return invalid([{ path: '', expected: `at most ${MAX_JSON_DEPTH} levels of nesting`, got: 'more' }]);
  const bytes = utf8Bytes(JSON.stringify(value));
  if (bytes > MAX_INPUT_BYTES)
    return invalid([
      { path: '', expected: `at most ${MAX_INPUT_BYTES} bytes of JSON`, got: `${bytes} bytes` },
    ]);

  const given = value as Readonly<Record<string, unknown>>;
  const fields = parseFields(given);
  const faults = [...unknownFieldFaults(given), ...exclusiveFaults(given), ...fields.faults];
  if (faults.length > 0) return invalid(faults);
  const { query, ...rest } = fields.parsed;
  if (typeof query === 'string') rest['messages'] = [{ role: 'user', content: query }];
  // Every field was produced by its own parser, whose result types are those of TaskInput.
  return { kind: 'valid', input: rest as TaskInput };
}

function parseFields(given: Readonly<Record<string, unknown>>): {
  parsed: Record<string, unknown>;
  faults: Fault[];
} {
  const parsed: Record<string, unknown> = {};
  const faults: Fault[] = [];
  for (const [name, field] of Object.entries<InputField>(inputFields)) {
    const value = Object.hasOwn(given, name) ? given[name] : undefined;
    if (value === undefined && field.required)
      faults.push({ path: name, expected: field.expected, got: 'nothing' });
    const result = value === undefined ? undefined : field.parse(value, name);
    // One by one: a spread of a hundred thousand faults overflows the stack.
    if (result?.kind === 'faults') for (const fault of result.faults) faults.push(fault);
    const kept = result?.kind === 'value' ? result.value : field.defaultValue;
    if (kept !== undefined) parsed[name] = kept;
  }
  return { parsed, faults };
}

/** Whether a text may be used as tenant, user, session or workflow id. */
export function isId(text: string): boolean {
  return ID_PATTERN.test(text);
}

/** The fault of a bad workflow id, or nothing. A workflow cannot refuse its own id before it runs. */
export function taskIdFault(taskId: string): Fault | undefined {
  if (isId(taskId)) return undefined;
  return {
    path: 'taskId',
    expected: 'an id of 1 to 128 characters out of A-Z a-z 0-9 . _ : @ -',
    got: describeValue(taskId),
  };
}

function invalid(faults: readonly Fault[]): ParsedInput {
  return { kind: 'invalid', faults: faults.slice(0, MAX_FAULTS) };
}

function unknownFieldFaults(given: Readonly<Record<string, unknown>>): Fault[] {
  return Object.keys(given)
    .filter((name) => !Object.hasOwn(inputFields, name))
    .slice(0, MAX_FAULTS)
    .map((name) => unknownFieldFault('', name, given[name]));
}

function exclusiveFaults(given: Readonly<Record<string, unknown>>): Fault[] {
  const faults: Fault[] = [];
  const hasQuery = given['query'] !== undefined;
  if (hasQuery === (given['messages'] !== undefined))
    faults.push({ path: 'query', expected: 'one of query and messages', got: hasQuery ? 'both' : 'neither' });
  if (given['tier'] !== undefined && given['model'] !== undefined)
    faults.push({ path: 'tier', expected: 'at most one of tier and model', got: 'both' });
  return faults;
}
