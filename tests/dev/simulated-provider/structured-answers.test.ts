// Answers that must fit a JSON schema, checked by zod's own reading of that schema and not by the code that made them.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { type SimulatedProvider, startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { chat, json, post } from './wire-client.ts';

let provider: SimulatedProvider;

beforeAll(async () => {
  provider = await startSimulatedProvider();
});
afterAll(async () => {
  await provider.close();
});

const QUERY =
  'Compare Postgres and Redis for rate limits of 120 requests a minute, and then recommend one to Ada in Oslo.';

async function answerTo(schema: unknown, query = QUERY): Promise<unknown> {
  const response_format = { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema } };
  const response = await post(provider, '/v1/chat/completions', chat(query, { response_format }));
  const body = await json(response);
  expect(body.error).toBeUndefined();
  return JSON.parse(body.choices[0].message.content);
}

type Tree = { label: string; children: Tree[]; parent: Tree | null };
const Tree: z.ZodType<Tree> = z.lazy(() =>
  z.object({ label: z.string(), children: z.array(Tree), parent: z.union([Tree, z.null()]) }),
);

test.each<[string, z.ZodType]>([
  [
    'texts and their lengths',
    z.object({ a: z.string().max(5), b: z.string().min(300), c: z.string().length(2) }),
  ],
  [
    'numbers within bounds',
    z.object({ a: z.int().min(7).max(9), b: z.number().gt(0).lt(1), c: z.number().multipleOf(0.5).min(3.3) }),
  ],
  ['a number that may only be negative', z.object({ a: z.int().max(-5) })],
  [
    'formats',
    z.object({ a: z.email(), b: z.uuid(), c: z.iso.datetime(), d: z.iso.date(), e: z.url(), f: z.ipv4() }),
  ],
  [
    'a pattern',
    z.object({
      a: z.string().regex(/^(?:ORD|INV)-\d{4}[A-F]{2}(?:-x)?$/),
      b: z.string().regex(/^[^a-z]+\.$/),
    }),
  ],
  [
    'enums, constants and null',
    z.object({ a: z.enum(['mongo', 'redis']), b: z.literal(3), c: z.null(), d: z.boolean() }),
  ],
  [
    'lists with bounds',
    z.object({
      a: z.array(z.string()).min(5).max(6),
      b: z.array(z.int()).length(2),
      c: z.array(z.string()).max(0),
    }),
  ],
  ['tuples', z.object({ a: z.tuple([z.string(), z.int(), z.boolean()]) })],
  ['maps', z.object({ a: z.record(z.string(), z.number()) })],
  [
    'unions',
    z.object({
      a: z.discriminatedUnion('kind', [
        z.object({ kind: z.literal('x'), n: z.int() }),
        z.object({ kind: z.literal('y') }),
      ]),
    }),
  ],
  [
    'nullable and optional fields',
    z.object({ a: z.string().nullable(), b: z.int().optional(), c: z.object({ d: z.string() }).nullish() }),
  ],
  [
    'both of two schemas',
    z.object({ a: z.intersection(z.object({ x: z.string() }), z.object({ y: z.int() })) }),
  ],
  ['a schema that contains itself', Tree],
  ['a list at the top', z.array(z.object({ title: z.string(), score: z.number().min(0).max(1) })).min(1)],
])('answers with valid JSON for %s', async (_, type) => {
  const schema = z.toJSONSchema(type);
  const answer = await answerTo(schema);
  expect(type.safeParse(answer).error).toBeUndefined();
});

test('takes names that every object has for ordinary ones', async () => {
  const text = { type: 'string', format: 'constructor' };
  const schema = `{"type":"object","properties":{"__proto__":{"type":"integer"},"toString":${JSON.stringify(text)}},
    "required":["__proto__","toString"]}`;
  const answer = await answerTo(JSON.parse(schema));
  expect(Object.entries(answer as object)).toEqual([
    ['__proto__', 120],
    ['toString', expect.any(String)],
  ]);
});

test('picks what the prompt mentions, its numbers and its names', async () => {
  const answer = await answerTo({
    type: 'object',
    properties: { store: { enum: ['mongo', 'redis'] }, rpm: { type: 'integer' }, city: { type: 'string' } },
    required: ['store', 'rpm', 'city'],
  });
  expect(answer).toEqual({ store: 'redis', rpm: 120, city: 'Oslo' });
});

const PLAN = z.object({
  goal: z.string(),
  steps: z
    .array(
      z.object({
        id: z.string().regex(/^[a-z0-9_]+$/),
        description: z.string(),
        dependsOn: z.array(z.string()),
        kind: z.enum(['research', 'write']),
        budgetShare: z.number().min(0).max(1),
      }),
    )
    .min(2)
    .max(4),
});

test('makes a plan whose steps come from the prompt and depend on earlier ones only', async () => {
  const plan = PLAN.parse(await answerTo(z.toJSONSchema(PLAN)));
  expect(plan.steps.map((step) => step.description).slice(0, 2)).toEqual([
    'Compare Postgres and Redis for rate limits of 120 requests a minute',
    'Recommend one to Ada in Oslo',
  ]);
  const seen = new Set<string>();
  for (const step of plan.steps) {
    expect(step.dependsOn.every((id) => seen.has(id))).toBe(true);
    seen.add(step.id);
  }
  expect(seen.size).toBe(plan.steps.length);
  expect(plan.steps.at(-1)?.dependsOn.length).toBeGreaterThan(1);
});

test('numbers the steps of a plan whose ids are numbers', async () => {
  const Numbered = z.object({
    steps: z.array(z.object({ id: z.int(), task: z.string(), depends_on: z.array(z.int()) })),
  });
  const { steps } = Numbered.parse(await answerTo(z.toJSONSchema(Numbered), 'What is a lease?'));
  expect(steps.map((step) => step.id)).toEqual([1, 2, 3]);
  expect(steps.at(-1)?.depends_on).toEqual([1, 2]);
});

test('answers json_object with an object', async () => {
  const body = await json(
    await post(provider, '/v1/chat/completions', chat(QUERY, { response_format: { type: 'json_object' } })),
  );
  expect(JSON.parse(body.choices[0].message.content)).toMatchObject({ answer: expect.any(String) });
});

test.each([
  [
    'bounds that contradict each other',
    { type: 'object', properties: { a: { type: 'integer', minimum: 5, maximum: 4 } }, required: ['a'] },
  ],
  ['a reference to nowhere', { $ref: '#/$defs/none' }],
  ['a reference to itself', { $defs: { a: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' }],
  ['a keyword that it does not know', { not: { type: 'object' } }],
  ['an empty enum', { enum: [] }],
])('refuses %s with 400 instead of answering something invalid', async (_, schema) => {
  const response_format = { type: 'json_schema', json_schema: { name: 'x', schema } };
  const response = await post(provider, '/v1/chat/completions', chat(QUERY, { response_format }));
  expect(response.status).toBe(400);
});

test('lives on after a schema that is nested deeper than any stack', async () => {
  const depth = 20_000;
  const schema = `${'{"type":"array","minItems":1,"items":'.repeat(depth)}{"type":"string"}${'}'.repeat(depth)}`;
  const format = `{"type":"json_schema","json_schema":{"name":"x","schema":${schema}}}`;
  const body = `{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":${format}}`;
  const response = await post(provider, '/v1/chat/completions', body);
  expect(response.status).toBeGreaterThanOrEqual(400);
  expect((await post(provider, '/v1/chat/completions', chat('still there?'))).status).toBe(200);
});
