// The web schema of a task against the table that decides: the same fields, the same defaults, the same answer to every sample.

import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { taskInput } from '../../src/gateway/task-input-schema.ts';
import { parseTaskInput } from '../../src/task/input.ts';
import { type InputField, inputFields } from '../../src/task/input-fields.ts';

const document =
  z.toJSONSchema(taskInput, { io: 'input', unrepresentable: 'any' }).$defs?.['Submission'] ?? {};
const properties: Record<string, unknown> = document.properties ?? {};
const table = Object.entries<InputField>(inputFields);

const OBJECTS = new Set(['budget', 'approval']);

describe('the schema has', () => {
  test('the fields of the table and no other', () => {
    expect(Object.keys(properties).toSorted()).toEqual(Object.keys(inputFields).toSorted());
    expect(document.additionalProperties).toBe(false);
  });

  test('the required fields of the table', () => {
    const required = table.filter(([, field]) => field.required === true).map(([name]) => name);
    expect(document.required).toEqual(required);
  });

  test('the defaults of the table', () => {
    const ofTable = table.filter(([name, field]) => field.defaultValue !== undefined && !OBJECTS.has(name));
    const shown = Object.entries(properties).filter(([, schema]) => Reflect.has(Object(schema), 'default'));
    expect(
      Object.fromEntries(shown.map(([name, schema]) => [name, Reflect.get(Object(schema), 'default')])),
    ).toEqual(Object.fromEntries(ofTable.map(([name, field]) => [name, field.defaultValue])));
    // The default of these is an object whose fields have the same defaults of their own.
    for (const name of OBJECTS) {
      const inner: object = Object(Reflect.get(Object(properties[name]), 'properties'));
      const defaults = Object.entries(inner).filter(([, schema]) => Reflect.has(Object(schema), 'default'));
      expect(Object.fromEntries(defaults.map(([key, schema]) => [key, schema.default]))).toEqual(
        Object.fromEntries(table)[name]?.defaultValue,
      );
    }
  });
});

const base = { userId: 'u1', query: 'q' };
const { query: _, ...withoutQuery } = base;
const deep = (levels: number): unknown => (levels === 0 ? 1 : { a: deep(levels - 1) });
const user = (content: unknown) => ({ ...withoutQuery, messages: [{ role: 'user', content }] });
const schema = (inner: unknown) => ({ ...base, responseFormat: { type: 'json_schema', schema: inner } });

const GOOD: readonly unknown[] = [
  base,
  {
    ...base,
    tenantId: 'acme',
    sessionId: 's.1:2@3-4_5',
    strategy: 'simple',
    tier: 'large',
    priority: 'critical',
    abort: 'cancel',
  },
  { ...base, model: 'openai/gpt-5', maxOutputTokens: 1, temperature: 0 },
  { ...base, temperature: 2, maxOutputTokens: 10_000_000 },
  ...['minimal', 'low', 'medium', 'high'].map((reasoningEffort) => ({ ...base, reasoningEffort })),
  { ...base, budget: {} },
  ...['clamp', 'degrade', 'wait', 'ask'].map((onExceeded) => ({ ...base, budget: { onExceeded } })),
  ...['drain', 'detach'].map((abort) => ({ ...base, abort })),
  { ...base, budget: { usd: '9000000', tokens: 0, onExceeded: 'refuse' } },
  { ...base, budget: { usd: 0.1 } },
  { ...base, budget: { usd: 1e-7 } },
  { ...base, budget: { usd: '0.000000001' } },
  { ...base, responseFormat: 'json' },
  { ...base, responseFormat: { type: 'text' } },
  schema({ type: 'object', properties: { a: { type: 'string' } } }),
  { ...base, responseFormat: { type: 'json_schema', name: 'a_B-1', schema: {} } },
  { ...base, tools: [] },
  { ...base, tools: ['search', 'a.b'] },
  { ...base, approval: { before: 'never', timeoutSeconds: 1, onTimeout: 'approve' } },
  { ...base, approval: {} },
  { ...base, deadline: '2030-01-31T12:00:00Z' },
  { ...base, deadline: '2030-01-31T12:00+02:00' },
  { ...base, labels: { a: '', 'b.c': 'x'.repeat(256) } },
  { ...base, labels: {} },
  { ...base, query: 'x\n\t🌊' },
  user('hello'),
  user([{ type: 'text', text: 'a' }]),
  {
    ...withoutQuery,
    messages: [
      { role: 'system', content: '' },
      { role: 'user', content: 'x' },
      { role: 'assistant', content: 'y' },
    ],
  },
  schema(deep(60)),
];

