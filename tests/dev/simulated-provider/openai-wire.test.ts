// The OpenAI dialect as it looks on the wire: chat completions, models, errors.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { type SimulatedProvider, startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { countTokens } from '../../../dev/simulated-provider/tokens.ts';
import { chat, json, post, readSse, textOfChat } from './wire-client.ts';

const PATH = '/v1/chat/completions';
let provider: SimulatedProvider;

beforeAll(async () => {
  provider = await startSimulatedProvider();
});
afterAll(async () => {
  await provider.close();
});

test('answers a chat whole, with usage counted by the documented rule', async () => {
  const response = await post(provider, PATH, chat('Explain how durable timers work.'));
  const body = await json(response);
  expect(response.status).toBe(200);
  expect(body).toMatchObject({ object: 'chat.completion', model: 'simulated-small' });
  expect(body.choices[0].finish_reason).toBe('stop');
  const text = body.choices[0].message.content;
  expect(body.usage).toMatchObject({
    prompt_tokens: Math.ceil('Explain how durable timers work.'.length / 4),
    completion_tokens: countTokens(text),
    prompt_tokens_details: { cached_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: 0 },
  });
  expect(body.usage.total_tokens).toBe(body.usage.prompt_tokens + body.usage.completion_tokens);
  expect(countTokens(text)).toBeGreaterThanOrEqual(40);
  expect(countTokens(text)).toBeLessThanOrEqual(120);
});

test('streams the same text that it answers whole, and ends with usage and [DONE]', async () => {
  const whole = await json(await post(provider, PATH, chat('Explain leases.')));
  const response = await post(
    provider,
    PATH,
    chat('Explain leases.', { stream: true, stream_options: { include_usage: true } }),
  );
  const { events } = await readSse(response);
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  expect(textOfChat(events)).toBe(whole.choices[0].message.content);
  expect(events.length).toBeGreaterThan(10);
  expect(events.at(-1)?.data).toBe('[DONE]');
  expect(JSON.parse(events.at(-2)?.data ?? '')).toMatchObject({ choices: [], usage: whole.usage });
  expect(JSON.parse(events.at(-3)?.data ?? '').choices[0].finish_reason).toBe('stop');
});

test('says nothing of usage in a stream that does not ask for it', async () => {
  const { events } = await readSse(await post(provider, PATH, chat('Explain leases.', { stream: true })));
  expect(events.map((event) => event.data).join('\n')).not.toContain('usage');
});

test.each(['max_tokens', 'max_completion_tokens'])('cuts an answer at %s and says length', async (field) => {
  const body = await json(await post(provider, PATH, chat('Explain quotas.', { [field]: 7 })));
  expect(body.choices[0].finish_reason).toBe('length');
  expect(body.usage.completion_tokens).toBe(7);
  expect(countTokens(body.choices[0].message.content)).toBe(7);
});

test('counts reasoning inside the completion for models that reason', async () => {
  const body = await json(
    await post(provider, PATH, chat('Explain clocks.', { model: 'simulated-reasoning' })),
  );
  const visible = countTokens(body.choices[0].message.content);
  const reasoning = body.usage.completion_tokens_details.reasoning_tokens;
  expect(reasoning).toBeGreaterThan(0);
  expect(body.usage.completion_tokens).toBe(visible + reasoning);
});

test('keeps reasoning and answer together within max_tokens', async () => {
  const body = await json(
    await post(provider, PATH, chat('Explain clocks.', { model: 'x-reason', max_tokens: 10 })),
  );
  expect(body.usage.completion_tokens).toBe(10);
  expect(body.usage.completion_tokens_details.reasoning_tokens).toBe(5);
});

test('reports the beginning of a long prompt as cached the second time only, and per model', async () => {
  const prompt = `${'A sentence about caching that is always the same. '.repeat(120)}Question one?`;
  const cached = async (text: string, model: string) =>
    (await json(await post(provider, PATH, chat(text, { model })))).usage.prompt_tokens_details.cached_tokens;
  expect(await cached(prompt, 'cache-a')).toBe(0);
  const steps = Math.floor((Buffer.byteLength(prompt) - Buffer.byteLength('Question one?')) / 512) * 128;
  expect(await cached(prompt.replace('one?', 'two, and more?'), 'cache-a')).toBe(steps);
  expect(await cached(prompt, 'cache-b')).toBe(0);
  expect(await cached('short', 'cache-a')).toBe(0);
  expect(await cached('short', 'cache-a')).toBe(0);
});

const WEATHER = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Current weather of a city',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' }, unit: { enum: ['celsius', 'fahrenheit'] } },
      required: ['city', 'unit'],
    },
  },
};

