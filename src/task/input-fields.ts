// The table of `runTask`'s input: for each field its default, what is expected, and its check. The gateway's web schema is held
// against it by a test. Pure.

import { EXCEEDED_POLICIES } from './budget.ts';
import type { Fault } from './failure.ts';
import { hasUncleanText } from './json.ts';
import { MESSAGE_ROLES, messageText } from './message.ts';
import { formatUsd, MAX_LIMIT_NANO_USD, parseUsd } from './money.ts';
import { cleanText, isCleanText } from './text.ts';

export type FieldResult =
  | { readonly kind: 'value'; readonly value: unknown }
  | { readonly kind: 'faults'; readonly faults: readonly Fault[] };

export type InputField = {
  readonly expected: string;
  readonly required?: boolean;
  readonly defaultValue?: unknown;
  readonly parse: (value: unknown, path: string) => FieldResult;
};

export const ID_PATTERN = /^[A-Za-z0-9._:@-]{1,128}$/;

/** Faults beyond these are left out, so that a failure's details stay small and a hostile input costs no time. */
export const MAX_FAULTS = 20;

const MAX_TOKENS = 100_000_000;
const NOT_YET = 'not available yet';
const DEFAULT_APPROVAL_SECONDS = 86_400;
const ID_EXPECTED = 'an id of 1 to 128 characters out of A-Z a-z 0-9 . _ : @ -';
const ISO_TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})$/;

export const inputFields = {
  query: field('a text with something in it, without NUL and lone surrogates', (value) =>
    typeof value === 'string' && isCleanText(value) && value.trim() !== '' ? value : undefined,
  ),
  messages: { expected: 'a list of 1 to 1000 messages', parse: parseMessages },
  tenantId: { ...id(), defaultValue: 'default' },
  userId: { ...id(), required: true },
  sessionId: id(),
  strategy: {
    ...oneOf(['auto', 'simple'], ['dag', 'react', 'research', 'reflection', 'debate', 'tree_of_thoughts']),
    defaultValue: 'auto',
  },
  tier: oneOf(['small', 'medium', 'large']),
  model: field('a model as "provider/model", at most 200 characters', (value) =>
    typeof value === 'string' &&
    value.length <= 200 &&
    /^[A-Za-z0-9._-]+\/\S+$/.test(value) &&
    isCleanText(value)
      ? value
      : undefined,
  ),
  maxOutputTokens: integer(1, 10_000_000),
  temperature: field('a number from 0 to 2', (value) =>
    typeof value === 'number' && value >= 0 && value <= 2 ? value : undefined,
  ),
  reasoningEffort: oneOf(['minimal', 'low', 'medium', 'high']),
  responseFormat: {
    expected: 'text, json, or {type: text | json | json_schema, schema}',
    parse: parseResponseFormat,
  },
  tools: {
    ...field('a list of at most 64 names', (value) =>
      Array.isArray(value) &&
      value.length <= 64 &&
      value.every((name) => typeof name === 'string' && ID_PATTERN.test(name))
        ? value
        : undefined,
    ),
    defaultValue: [],
  },
  budget: {
    ...object({ usd: usd(), tokens: integer(0, MAX_TOKENS), onExceeded: onExceeded() }),
    defaultValue: { onExceeded: 'refuse' },
  },
  approval: {
    ...object({
      before: { ...oneOf(['never'], ['start', 'tools']), defaultValue: 'never' },
      timeoutSeconds: { ...integer(1, 31_536_000), defaultValue: DEFAULT_APPROVAL_SECONDS },
      onTimeout: { ...oneOf(['reject', 'approve']), defaultValue: 'reject' },
    }),
    defaultValue: { before: 'never', timeoutSeconds: DEFAULT_APPROVAL_SECONDS, onTimeout: 'reject' },
  },
  priority: { ...oneOf(['critical', 'high', 'normal', 'low']), defaultValue: 'normal' },
  deadline: field('an ISO 8601 time with a zone, such as 2030-01-31T12:00:00Z', (value) =>
    typeof value === 'string' &&
    ISO_TIME.test(value) &&
    isDay(value.slice(0, 10)) &&
    !Number.isNaN(Date.parse(value))
      ? new Date(value).toISOString()
      : undefined,
  ),
  abort: { ...oneOf(['cancel', 'drain', 'detach']), defaultValue: 'cancel' },
  labels: {
    ...field('at most 20 labels, each an id with a text of at most 256 characters', parseLabels),
    defaultValue: {},
  },
} as const satisfies Record<string, InputField>;