const BAD: readonly unknown[] = [
  null,
  [],
  'text',
  7,
  {},
  { query: 'q' },
  withoutQuery,
  { ...base, messages: [{ role: 'user', content: 'x' }] },
  { ...base, query: '' },
  { ...base, query: ' \n ' },
  { ...base, query: 7 },
  { ...base, query: null },
  { ...base, query: 'a\u0000' },
  { ...base, query: 'a\ud800' },
  { ...base, query: 'x'.repeat(1024 * 1024) },
  { ...base, unknown: 1 },
  { ...base, userId: '' },
  { ...base, userId: 'a b' },
  { ...base, userId: 'x'.repeat(129) },
  { ...base, userId: 'a{b}' },
  { ...base, tenantId: null },
  { ...base, strategy: 'dag' },
  { ...base, strategy: 'nonsense' },
  { ...base, tier: 'huge' },
  { ...base, tier: 'small', model: 'a/b' },
  { ...base, model: 'gpt' },
  { ...base, model: 'a/ b' },
  { ...base, model: `a/${'b'.repeat(200)}` },
  { ...base, model: 'a/b\u0000' },
  { ...base, maxOutputTokens: 0 },
  { ...base, maxOutputTokens: 1.5 },
  { ...base, maxOutputTokens: '5' },
  { ...base, maxOutputTokens: 10_000_001 },
  { ...base, temperature: -0.1 },
  { ...base, temperature: 2.1 },
  { ...base, temperature: '1' },
  { ...base, reasoningEffort: 'none' },
  { ...base, reasoningEffort: null },
  { ...base, budget: 5 },
  { ...base, budget: null },
  { ...base, budget: { usd: -1 } },
  { ...base, budget: { usd: '1e3' } },
  { ...base, budget: { usd: '9000000.000000001' } },
  { ...base, budget: { usd: '0.0000000001' } },
  { ...base, budget: { usd: 1e-10 } },
  { ...base, budget: { tokens: -1 } },
  { ...base, budget: { tokens: 0.5 } },
  { ...base, budget: { tokens: 100_000_001 } },
  { ...base, budget: { onExceeded: 'hope' } },
  { ...base, budget: { eur: 1 } },
  { ...base, responseFormat: 'xml' },
  { ...base, responseFormat: { type: 'json', schema: {} } },
  { ...base, responseFormat: { type: 'json_schema' } },
  { ...base, responseFormat: { type: 'json_schema', schema: [] } },
  { ...base, responseFormat: { type: 'json_schema', name: 'a b', schema: {} } },
  { ...base, responseFormat: { type: 'text', extra: 1 } },
  schema({ a: 'b\u0000' }),
  schema(deep(70)),
  { ...base, tools: ['a b'] },
  { ...base, tools: 'search' },
  { ...base, tools: Array.from({ length: 65 }, (__, index) => `t${index}`) },
  { ...base, approval: { before: 'start' } },
  { ...base, approval: { timeoutSeconds: 0 } },
  { ...base, approval: { onTimeout: 'ask' } },
  { ...base, priority: 'urgent' },
  { ...base, deadline: 'tomorrow' },
  { ...base, deadline: '2030-01-31' },
  { ...base, deadline: '2030-01-31T12:00:00' },
  { ...base, deadline: '2030-13-31T12:00:00Z' },
  { ...base, abort: 'never' },
  { ...base, labels: [] },
  { ...base, labels: { 'a b': 'x' } },
  { ...base, labels: { a: 1 } },
  { ...base, labels: { a: 'x'.repeat(257) } },
  { ...base, labels: { a: 'x\u0000' } },
  { ...base, labels: Object.fromEntries(Array.from({ length: 21 }, (__, index) => [`l${index}`, ''])) },
  { ...withoutQuery, messages: [] },
  { ...withoutQuery, messages: 'hello' },
  { ...withoutQuery, messages: Array.from({ length: 1001 }, () => ({ role: 'user', content: 'x' })) },
  { ...withoutQuery, messages: [{ role: 'assistant', content: 'x' }] },
  {
    ...withoutQuery,
    messages: [
      { role: 'tool', content: 'x' },
      { role: 'user', content: 'x' },
    ],
  },
  { ...withoutQuery, messages: [{ role: 'user', content: 'x', name: 'n' }] },
  { ...withoutQuery, messages: [null] },
  user(''),
  user([]),
  user([{ type: 'image', url: 'x' }]),
  user([{ type: 'text', text: 'a', extra: 1 }]),
  user([{ type: 'text', text: 'a\ud800' }]),
  user(7),
];

const show = (sample: unknown) => (JSON.stringify(sample) ?? String(sample)).slice(0, 120);

test.each(GOOD.map((sample) => [show(sample), sample]))('both take %s', (__, sample) => {
  expect(parseTaskInput(sample)).toMatchObject({ kind: 'valid' });
  expect(taskInput.safeParse(sample).error?.issues).toBeUndefined();
});

test.each(BAD.map((sample) => [show(sample), sample]))('both refuse %s', (__, sample) => {
  expect(parseTaskInput(sample)).toMatchObject({ kind: 'invalid' });
  expect(taskInput.safeParse(sample).success).toBe(false);
});
