// Faults of the simulated provider as the real AI SDK sees them.

import { generateText, streamText } from 'ai';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { type SimulatedProvider, startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { SDK_NAMES, type SdkName, sdkModel } from './sdk-models.ts';
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

function call(name: SdkName, fault: object) {
  return {
    model: sdkModel(provider, name, 'm'),
    prompt: 'Explain how leases keep two workers from doing the same thing.',
    maxRetries: 0,
    maxOutputTokens: 500,
    headers: { 'x-sim-fault': JSON.stringify(fault) },
  };
}

test.each(SDK_NAMES)('%s reads an error with its status and hint', async (name) => {
  const error = await generateText(call(name, { status: 429, retryAfterMs: 1_500 })).catch(
    (thrown) => thrown,
  );
  expect(error.statusCode).toBe(429);
  expect(`${JSON.stringify(error.responseHeaders)} ${error.responseBody}`).toMatch(/1500|1\.5s/);
});

// Whether the SDK calls its error handler for such an end differs from dialect to dialect; the reason is what they share.
test.each(SDK_NAMES)('%s sees a stream that was cut cleanly end for no good reason', async (name) => {
  const result = streamText({
    ...call(name, { cutAfterChunks: 4, terminator: true }),
    onError: () => undefined,
  });
  let text = '';
  for await (const piece of result.textStream) text += piece;
  expect(text).toHaveLength(64);
  expect(['stop', 'length', 'tool-calls', 'content-filter']).not.toContain(await result.finishReason);
  expect(await ended(provider, first + 1)).toMatchObject({ outcome: 'cut', outputTokensSent: 16 });
});

test.each(SDK_NAMES)('%s throws when the socket breaks, after nothing but what was sent', async (name) => {
  const result = streamText({ ...call(name, { cutAfterChunks: 4 }), onError: () => undefined });
  let text = '';
  const read = async () => {
    for await (const piece of result.textStream) text += piece;
  };
  await expect(read()).rejects.toThrow();
  // A reader loses what it had not read when the connection breaks, so less is right as well.
  expect(text.length).toBeLessThanOrEqual(64);
  expect(await ended(provider, first + 1)).toMatchObject({ outcome: 'cut', outputTokensSent: 16 });
});

test.each(SDK_NAMES)('%s sees an error inside a stream', async (name) => {
  const errors: unknown[] = [];
  const fault = { errorInStreamAfterChunks: 4, status: 503 };
  const result = streamText({ ...call(name, fault), onError: ({ error }) => void errors.push(error) });
  await result.consumeStream();
  expect(errors).toHaveLength(1);
  expect(await ended(provider, first + 1)).toMatchObject({ outcome: 'error', outputTokensSent: 16 });
});

test.each(SDK_NAMES)('%s leaves a hung stream when it is aborted', async (name) => {
  const client = new AbortController();
  const options = { ...call(name, { hang: { afterChunks: 2 } }), abortSignal: client.signal };
  const result = streamText({ ...options, onError: () => undefined });
  let text = '';
  for await (const piece of result.textStream) {
    text += piece;
    if (text.length >= 32) client.abort();
  }
  expect(text).toHaveLength(32);
  expect(await ended(provider, first + 1)).toMatchObject({ outcome: 'hung', outputTokensSent: 8 });
});