/** A value as an error message shows it: its JSON, at most 100 characters, cut at a character. */
export function describeValue(value: unknown): string {
  const text = cleanText(
    typeof value === 'string'
      ? JSON.stringify(value.slice(0, 200))
      : (JSON.stringify(value) ?? String(value)),
  );
  const characters = Array.from(text.slice(0, 220));
  return characters.length <= 100 ? characters.join('') : `${characters.slice(0, 99).join('')}…`;
}

/** A field that nobody knows. Its name is a stranger's text and stands in failures, so it is cut and cleaned. */
export function unknownFieldFault(prefix: string, name: string, value: unknown): Fault {
  const shown = cleanText(name.slice(0, 100));
  return { path: `${prefix}${shown}`, expected: 'no such field', got: describeValue(value) };
}

/** Date.parse takes the 30th of February for the 2nd of March. */
function isDay(date: string): boolean {
  const atMs = Date.parse(`${date}T00:00Z`);
  return !Number.isNaN(atMs) && new Date(atMs).toISOString().startsWith(date);
}

function ok(value: unknown): FieldResult {
  return { kind: 'value', value };
}

function fault(path: string, expected: string, value: unknown): FieldResult {
  return { kind: 'faults', faults: [{ path, expected, got: describeValue(value) }] };
}

/** A field whose check answers the parsed value, or undefined when the value is wrong. */
function field(expected: string, parse: (value: unknown) => unknown): InputField {
  return {
    expected,
    parse: (value, path) => {
      const parsed = parse(value);
      return parsed === undefined ? fault(path, expected, value) : ok(parsed);
    },
  };
}

function id(): InputField {
  return field(ID_EXPECTED, (value) =>
    typeof value === 'string' && ID_PATTERN.test(value) ? value : undefined,
  );
}

function integer(min: number, max: number): InputField {
  return field(`a whole number from ${min} to ${max}`, (value) =>
    Number.isInteger(value) && Number(value) >= min && Number(value) <= max ? value : undefined,
  );
}

function usd(): InputField {
  return field('an amount in USD from 0 to 9000000 with at most 9 decimals', (value) => {
    const nano = typeof value === 'string' || typeof value === 'number' ? parseUsd(value) : undefined;
    return nano === undefined || nano > MAX_LIMIT_NANO_USD ? undefined : formatUsd(nano);
  });
}

/** A word out of a list. Words that the product will know one day are told apart from nonsense. */
function oneOf(words: readonly string[], notYet: readonly string[] = []): InputField {
  const expected = `one of ${words.join(', ')}`;
  return {
    expected,
    parse: (value, path) => {
      if (typeof value === 'string' && words.includes(value)) return ok(value);
      const later = typeof value === 'string' && notYet.includes(value);
      return fault(path, later ? `${expected} (${NOT_YET}: ${value})` : expected, value);
    },
  };
}

function onExceeded(): InputField {
  return { ...oneOf(EXCEEDED_POLICIES), defaultValue: 'refuse' };
}

/** An object of known fields, each with its own check; paths are dotted. */
function object(fields: Readonly<Record<string, InputField>>): InputField {
  const expected = `an object with ${Object.keys(fields).join(', ')}`;
  return {
    expected,
    parse: (value, path) => {
      if (typeof value !== 'object' || value === null || Array.isArray(value))
        return fault(path, expected, value);
      const faults = Object.entries(value)
        .filter(([name]) => !Object.hasOwn(fields, name))
        .slice(0, MAX_FAULTS)
        .map(([name, extra]) => unknownFieldFault(`${path}.`, name, extra));
      const parsed: Record<string, unknown> = {};
      for (const [name, inner] of Object.entries(fields)) {
        const given: unknown = Object.hasOwn(value, name) ? Reflect.get(value, name) : undefined;
        const result = given === undefined ? ok(inner.defaultValue) : inner.parse(given, `${path}.${name}`);
        if (result.kind === 'faults') faults.push(...result.faults);
        else if (result.value !== undefined) parsed[name] = result.value;
      }
      return faults.length > 0 ? { kind: 'faults', faults } : ok(parsed);
    },
  };
}