test('calls a tool that fits the prompt, whole and in argument deltas', async () => {
  const ask = chat('How is the weather in New York, in fahrenheit?', { tools: [WEATHER] });
  const whole = await json(await post(provider, PATH, ask));
  expect(whole.choices[0].finish_reason).toBe('tool_calls');
  const call = whole.choices[0].message.tool_calls[0];
  expect(call.function.name).toBe('get_weather');
  expect(JSON.parse(call.function.arguments)).toEqual({ city: 'New York', unit: 'fahrenheit' });
  expect(whole.usage.completion_tokens).toBe(countTokens(call.function.arguments));

  const { events } = await readSse(await post(provider, PATH, { ...ask, stream: true }));
  const deltas = events.slice(0, -1).map((event) => JSON.parse(event.data).choices[0]);
  const calls = deltas.flatMap((choice) => choice.delta.tool_calls ?? []);
  expect(calls[0]).toMatchObject({
    index: 0,
    type: 'function',
    function: { name: 'get_weather', arguments: '' },
  });
  expect(calls.length).toBeGreaterThan(2);
  expect(calls.map((each) => each.function.arguments).join('')).toBe(call.function.arguments);
  expect(deltas.at(-1)?.finish_reason).toBe('tool_calls');
});

test('answers in words when no tool fits, when tools are off, and after the tool has answered', async () => {
  const finish = async (text: string, more: object) =>
    (await json(await post(provider, PATH, chat(text, { tools: [WEATHER], ...more })))).choices[0];
  expect((await finish('Tell me about Redis.', {})).finish_reason).toBe('stop');
  expect((await finish('Weather in Paris?', { tool_choice: 'none' })).finish_reason).toBe('stop');
  expect((await finish('Tell me about Redis.', { tool_choice: 'required' })).finish_reason).toBe(
    'tool_calls',
  );
  const messages = [
    { role: 'user', content: 'Weather in Paris?' },
    {
      role: 'assistant',
      tool_calls: [{ id: 'c1', type: 'function', function: { name: 'get_weather', arguments: '{}' } }],
    },
    { role: 'tool', tool_call_id: 'c1', content: 'Nineteen degrees and a light drizzle' },
  ];
  const after = await finish('', { messages });
  expect(after.finish_reason).toBe('stop');
  expect(after.message.content).toContain('Nineteen degrees and a light drizzle');
});

test.each([
  ['a body that is not JSON', '{"model":', undefined],
  ['a body that is no object', '[]', undefined],
  ['a missing model', { messages: [{ role: 'user', content: 'x' }] }, 'model'],
  ['no messages', { model: 'm', messages: [] }, 'messages'],
  [
    'a role that does not exist',
    { model: 'm', messages: [{ role: 'toString', content: 'x' }] },
    'messages[0].role',
  ],
  [
    'a content that is a number',
    { model: 'm', messages: [{ role: 'user', content: 3 }] },
    'messages[0].content',
  ],
  ['a negative max_tokens', chat('x', { max_tokens: -1 }), 'max_tokens'],
  ['a fractional max_tokens', chat('x', { max_tokens: 1.5 }), 'max_tokens'],
  ['a temperature above 2', chat('x', { temperature: 2.1 }), 'temperature'],
  ['two choices', chat('x', { n: 2 }), 'n'],
  ['an unknown response format', chat('x', { response_format: { type: 'xml' } }), 'response_format.type'],
  [
    'a tool choice that was not offered',
    chat('x', { tools: [WEATHER], tool_choice: { type: 'function', function: { name: 'other' } } }),
    'tool_choice',
  ],
])('refuses %s with 400', async (_, body, param) => {
  const response = await post(provider, PATH, body);
  expect(response.status).toBe(400);
  const { error } = await json(response);
  expect(error.type).toBe('invalid_request_error');
  expect(error.param ?? undefined).toBe(param);
  expect(error.message).toEqual(expect.any(String));
});

test('takes any model, with and without a key, but none whose name starts with missing-', async () => {
  expect((await post(provider, PATH, chat('x', { model: 'a/b:c' }))).status).toBe(200);
  expect((await post(provider, PATH, chat('x'), { headers: { authorization: 'Bearer k' } })).status).toBe(
    200,
  );
  const response = await post(provider, PATH, chat('x', { model: 'missing-1' }));
  expect(response.status).toBe(404);
  expect((await json(response)).error).toMatchObject({ code: 'model_not_found', param: 'model' });
});

test('lists models and says 404 for what it does not serve', async () => {
  const models = await json(await fetch(`${provider.url}/v1/models`));
  expect(models.data.map((model: { id: string }) => model.id)).toContain('simulated-small');
  expect((await post(provider, '/v1/nothing', {})).status).toBe(404);
  expect((await fetch(`${provider.url}${PATH}`)).status).toBe(404);
});
