// Faults on purpose, and what they do to a response.

import { afterEach, beforeEach, expect, test } from 'vitest';
import { type SimulatedProvider, startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { chat, ended, eventually, json, post, readSse } from './wire-client.ts';

const PATH = '/v1/chat/completions';
let provider: SimulatedProvider;

beforeEach(async () => {
  provider = await startSimulatedProvider();
});
afterEach(async () => {
  await provider.close();
});

const faulty = (fault: object, body: object = chat('Explain leases.', { stream: true }), path = PATH) =>
  post(provider, path, body, { headers: { 'x-sim-fault': JSON.stringify(fault) } });

test('answers an error status with its hint, whole seconds rounded up', async () => {
  const response = await faulty({ status: 429, retryAfterMs: 1_500 });
  expect(response.status).toBe(429);
  expect(response.headers.get('retry-after')).toBe('2');
  expect(response.headers.get('retry-after-ms')).toBe('1500');
  expect((await json(response)).error).toMatchObject({ code: 'rate_limit_exceeded' });
  expect(await ended(provider, 1)).toMatchObject({
    status: 429,
    outcome: 'error',
    usage: { inputTokens: 0, outputTokens: 0 },
  });
});

test('says insufficient_quota without a hint', async () => {
  const response = await faulty({ status: 429, code: 'insufficient_quota' });
  expect(response.headers.get('retry-after')).toBeNull();
  expect((await json(response)).error).toMatchObject({
    type: 'insufficient_quota',
    code: 'insufficient_quota',
  });
});

test('destroys the socket after so many pieces', async () => {
  const { events, failed } = await readSse(await faulty({ cutAfterChunks: 3 }));
  expect(failed).toBe(true);
  // A reader loses what it had not read when the connection breaks, so less is right as well.
  expect(events.length).toBeLessThanOrEqual(1 + 3);
  const entry = await ended(provider, 1);
  expect(entry).toMatchObject({ outcome: 'cut', outputTokensSent: 12, usage: { outputTokens: 12 } });
  expect(entry.usage.inputTokens).toBeGreaterThan(0);
});

test('ends the response well but without its last events', async () => {
  const { events, failed } = await readSse(await faulty({ cutAfterChunks: 3, terminator: true }));
  expect(failed).toBe(false);
  expect(events).toHaveLength(1 + 3);
  expect(events.map((event) => event.data)).not.toContain('[DONE]');
  expect(await ended(provider, 1)).toMatchObject({ outcome: 'cut', status: 200 });
});

test('cuts an answer that is shorter than asked before its end all the same', async () => {
  const { events } = await readSse(await faulty({ cutAfterChunks: 100_000, terminator: true }));
  expect(events.map((event) => event.data)).not.toContain('[DONE]');
});

test('cuts a short whole answer before its end, and fails it outright instead of in a stream', async () => {
  const cut = await faulty({ cutAfterChunks: 100_000, terminator: true }, chat('Explain leases.'));
  const text = await cut.text();
  expect(() => JSON.parse(text)).toThrow();
  const failed = await faulty({ errorInStreamAfterChunks: 2, status: 502 }, chat('Explain leases.'));
  expect(failed.status).toBe(502);
  expect(await ended(provider, 2)).toMatchObject({
    outcome: 'error',
    usage: { inputTokens: 0, outputTokens: 0 },
  });
});

test('cuts a whole answer in the middle of its body', async () => {
  const response = await faulty({ cutAfterChunks: 5 }, chat('Explain leases.'));
  await expect(response.text()).rejects.toThrow();
  const ends = await faulty({ cutAfterChunks: 5, terminator: true }, chat('Explain leases.'));
  const text = await ends.text();
  expect(() => JSON.parse(text)).toThrow();
  expect(await ended(provider, 2)).toMatchObject({ outcome: 'cut', outputTokensSent: 0 });
});

test.each([
  [PATH, { error: { type: 'server_error' } }],
  ['/v1/messages', { type: 'error', error: { type: 'overloaded_error' } }],
  ['/v1/responses', { type: 'error', message: expect.any(String) }],
  ['/v1beta/models/g:streamGenerateContent?alt=sse', { error: { code: 529 } }],
])('puts an error into a stream of %s that began well', async (path, expected) => {
  const contents = [{ role: 'user', parts: [{ text: 'Explain leases.' }] }];
  const body =
    path.includes('google') || path.includes('beta')
      ? { contents }
      : chat('Explain leases.', { stream: true, max_tokens: 99 });
  const ask = path === '/v1/responses' ? { model: 'm', input: 'Explain leases.', stream: true } : body;
  const response = await faulty({ errorInStreamAfterChunks: 2, status: 529 }, ask, path);
  expect(response.status).toBe(200);
  const { events, failed } = await readSse(response);
  expect(failed).toBe(false);
  expect(JSON.parse(events.at(-1)?.data ?? '')).toMatchObject(expected);
  expect(await ended(provider, 1)).toMatchObject({ outcome: 'error', status: 200, outputTokensSent: 8 });
});

test('hangs before the headers until the client goes', async () => {
  const client = new AbortController();
  const body = JSON.stringify(chat('Explain leases.'));
  const headers = { 'x-sim-fault': '{"hang":true}' };
  const response = fetch(`${provider.url}${PATH}`, { method: 'POST', body, headers, signal: client.signal });
  await eventually(() => provider.requests().find((entry) => entry.outcome === 'hung'));
  client.abort();
  await expect(response).rejects.toThrow();
  const entry = await ended(provider, 1);
  expect(entry).toMatchObject({ outcome: 'hung', status: null, outputTokensSent: 0 });
  expect(entry.usage.inputTokens).toBeGreaterThan(0);
});

test('hangs after so many pieces until the client goes', async () => {
  const response = await faulty({ hang: { afterChunks: 2 } });
  const reader = response.body?.getReader();
  await eventually(() => provider.requests().find((entry) => entry.outcome === 'hung'));
  expect(provider.requests()[0]).toMatchObject({ outputTokensSent: 8, status: 200 });
  await reader?.cancel();
  expect((await post(provider, PATH, chat('x'))).status).toBe(200);
});

test('waits before the headers, before the first piece and between pieces', async () => {
  const begun = performance.now();
  const response = await faulty({
    latency: 60,
    firstTokenMs: 80,
    chunkDelayMs: 10,
    outputTokens: 20,
    tokensPerChunk: 4,
  });
  expect(performance.now() - begun).toBeGreaterThanOrEqual(55);
  await readSse(response);
  expect(performance.now() - begun).toBeGreaterThanOrEqual(60 + 80 + 4 * 10 - 10);
  const whole = performance.now();
  await (await faulty({ latency: 60, firstTokenMs: 80 }, chat('x'))).text();
  expect(performance.now() - whole).toBeGreaterThanOrEqual(130);
});

test('draws latencies from distributions, the same for the same seed', async () => {
  const drawn = async () => {
    const { drawMs, seededChance } = await import('../../../dev/simulated-provider/duration.ts');
    const chance = seededChance(7);
    return Array.from({ length: 2_000 }, () => ({
      uniform: drawMs({ kind: 'uniform', minMs: 10, maxMs: 20 }, chance),
      lognormal: drawMs({ kind: 'lognormal', medianMs: 100, sigma: 0.5 }, chance),
    }));
  };
  const values = await drawn();
  expect(await drawn()).toEqual(values);
  expect(values.every(({ uniform }) => uniform >= 10 && uniform < 20)).toBe(true);
  const sorted = values.map(({ lognormal }) => lognormal).toSorted((a, b) => a - b);
  expect(sorted[1_000]).toBeGreaterThan(90);
  expect(sorted[1_000]).toBeLessThan(110);
  expect(sorted[1_960] ?? 0).toBeGreaterThan(200);
});

test('makes an answer of exactly so many tokens, by header or fault', async () => {
  const sized = await post(provider, PATH, chat('x'), { headers: { 'x-sim-output-tokens': '77' } });
  expect((await json(sized)).usage.completion_tokens).toBe(77);
  expect((await json(await faulty({ outputTokens: 5 }, chat('x')))).usage.completion_tokens).toBe(5);
  expect((await json(await faulty({ outputTokens: 0 }, chat('x')))).usage.completion_tokens).toBe(0);
  const capped = await json(await faulty({ outputTokens: 50 }, chat('x', { max_tokens: 20 })));
  expect([capped.usage.completion_tokens, capped.choices[0].finish_reason]).toEqual([20, 'length']);
});

test('filters an answer, and can be silent about usage', async () => {
  const filtered = await json(await faulty({ contentFilter: true }, chat('Explain leases.')));
  expect(filtered.choices[0].finish_reason).toBe('content_filter');
  const ask = chat('Explain leases.', { stream: true, stream_options: { include_usage: true } });
  const { events } = await readSse(await faulty({ omitUsage: true }, ask));
  expect(events.some((event) => event.data.includes('prompt_tokens'))).toBe(false);
  expect(events.at(-1)?.data).toBe('[DONE]');
});
