// Several keys of one provider, as it sees them: one request of ours is one request with one key.

import { expect, it } from 'vitest';
import { LlmError } from '../../src/llm/error.ts';
import type { LanguageModels } from '../../src/llm/language-model.ts';
import { OPENAI_ANSWER } from './answers.ts';
import { callFor, modelsAt, refuse, startWire, stream } from './wire.ts';

const KEYS = ['sk-one-secret', 'sk-two-secret', 'sk-three-secret'];

type Refusal = {
  readonly status: number;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
};

/** A provider that refuses some keys, and models that know them all. */
async function provider(refused: Readonly<Record<string, Refusal>>, apiKeys = KEYS) {
  const wire = await startWire((response, request) => {
    const key = request.headers.authorization?.replace('Bearer ', '') ?? '';
    const refusal = refused[key];
    if (refusal === undefined) return stream(OPENAI_ANSWER)(response, request);
    refuse(
      refusal.status,
      refusal.body ?? { error: { message: `no ${key}` } },
      refusal.headers,
    )(response, request);
  });
  const models = modelsAt(wire.url, 'openai', undefined, { apiKeys });
  return {
    models,
    used: () => wire.requests.map(({ headers }) => headers.authorization?.split('-')[1]),
    [Symbol.asyncDispose]: () => wire[Symbol.asyncDispose](),
  };
}

async function errorOf(models: LanguageModels): Promise<LlmError> {
  const error: unknown = await models.stream(callFor('p/m').request).catch((cause: unknown) => cause);
  if (!(error instanceof LlmError)) throw new Error('the call did not fail as it should');
  return error;
}

it('uses the keys in turn', async () => {
  await using at = await provider({});
  for (let n = 0; n < 4; n += 1) await at.models.stream(callFor('p/m').request);
  expect(at.used()).toEqual(['one', 'two', 'three', 'one']);
});

it.each<[string, Refusal]>([
  ['auth', { status: 401 }],
  ['quota', { status: 402 }],
  ['auth', { status: 403 }],
  ['quota', { status: 429, body: { error: { code: 'insufficient_quota', message: 'x' } } }],
])(
  'fails with %s for a key that is refused with %o, and passes over it from then on',
  async (kind, refusal) => {
    await using at = await provider({ 'sk-one-secret': refusal });
    const error = await errorOf(at.models);
    expect(error).toMatchObject({ kind, status: refusal.status, hasOtherKey: true });
    for (let n = 0; n < 3; n += 1) await at.models.stream(callFor('p/m').request);
    expect(at.used()).toEqual(['one', 'two', 'three', 'two']);
  },
);

it('has no other key once each was refused, and goes on trying', async () => {
  const refusal = { status: 401 };
  await using at = await provider(Object.fromEntries(KEYS.map((key) => [key, refusal])));
  const others = [await errorOf(at.models), await errorOf(at.models), await errorOf(at.models)];
  expect(others.map(({ hasOtherKey }) => hasOtherKey)).toEqual([true, true, false]);
  expect((await errorOf(at.models)).kind).toBe('auth');
  expect(at.used()).toHaveLength(4);
});

it('tells when the first of several throttled keys is back', async () => {
  const until = (ms: string) => ({ status: 429, headers: { 'retry-after-ms': ms } });
  await using at = await provider(
    { 'sk-one-secret': until('20000'), 'sk-two-secret': until('60000') },
    KEYS.slice(0, 2),
  );
  expect(await errorOf(at.models)).toMatchObject({ kind: 'rate_limited', hasOtherKey: true });
  const { hasOtherKey, retryAfterMs = 0 } = await errorOf(at.models);
  expect(hasOtherKey).toBe(false);
  expect(retryAfterMs).toBeGreaterThan(0);
  expect(retryAfterMs).toBeLessThanOrEqual(20_000);
});

it('never tells a key', async () => {
  await using at = await provider({ 'sk-one-secret': { status: 401 } });
  const error = await errorOf(at.models);
  const shown = [error.message, error.stack, JSON.stringify(error), String(error.cause)].join('\n');
  expect(shown).not.toContain('secret');
});
