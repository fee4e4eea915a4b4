// The limits that the provider enforces, on the wire and, with a clock of the test's own, to the millisecond.

import { expect, test } from 'vitest';
import { createRateLimits } from '../../../dev/simulated-provider/rate-limits.ts';
import { startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { chat, control, ended, json, post } from './wire-client.ts';

const PATH = '/v1/chat/completions';

test('admits as many requests as the limit and refuses the next with hint, headers and log entry', async () => {
  await using provider = await startSimulatedProvider({ limits: { rpm: 3 } });
  const remaining = [];
  for (let count = 0; count < 3; count += 1) {
    const response = await post(provider, PATH, chat('x'));
    expect(response.status).toBe(200);
    remaining.push(response.headers.get('x-ratelimit-remaining-requests'));
  }
  expect(remaining).toEqual(['2', '1', '0']);
  const refused = await post(provider, PATH, chat('x'));
  expect(refused.status).toBe(429);
  const retryAfterMs = Number(refused.headers.get('retry-after-ms'));
  expect(retryAfterMs).toBeGreaterThan(19_000);
  expect(retryAfterMs).toBeLessThanOrEqual(20_000);
  expect(refused.headers.get('retry-after')).toBe(String(Math.ceil(retryAfterMs / 1000)));
  expect(refused.headers.get('x-ratelimit-limit-requests')).toBe('3');
  expect(refused.headers.get('x-ratelimit-reset-requests')).toMatch(/^(?:1m0s|5\d(?:\.\d+)?s)$/);
  expect((await json(refused)).error).toMatchObject({ type: 'requests', code: 'rate_limit_exceeded' });
  expect(await ended(provider, 4)).toMatchObject({
    status: 429,
    outcome: 'error',
    usage: { inputTokens: 0, outputTokens: 0 },
  });
});

test('counts input and output of an answer against the tokens per minute', async () => {
  await using provider = await startSimulatedProvider({ limits: { tpm: 1_000 } });
  const headers = { 'x-sim-output-tokens': '399' };
  const first = await post(provider, PATH, chat('abcd'), { headers });
  expect(first.headers.get('x-ratelimit-remaining-tokens')).toBe('600');
  expect((await post(provider, PATH, chat('abcd'), { headers })).status).toBe(200);
  const refused = await post(provider, PATH, chat('abcd'), { headers });
  expect(refused.status).toBe(429);
  expect((await json(refused)).error.type).toBe('tokens');
  expect(Number(refused.headers.get('retry-after-ms'))).toBeGreaterThan(11_000);
});

test('keeps a limit for each model, and none for what control has lifted', async () => {
  await using provider = await startSimulatedProvider({ limits: { rpm: 1 } });
  const status = async (model: string) => (await post(provider, PATH, chat('x', { model }))).status;
  expect([await status('a'), await status('a'), await status('b')]).toEqual([200, 429, 200]);
  await control(provider, 'PUT', 'settings', { rpm: 2 });
  expect([await status('a'), await status('a'), await status('a')]).toEqual([200, 200, 429]);
});

test('takes nothing for a refused request, nor for one that meets an error', async () => {
  await using provider = await startSimulatedProvider({ limits: { rpm: 1 } });
  const failing = { headers: { 'x-sim-fault': '{"status":500}' } };
  expect((await post(provider, PATH, chat('x'), failing)).status).toBe(500);
  expect((await post(provider, PATH, chat('x', { max_tokens: -1 }))).status).toBe(400);
  expect((await post(provider, PATH, chat('x'))).status).toBe(200);
});

test('refuses a 529 of Anthropic and a 429 of its limit alike with a hint', async () => {
  await using provider = await startSimulatedProvider({ limits: { rpm: 1 } });
  const ask = chat('x', { max_tokens: 10 });
  expect((await post(provider, '/v1/messages', ask)).status).toBe(200);
  const refused = await post(provider, '/v1/messages', ask);
  expect(refused.status).toBe(429);
  expect(refused.headers.get('retry-after')).toBe('60');
  expect(refused.headers.get('anthropic-ratelimit-requests-remaining')).toBe('0');
});

test('admits again exactly when the hint said, and never more than the limit and its refill', () => {
  let now = 0;
  const limits = createRateLimits({ rpm: 7, tpm: Infinity }, () => now);
  let admitted = 0;
  for (; now < 600_000; ) {
    const admission = limits.admit('m', 1);
    if (admission.kind === 'admitted') admitted += 1;
    else {
      now += admission.retryAfterMs - 1;
      expect(limits.admit('m', 1).kind).toBe('refused');
      now += 1;
      expect(limits.state('m').requests.remaining).toBe(1);
    }
  }
  expect(admitted).toBe(7 + 70 - 1);
});

test('takes a request larger than the whole limit from a full bucket, as a debt', () => {
  let now = 0;
  const limits = createRateLimits({ rpm: Infinity, tpm: 100 }, () => now);
  expect(limits.admit('m', 250).kind).toBe('admitted');
  expect(limits.state('m').tokens).toEqual({ limit: 100, remaining: 0, resetMs: 150_000 });
  expect(limits.admit('m', 1)).toMatchObject({ kind: 'refused', by: 'tokens', retryAfterMs: 90_600 });
  now = 90_600;
  expect(limits.admit('m', 1).kind).toBe('admitted');
});
