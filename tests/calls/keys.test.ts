// Several keys of one provider in one call: real models over HTTP, real stores.

import { expect, it } from 'vitest';
import type { CallDependencies } from '../../src/calls/call.ts';
import { createLanguageModels } from '../../src/llm/models.ts';
import { OPENAI_ANSWER } from '../llm/answers.ts';
import { refuse, startWire, stream } from '../llm/wire.ts';
import { beginTask, callDependencies, visitOnce } from '../support/calls.ts';
import { openTestStores } from '../support/stores.ts';

type Refusal = { readonly status: number; readonly code?: string; readonly headers?: Record<string, string> };

const KEYS = ['k1', 'k2', 'k3'];

/** A provider that refuses some keys, and a call's dependencies with all of them. */
async function stage(refused: Readonly<Record<string, Refusal>>) {
  const test = await openTestStores();
  const wire = await startWire((response, request) => {
    const refusal = refused[request.headers.authorization?.replace('Bearer ', '') ?? ''];
    if (refusal === undefined) return stream(OPENAI_ANSWER)(response, request);
    const { status, code = 'x', headers } = refusal;
    refuse(status, { error: { code, message: 'refused' } }, headers)(response, request);
  });
  const models = createLanguageModels({
    providers: {
      simulated: { protocol: 'openai-compatible', apiKeys: KEYS, baseUrl: `${wire.url}/v1`, available: true },
    },
  });
  await beginTask(test, 'a');
  const dependencies: CallDependencies = callDependencies(test, models);
  return {
    dependencies,
    used: () => wire.requests.map(({ headers }) => headers.authorization?.replace('Bearer ', '')),
    attempts: async () => {
      const { rows } = await test.postgres.query<{ attempt_key: string; state: string; outcome: string }>(
        'select attempt_key, state, outcome from attempts order by attempt_key',
      );
      return rows;
    },
    ledgerRows: () => test.stores.accounts.rows({ taskIds: ['a'] }),
    async [Symbol.asyncDispose]() {
      await wire[Symbol.asyncDispose]();
      await test[Symbol.asyncDispose]();
    },
  };
}

it.each<[string, Refusal]>([
  ['is unknown', { status: 401 }],
  ['may not', { status: 403 }],
  ['belongs to an empty account', { status: 402 }],
  ['has used up its quota', { status: 429, code: 'insufficient_quota' }],
  ['is throttled for long', { status: 429, headers: { 'retry-after': '60' } }],
])(
  'answers with the next key where one %s, in one visit, each request with a row of its own',
  async (_, refusal) => {
    await using at = await stage({ k1: refusal, k2: refusal });
    expect(await visitOnce(at.dependencies, 'a')).toMatchObject({ kind: 'completed' });
    expect(at.used()).toEqual(['k1', 'k2', 'k3']);
    const attempts = await at.attempts();
    expect(attempts.map(({ attempt_key }) => attempt_key.split('#')[1])).toEqual([
      '0.1.1.0',
      '0.1.1.1',
      '0.1.1.2',
    ]);
    const lost = refusal.headers === undefined ? 'failed' : 'throttled';
    expect(attempts.map(({ outcome }) => outcome)).toEqual([lost, lost, 'ok']);
    expect((await at.ledgerRows()).length).toBe(3);
  },
);

it('gives the model up once every key was refused, at once', async () => {
  await using at = await stage({ k1: { status: 401 }, k2: { status: 401 }, k3: { status: 401 } });
  expect(await visitOnce(at.dependencies, 'a')).toMatchObject({ kind: 'unavailable', reason: 'auth' });
  expect(at.used()).toEqual(['k1', 'k2', 'k3']);
});

it('waits for the first key that is back once all are throttled', async () => {
  const until = (seconds: number) => ({ status: 429, headers: { 'retry-after': `${seconds}` } });
  await using at = await stage({ k1: until(3), k2: until(60), k3: until(60) });
  const outcome = await visitOnce(at.dependencies, 'a');
  expect(outcome).toMatchObject({ kind: 'wait', reason: 'provider_limit' });
  if (outcome.kind === 'wait') expect(outcome.ms).toBeLessThanOrEqual(3_000);
  expect(at.used()).toEqual(['k1', 'k2', 'k3']);
});
