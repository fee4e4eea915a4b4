// The call against the simulated provider, in each dialect: what a reply says it took is what the provider's own log says.

import { describe, expect, test } from 'vitest';
import { startSimulatedProvider } from '../../dev/simulated-provider/server.ts';
import { totalInputTokens } from '../../src/task/usage.ts';
import { callFor, modelsAt } from './wire.ts';

const PROTOCOLS = ['openai', 'openai-compatible', 'anthropic', 'google'] as const;
const MODELS = {
  openai: 'p/gpt-sim',
  'openai-compatible': 'p/sim',
  anthropic: 'p/claude-sim',
  google: 'p/gemini-sim',
};

const say = (content: string) => ({ messages: [{ role: 'user', content }] as const, maxOutputTokens: 500 });

describe.each(PROTOCOLS)('over %s', (protocol) => {
  test('a reply has the usage of the log, under its attempt key', async () => {
    await using provider = await startSimulatedProvider();
    const call = callFor(
      MODELS[protocol],
      say('Explain what a lease is, in a few sentences, and why it ends.'),
    );
    const reply = await modelsAt(provider.url, protocol).stream(call.request);
    expect(reply.finishReason).toBe('stop');
    expect(call.pieces.length).toBeGreaterThan(1);
    const [entry] = provider.requests();
    expect(entry?.attemptKey).toBe(call.request.attemptKey);
    expect(reply.usage && totalInputTokens(reply.usage)).toBe(entry?.usage.inputTokens);
    expect(reply.usage?.cacheReadTokens).toBe(entry?.usage.cachedInputTokens);
    expect(reply.usage?.outputTokens).toBe(entry?.usage.outputTokens);
    expect(reply.usage?.reasoningTokens).toBe(entry?.usage.reasoningTokens);
  });

  test.each([true, false])('a stream that is cut (in order: %s) is a failed attempt', async (terminator) => {
    await using provider = await startSimulatedProvider();
    const fault = JSON.stringify({ cutAfterChunks: 3, terminator });
    const call = callFor(MODELS[protocol], say(`Explain leases. [[sim:${fault}]]`));
    const error = await modelsAt(provider.url, protocol)
      .stream(call.request)
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ kind: 'cut', stage: 'output', outputText: call.pieces.join('') });
    expect(provider.requests()).toHaveLength(1);
  });

  test('an abort closes the connection of a provider that hangs', async () => {
    await using provider = await startSimulatedProvider();
    const fault = JSON.stringify({ hang: { afterChunks: 2 } });
    const abort = new AbortController();
    const call = callFor(MODELS[protocol], {
      ...say(`Explain leases. [[sim:${fault}]]`),
      signal: abort.signal,
      onText: () => abort.abort(),
    });
    await expect(modelsAt(provider.url, protocol).stream(call.request)).rejects.toMatchObject({
      kind: 'aborted',
      stage: 'output',
    });
    await expect.poll(() => provider.requests()[0]?.outcome).not.toBeNull();
  });
});

describe.each(PROTOCOLS)('over %s, too,', (protocol) => {
  test('a refusal has its hint', async () => {
    await using provider = await startSimulatedProvider();
    const fault = JSON.stringify({ status: 429, retryAfterMs: 1500 });
    const call = callFor(MODELS[protocol], say(`Explain leases. [[sim:${fault}]]`));
    const error = await modelsAt(provider.url, protocol)
      .stream(call.request)
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ kind: 'rate_limited', stage: 'answered', status: 429 });
    expect((error as { retryAfterMs: number }).retryAfterMs).toBeGreaterThan(0);
    expect((error as { retryAfterMs: number }).retryAfterMs).toBeLessThanOrEqual(2000);
  });

  test('an error inside a stream keeps what came before it', async () => {
    await using provider = await startSimulatedProvider();
    const fault = JSON.stringify({ errorInStreamAfterChunks: 2, status: 429 });
    const call = callFor(MODELS[protocol], say(`Explain leases. [[sim:${fault}]]`));
    const error = await modelsAt(provider.url, protocol)
      .stream(call.request)
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ kind: 'rate_limited', stage: 'output', outputText: call.pieces.join('') });
  });

  test('a filter without text refuses the content', async () => {
    await using provider = await startSimulatedProvider();
    const fault = JSON.stringify({ contentFilter: true, outputTokens: 0 });
    const call = callFor(MODELS[protocol], say(`Explain leases. [[sim:${fault}]]`));
    const error = await modelsAt(provider.url, protocol)
      .stream(call.request)
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ kind: 'content_filter' });
  });

  test('JSON that matches a schema is an answer that parses', async () => {
    await using provider = await startSimulatedProvider();
    const schema = {
      type: 'object',
      properties: { title: { type: 'string' }, count: { type: 'integer' } },
      required: ['title', 'count'],
      additionalProperties: false,
    };
    const call = callFor(MODELS[protocol], {
      ...say('Count the leases.'),
      responseFormat: { type: 'json_schema', name: 'leases', schema },
    });
    const reply = await modelsAt(provider.url, protocol).stream(call.request);
    expect(JSON.parse(reply.text)).toMatchObject({ title: expect.any(String), count: expect.any(Number) });
  });
});
