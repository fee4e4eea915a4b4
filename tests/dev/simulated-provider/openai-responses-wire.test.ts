// OpenAI's Responses API and its embeddings as they look on the wire.

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

test('embeds texts so that those with words in common lie closer', async () => {
  const input = [
    'a token bucket limits requests',
    'requests are limited by a bucket of tokens',
    'bananas ripen in the sun',
  ];
  const body = await json(await post(provider, '/v1/embeddings', { model: 'e', input, dimensions: 256 }));
  const [one, two, three] = body.data.map((each: { embedding: number[] }) => each.embedding);
  const dot = (a: number[], b: number[]) => a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
  expect(one).toHaveLength(256);
  expect(dot(one, one)).toBeCloseTo(1);
  expect(dot(one, two)).toBeGreaterThan(dot(one, three) + 0.2);
  expect(body.usage.prompt_tokens).toBe(input.reduce((sum, text) => sum + countTokens(text), 0));
});

test('embeds tokens and answers in base64', async () => {
  const body = await json(
    await post(provider, '/v1/embeddings', {
      model: 'e',
      input: [[1, 2, 3], [4]],
      encoding_format: 'base64',
    }),
  );
  expect(body.usage.prompt_tokens).toBe(4);
  expect(Buffer.from(body.data[1].embedding, 'base64')).toHaveLength(1_536 * 4);
  expect((await post(provider, '/v1/embeddings', { model: 'e', input: [] })).status).toBe(400);
});

test('speaks the Responses API, whole and streamed', async () => {
  const ask = {
    model: 'simulated-small',
    instructions: 'Be brief.',
    input: [{ role: 'user', content: [{ type: 'input_text', text: 'Explain leases.' }] }],
  };
  const whole = await json(await post(provider, '/v1/responses', ask));
  expect(whole).toMatchObject({ object: 'response', status: 'completed', incomplete_details: null });
  const text = whole.output[0].content[0].text;
  expect(whole.usage.output_tokens).toBe(countTokens(text));

  const { events } = await readSse(await post(provider, '/v1/responses', { ...ask, stream: true }));
  const parsed = events.map((event) => JSON.parse(event.data));
  expect(parsed.map((each) => each.sequence_number)).toEqual(parsed.map((_, index) => index));
  expect(
    parsed
      .filter((each) => each.type === 'response.output_text.delta')
      .map((each) => each.delta)
      .join(''),
  ).toBe(text);
  expect(parsed.at(-1)).toMatchObject({ type: 'response.completed', response: { usage: whole.usage } });
});

test('ends a response that is too long as incomplete', async () => {
  const body = await json(
    await post(provider, '/v1/responses', { model: 'm', input: 'Explain leases.', max_output_tokens: 5 }),
  );
  expect(body).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
  expect(body.usage.output_tokens).toBe(5);
});
