// Google's dialect as it looks on the wire.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { type SimulatedProvider, startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { countTokens } from '../../../dev/simulated-provider/tokens.ts';
import { json, post, readSse } from './wire-client.ts';

let provider: SimulatedProvider;

beforeAll(async () => {
  provider = await startSimulatedProvider();
});
afterAll(async () => {
  await provider.close();
});

const ask = (text: string, more: Record<string, unknown> = {}) => ({
  contents: [{ role: 'user', parts: [{ text }] }],
  ...more,
});
const path = (model: string, action = 'generateContent') => `/v1beta/models/${model}:${action}`;
const stream = (model: string) => path(model, 'streamGenerateContent?alt=sse');

test('answers whole and streamed alike, with usage', async () => {
  const whole = await json(await post(provider, path('gemini-x'), ask('Explain leases.')));
  const text = whole.candidates[0].content.parts[0].text;
  expect(whole.candidates[0].finishReason).toBe('STOP');
  expect(whole.usageMetadata).toMatchObject({
    promptTokenCount: countTokens('Explain leases.'),
    candidatesTokenCount: countTokens(text),
    thoughtsTokenCount: 0,
    cachedContentTokenCount: 0,
  });
  const { events } = await readSse(await post(provider, stream('gemini-x'), ask('Explain leases.')));
  const parsed = events.map((event) => JSON.parse(event.data));
  expect(parsed.map((each) => each.candidates[0].content.parts[0].text).join('')).toBe(text);
  expect(parsed.at(-1).usageMetadata).toEqual(whole.usageMetadata);
  expect(provider.requests().at(-1)?.model).toBe('gemini-x');
});

test('counts thoughts beside the answer', async () => {
  const { usageMetadata, candidates } = await json(
    await post(provider, path('gemini-reason'), ask('Explain clocks.')),
  );
  expect(usageMetadata.thoughtsTokenCount).toBeGreaterThan(0);
  expect(usageMetadata.candidatesTokenCount).toBe(countTokens(candidates[0].content.parts[0].text));
  expect(usageMetadata.totalTokenCount).toBe(
    usageMetadata.promptTokenCount + usageMetadata.candidatesTokenCount + usageMetadata.thoughtsTokenCount,
  );
});

test('calls a function and fills a schema in its spelling of types', async () => {
  const parameters = { type: 'OBJECT', properties: { city: { type: 'STRING' } }, required: ['city'] };
  const tools = [
    { functionDeclarations: [{ name: 'get_weather', description: 'Weather of a city', parameters }] },
  ];
  const called = await json(await post(provider, path('g'), ask('Weather in Lima?', { tools })));
  expect(called.candidates[0].content.parts[0].functionCall).toEqual({
    name: 'get_weather',
    args: { city: 'Lima' },
  });
  const generationConfig = {
    responseMimeType: 'application/json',
    responseSchema: {
      type: 'OBJECT',
      properties: { summary: { type: 'STRING' }, count: { type: 'INTEGER', nullable: true } },
    },
  };
  const filled = await json(await post(provider, path('g'), ask('Explain 3 leases.', { generationConfig })));
  expect(JSON.parse(filled.candidates[0].content.parts[0].text)).toEqual({
    summary: expect.any(String),
    count: 3,
  });
});

test('cuts at maxOutputTokens', async () => {
  const body = await json(
    await post(provider, path('g'), ask('Explain leases.', { generationConfig: { maxOutputTokens: 4 } })),
  );
  expect(body.candidates[0].finishReason).toBe('MAX_TOKENS');
  expect(body.usageMetadata.candidatesTokenCount).toBe(4);
});

test('puts the hint of a 429 into the body, and nowhere else', async () => {
  const fault = JSON.stringify({ status: 429, retryAfterMs: 1_500 });
  const response = await post(provider, path('g'), ask('x'), { headers: { 'x-sim-fault': fault } });
  const { error } = await json(response);
  expect(error).toMatchObject({ code: 429, status: 'RESOURCE_EXHAUSTED' });
  expect(error.details).toEqual([
    { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1.5s' },
  ]);
  expect(response.headers.get('retry-after')).toBeNull();
});

test('refuses a bad body and a missing model in its own words', async () => {
  const bad = await post(provider, path('g'), { contents: [] });
  expect([bad.status, (await json(bad)).error.status]).toEqual([400, 'INVALID_ARGUMENT']);
  const missing = await post(provider, stream('missing-g'), ask('x'));
  expect([missing.status, (await json(missing)).error.status]).toEqual([404, 'NOT_FOUND']);
});
