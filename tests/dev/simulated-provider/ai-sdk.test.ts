// The simulated provider seen through the real AI SDK: what the SDK reads must be what the provider's log says.

import { createOpenAI } from '@ai-sdk/openai';
import { embed, generateText, isStepCount, Output, streamText, tool } from 'ai';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { type SimulatedProvider, startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { SDK_NAMES, sdkModel } from './sdk-models.ts';
import { ended } from './wire-client.ts';

let provider: SimulatedProvider;
let first = 0;

beforeAll(async () => {
  provider = await startSimulatedProvider();
});
afterAll(async () => {
  await provider.close();
});
beforeEach(() => {
  first = provider.requests().length;
});

const PROMPT = 'Explain how leases keep two workers from doing the same thing.';
const CALL = { maxRetries: 0, maxOutputTokens: 500 };

test.each(SDK_NAMES)('%s generates a text with the usage of the log', async (name) => {
  const model = sdkModel(provider, name, 'simulated-reasoning');
  const { text, usage, finishReason } = await generateText({ ...CALL, model, prompt: PROMPT });
  expect(text.length).toBeGreaterThan(100);
  expect(finishReason).toBe('stop');
  expect(readUsage(usage)).toEqual(await logged(1));
  expect(usage.outputTokenDetails.reasoningTokens).toBeGreaterThan(0);
});

test.each(SDK_NAMES)('%s streams the same text with the usage of the log', async (name) => {
  const model = sdkModel(provider, name, 'simulated-reasoning');
  const whole = await generateText({ ...CALL, model, prompt: PROMPT });
  const result = streamText({ ...CALL, model, prompt: PROMPT });
  const pieces: string[] = [];
  for await (const piece of result.textStream) pieces.push(piece);
  expect(pieces.join('')).toBe(whole.text);
  expect(pieces.length).toBeGreaterThan(5);
  expect(await result.finishReason).toBe('stop');
  expect(readUsage(await result.usage)).toEqual(await logged(2));
});

test.each(SDK_NAMES)('%s reads cached tokens of a repeated long prompt', async (name) => {
  const model = sdkModel(provider, name, 'cached');
  const prompt = `${`The rules of ${name} do not change from one day to the next. `.repeat(100)}Explain them.`;
  await generateText({ ...CALL, model, prompt });
  const { usage } = await generateText({ ...CALL, model, prompt });
  expect(usage.inputTokenDetails.cacheReadTokens).toBeGreaterThanOrEqual(1_024);
  expect(readUsage(usage)).toEqual(await logged(2));
});

test.each(SDK_NAMES)('%s reads length as the reason when the output is cut', async (name) => {
  const model = sdkModel(provider, name, 'm');
  const { finishReason, usage } = await generateText({ ...CALL, maxOutputTokens: 16, model, prompt: PROMPT });
  expect(finishReason).toBe('length');
  expect(usage.outputTokens).toBe(16);
});

test.each(SDK_NAMES)('%s fills a schema', async (name) => {
  const schema = z.object({
    summary: z.string(),
    risk: z.enum(['low', 'high']),
    notes: z.array(z.string()).min(1),
  });
  const output = Output.object({ schema });
  const answer = await generateText({
    ...CALL,
    model: sdkModel(provider, name, 'm'),
    prompt: PROMPT,
    output,
  });
  expect(schema.parse(answer.output)).toEqual(answer.output);
});

test.each(SDK_NAMES)('%s calls a tool and answers from its result', async (name) => {
  const weather = tool({
    description: 'Current weather of a city',
    inputSchema: z.object({ city: z.string() }),
    execute: ({ city }) => `Fog over ${city}, eleven degrees`,
  });
  const model = sdkModel(provider, name, 'm');
  const options = {
    ...CALL,
    model,
    prompt: 'How is the weather in Bergen?',
    tools: { get_weather: weather },
  };
  const whole = await generateText({ ...options, stopWhen: isStepCount(3) });
  expect(whole.steps).toHaveLength(2);
  expect(whole.text).toContain('Fog over Bergen, eleven degrees');
  expect(await streamText({ ...options, stopWhen: isStepCount(3) }).text).toBe(whole.text);
});

test('the SDK embeds a text', async () => {
  const model = createOpenAI({ baseURL: `${provider.url}/v1`, apiKey: 'k' }).embedding('simulated-embedding');
  const { embedding, usage } = await embed({ model, value: 'a token bucket' });
  expect(embedding).toHaveLength(1_536);
  expect(usage.tokens).toBe(4);
});

test('the SDK reads what anthropic wrote to its cache', async () => {
  const prompt = 'Nobody has sent this sentence before, and nobody will again. '.repeat(100);
  const { usage } = await generateText({ ...CALL, model: sdkModel(provider, 'anthropic', 'writer'), prompt });
  const entry = await ended(provider, first + 1);
  expect(entry.usage.cacheWriteTokens).toBeGreaterThanOrEqual(1_024);
  expect(usage.inputTokenDetails.cacheWriteTokens).toBe(entry.usage.cacheWriteTokens);
  expect(usage.inputTokens).toBe(entry.usage.inputTokens);
});

type SdkUsage = Awaited<ReturnType<typeof generateText>>['usage'];

function readUsage(usage: SdkUsage) {
  return {
    inputTokens: usage.inputTokens,
    outputTokens: usage.outputTokens,
    totalTokens: usage.totalTokens,
    reasoningTokens: usage.outputTokenDetails.reasoningTokens,
    cacheReadTokens: usage.inputTokenDetails.cacheReadTokens,
  };
}

/** What the log says of the test's n-th request, in the SDK's shape. */
async function logged(n: number) {
  const { usage } = await ended(provider, first + n);
  return {
    inputTokens: usage.inputTokens,
    outputTokens: usage.outputTokens,
    totalTokens: usage.inputTokens + usage.outputTokens,
    reasoningTokens: usage.reasoningTokens,
    cacheReadTokens: usage.cachedInputTokens,
  };
}