function parseMessages(value: unknown, path: string): FieldResult {
  if (!Array.isArray(value) || value.length === 0 || value.length > 1000)
    return fault(
      path,
      'a list of 1 to 1000 messages',
      Array.isArray(value) ? `${value.length} messages` : value,
    );
  const faults = value.flatMap((message: unknown, index) => messageFaults(message, `${path}.${index}`));
  if (faults.length > 0) return { kind: 'faults', faults };
  const hasText = value.some((message) => message.role === 'user' && messageText(message).trim() !== '');
  return hasText ? ok(value) : fault(path, 'at least one user message with a text', value);
}

function messageFaults(message: unknown, path: string): Fault[] {
  if (typeof message !== 'object' || message === null || Array.isArray(message))
    return [{ path, expected: 'a message {role, content}', got: describeValue(message) }];
  const faults: Fault[] = [];
  const { role, content, ...rest } = message as Record<string, unknown>;
  for (const [name, extra] of Object.entries(rest).slice(0, MAX_FAULTS))
    faults.push(unknownFieldFault(`${path}.`, name, extra));
  if (!MESSAGE_ROLES.some((known) => known === role))
    faults.push({
      path: `${path}.role`,
      expected: `one of ${MESSAGE_ROLES.join(', ')}`,
      got: describeValue(role),
    });
  // A tool's answer needs the call it answers, which comes with tools.
  if (role === 'tool')
    faults.push({
      path: `${path}.role`,
      expected: `one of system, user, assistant (${NOT_YET}: tool)`,
      got: '"tool"',
    });
  return [...faults, ...contentFaults(content, `${path}.content`)];
}

function contentFaults(content: unknown, path: string): Fault[] {
  const expected = 'a text without NUL and lone surrogates, or a list of {type: "text", text}';
  if (typeof content === 'string')
    return isCleanText(content) ? [] : [{ path, expected, got: describeValue(content) }];
  if (!Array.isArray(content) || content.length === 0)
    return [{ path, expected, got: describeValue(content) }];
  return content.flatMap((part: unknown, index) => {
    const type: unknown = typeof part === 'object' && part !== null ? Reflect.get(part, 'type') : undefined;
    const text: unknown = typeof part === 'object' && part !== null ? Reflect.get(part, 'text') : undefined;
    if (
      type === 'text' &&
      typeof text === 'string' &&
      isCleanText(text) &&
      Object.keys(Object(part)).length === 2
    )
      return [];
    return [{ path: `${path}.${index}`, expected: '{type: "text", text}', got: describeValue(part) }];
  });
}

function parseResponseFormat(value: unknown, path: string): FieldResult {
  const expected = 'text, json, or {type: text | json | json_schema, schema}';
  if (value === 'text' || value === 'json') return ok({ type: value });
  if (typeof value !== 'object' || value === null || hasUncleanText(value))
    return fault(path, expected, value);
  const { type, name, schema, ...rest } = value as Record<string, unknown>;
  if (Object.keys(rest).length > 0) return fault(path, expected, value);
  if ((type === 'text' || type === 'json') && schema === undefined && name === undefined) return ok({ type });
  const named = name === undefined || (typeof name === 'string' && /^[A-Za-z0-9_-]{1,64}$/.test(name));
  const isSchema = typeof schema === 'object' && schema !== null && !Array.isArray(schema);
  return type === 'json_schema' && isSchema && named ? ok(value) : fault(path, expected, value);
}

function parseLabels(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const entries = Object.entries(value);
  const good = entries.every(
    ([name, text]) =>
      ID_PATTERN.test(name) && typeof text === 'string' && text.length <= 256 && isCleanText(text),
  );
  return good && entries.length <= 20 ? value : undefined;
}
