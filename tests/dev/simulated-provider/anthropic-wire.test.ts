// The Anthropic dialect as it looks on the wire.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { type SimulatedProvider, startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { countTokens } from '../../../dev/simulated-provider/tokens.ts';
import { chat, json, post, readSse } from './wire-client.ts';

const PATH = '/v1/messages';
let provider: SimulatedProvider;

beforeAll(async () => {
  provider = await startSimulatedProvider({ limits: { rpm: 1_000, tpm: 900_000 } });
});
afterAll(async () => {
  await provider.close();
});

const ask = (text: string, more: Record<string, unknown> = {}) => chat(text, { max_tokens: 500, ...more });

test('answers a message whole, with usage and its own names for limits', async () => {
  const response = await post(provider, PATH, ask('Explain leases.'));
  const body = await json(response);
  expect(body).toMatchObject({ type: 'message', role: 'assistant', stop_reason: 'end_turn' });
  expect(body.usage).toMatchObject({
    input_tokens: countTokens('Explain leases.'),
    output_tokens: countTokens(body.content[0].text),
    cache_read_input_tokens: 0,
    cache_creation_input_tokens: 0,
  });
  expect(response.headers.get('request-id')).toMatch(/^req_/);
  expect(response.headers.get('anthropic-ratelimit-requests-limit')).toBe('1000');
  expect(Number(response.headers.get('anthropic-ratelimit-tokens-remaining'))).toBeLessThan(900_000);
  expect(Date.parse(response.headers.get('anthropic-ratelimit-tokens-reset') ?? '')).toBeGreaterThan(
    Date.now() - 1_000,
  );
});

test('streams its events in order, with the text that it answers whole', async () => {
  const whole = await json(await post(provider, PATH, ask('Explain leases.')));
  const { events } = await readSse(await post(provider, PATH, ask('Explain leases.', { stream: true })));
  const parsed = events.map((event) => JSON.parse(event.data));
  expect(events.map((event) => event.event)).toEqual(parsed.map((each) => each.type));
  const kinds = parsed.map((each) => each.type);
  expect([...new Set(kinds)]).toEqual([
    'message_start',
    'content_block_start',
    'ping',
    'content_block_delta',
    'content_block_stop',
    'message_delta',
    'message_stop',
  ]);
  const text = parsed.filter((each) => each.type === 'content_block_delta').map((each) => each.delta.text);
  expect(text.join('')).toBe(whole.content[0].text);
  expect(parsed.at(-2).usage.output_tokens).toBe(whole.usage.output_tokens);
});

test('tells what a long prompt wrote to the cache and what the next one read from it', async () => {
  const system = 'These rules are the same for everybody and every day. '.repeat(100);
  const usage = async (text: string) => (await json(await post(provider, PATH, ask(text, { system })))).usage;
  const first = await usage('One?');
  const second = await usage('Two?');
  expect(first.cache_creation_input_tokens).toBeGreaterThanOrEqual(1_024);
  expect(first.cache_creation.ephemeral_5m_input_tokens).toBe(first.cache_creation_input_tokens);
  expect(first.cache_read_input_tokens).toBe(0);
  expect(second.cache_read_input_tokens).toBe(first.cache_creation_input_tokens);
  expect(second.cache_creation_input_tokens).toBe(0);
  expect(second.input_tokens + second.cache_read_input_tokens).toBe(countTokens(`${system}\nTwo?`));
});

test('files a cache write of an hour under an hour', async () => {
  const system = [
    {
      type: 'text',
      text: 'Other rules that stay as they are. '.repeat(150),
      cache_control: { type: 'ephemeral', ttl: '1h' },
    },
  ];
  const { usage } = await json(await post(provider, PATH, ask('One?', { system })));
  expect(usage.cache_creation.ephemeral_1h_input_tokens).toBe(usage.cache_creation_input_tokens);
  expect(usage.cache_creation.ephemeral_1h_input_tokens).toBeGreaterThan(0);
});

const WEATHER = {
  name: 'get_weather',
  description: 'Current weather of a city',
  input_schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};

test('uses a tool that fits, and answers from its result', async () => {
  const used = await json(await post(provider, PATH, ask('Weather in Oslo?', { tools: [WEATHER] })));
  expect(used.stop_reason).toBe('tool_use');
  expect(used.content[0]).toMatchObject({ type: 'tool_use', name: 'get_weather', input: { city: 'Oslo' } });
  const messages = [
    { role: 'user', content: 'Weather in Oslo?' },
    { role: 'assistant', content: used.content },
    {
      role: 'user',
      content: [{ type: 'tool_result', tool_use_id: used.content[0].id, content: 'Snow, minus four' }],
    },
  ];
  const after = await json(await post(provider, PATH, ask('', { messages, tools: [WEATHER] })));
  expect(after.stop_reason).toBe('end_turn');
  expect(after.content[0].text).toContain('Snow, minus four');
});

test('streams the arguments of a tool in pieces', async () => {
  const { events } = await readSse(
    await post(provider, PATH, ask('Weather in Oslo?', { tools: [WEATHER], stream: true })),
  );
  const parsed = events.map((event) => JSON.parse(event.data));
  const json = parsed.map((each) => each.delta?.partial_json ?? '').join('');
  expect(JSON.parse(json)).toEqual({ city: 'Oslo' });
  expect(parsed.at(-2).delta.stop_reason).toBe('tool_use');
});

test('cuts at max_tokens, which it wants to be told', async () => {
  const body = await json(await post(provider, PATH, ask('Explain leases.', { max_tokens: 6 })));
  expect(body).toMatchObject({ stop_reason: 'max_tokens', usage: { output_tokens: 6 } });
  expect((await post(provider, PATH, chat('Explain leases.'))).status).toBe(400);
});

test.each([
  [{ status: 529 }, 529, 'overloaded_error'],
  [{ status: 429, retryAfterMs: 1_200 }, 429, 'rate_limit_error'],
  [{ status: 401 }, 401, 'authentication_error'],
  [{ status: 402, code: 'insufficient_quota' }, 402, 'billing_error'],
  [{ status: 500 }, 500, 'api_error'],
])('puts the fault %j into its own envelope', async (fault, status, type) => {
  const response = await post(provider, PATH, ask('x'), {
    headers: { 'x-sim-fault': JSON.stringify(fault) },
  });
  const body = await json(response);
  expect(response.status).toBe(status);
  expect(body).toMatchObject({ type: 'error', error: { type } });
  expect(body.request_id).toBe(response.headers.get('request-id'));
});

test('says not_found_error for a missing model and invalid_request_error for a bad body', async () => {
  const missing = await post(provider, PATH, ask('x', { model: 'missing-x' }));
  expect([missing.status, (await json(missing)).error.type]).toEqual([404, 'not_found_error']);
  const bad = await post(provider, PATH, ask('x', { messages: [{ role: 'user' }] }));
  expect([bad.status, (await json(bad)).error.type]).toEqual([400, 'invalid_request_error']);
});
