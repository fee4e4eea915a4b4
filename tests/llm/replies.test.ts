// What a provider's good answers become, in each dialect, from raw bytes on a real socket.

import { expect, test } from 'vitest';
import { ANTHROPIC_ANSWER, GOOGLE_ANSWER, OPENAI_ANSWER } from './answers.ts';
import { anthropicSse, callFor, chunk, modelsAt, sse, startWire, stream, usageChunk } from './wire.ts';

test.each(['openai', 'openai-compatible'] as const)(
  'a good answer comes with text and disjoint usage over %s',
  async (protocol) => {
    await using wire = await startWire(stream(OPENAI_ANSWER));
    const call = callFor('p/m');
    const reply = await modelsAt(wire.url, protocol).stream(call.request);
    expect(reply).toEqual({
      text: 'Hello.',
      outputText: 'Hello.',
      finishReason: 'stop',
      usage: {
        inputTokens: 40,
        cacheReadTokens: 60,
        cacheWrite5mTokens: 0,
        cacheWrite1hTokens: 0,
        outputTokens: 20,
        reasoningTokens: 12,
      },
    });
    expect(call.pieces).toEqual(['Hel', 'lo.']);
    expect(wire.requests).toHaveLength(1);
    expect(wire.requests[0]?.path).toBe('/v1/chat/completions');
    expect(wire.requests[0]?.headers).toMatchObject({
      'x-weir-attempt': call.request.attemptKey,
      authorization: 'Bearer sk-test',
    });
    expect(wire.requests[0]?.body).toMatchObject({
      model: 'm',
      stream: true,
      stream_options: { include_usage: true },
      max_tokens: 50,
      messages: [{ role: 'user', content: 'Say hello.' }],
    });
  },
);

test('a good answer keeps the two kinds of cache writes apart over anthropic', async () => {
  await using wire = await startWire(stream(ANTHROPIC_ANSWER));
  const call = callFor('p/m');
  const reply = await modelsAt(wire.url, 'anthropic').stream(call.request);
  expect(reply).toEqual({
    text: 'Hello.',
    outputText: 'Hm.Hello.',
    finishReason: 'stop',
    usage: {
      inputTokens: 25,
      cacheReadTokens: 300,
      cacheWrite5mTokens: 50,
      cacheWrite1hTokens: 100,
      outputTokens: 15,
      reasoningTokens: 0,
    },
  });
  expect(call.pieces).toEqual(['Hel', 'lo.']);
  expect(wire.requests).toHaveLength(1);
  expect(wire.requests[0]?.path).toBe('/v1/messages');
  expect(wire.requests[0]?.headers).toMatchObject({
    'x-weir-attempt': call.request.attemptKey,
    'x-api-key': 'sk-test',
  });
  expect(wire.requests[0]?.body.max_tokens).toBe(50);
});

test('a good answer adds thoughts to the output over google', async () => {
  await using wire = await startWire(stream(GOOGLE_ANSWER));
  const call = callFor('p/m');
  const reply = await modelsAt(wire.url, 'google').stream(call.request);
  expect(reply).toEqual({
    text: 'Hello.',
    outputText: 'Hm.Hello.',
    finishReason: 'stop',
    usage: {
      inputTokens: 60,
      cacheReadTokens: 40,
      cacheWrite5mTokens: 0,
      cacheWrite1hTokens: 0,
      outputTokens: 13,
      reasoningTokens: 9,
    },
  });
  expect(call.pieces).toEqual(['Hel', 'lo.']);
  expect(wire.requests).toHaveLength(1);
  expect(wire.requests[0]?.path).toBe('/v1beta/models/m:streamGenerateContent?alt=sse');
  expect(wire.requests[0]?.headers).toMatchObject({
    'x-weir-attempt': call.request.attemptKey,
    'x-goog-api-key': 'sk-test',
  });
  expect(wire.requests[0]?.body.generationConfig.maxOutputTokens).toBe(50);
});

test('a good answer has no usage where the provider sent none', async () => {
  await using wire = await startWire(
    stream(sse(chunk({ content: 'Hi' }), chunk({}, 'stop'), 'data: [DONE]')),
  );
  expect((await modelsAt(wire.url).stream(callFor('p/m').request)).usage).toBeUndefined();
});

test('a good answer has zeros where the provider measured zero', async () => {
  const usage = usageChunk({ prompt_tokens: 0, completion_tokens: 0 });
  await using wire = await startWire(stream(sse(chunk({}, 'stop'), usage, 'data: [DONE]')));
  const reply = await modelsAt(wire.url, 'openai-compatible').stream(callFor('p/m').request);
  expect(reply).toMatchObject({ text: '', usage: { inputTokens: 0, outputTokens: 0 } });
});

test('a failure has no usage when an anthropic stream names none', async () => {
  const body = anthropicSse(
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Hi' } },
    { type: 'message_stop' },
  );
  await using wire = await startWire(stream(body));
  // Without a stop reason it is no answer either: the failure carries what is known.
  await expect(modelsAt(wire.url, 'anthropic').stream(callFor('p/m').request)).rejects.toMatchObject({
    kind: 'cut',
    stage: 'output',
    usage: undefined,
  });
});

test('an answer says that it was ended by its length', async () => {
  await using wire = await startWire(
    stream(sse(chunk({ content: 'Hi' }), chunk({}, 'length'), 'data: [DONE]')),
  );
  expect(await modelsAt(wire.url).stream(callFor('p/m').request)).toMatchObject({
    text: 'Hi',
    finishReason: 'length',
  });
});

test('an answer keeps the text that came before a content filter', async () => {
  const body = sse(chunk({ content: 'Well,' }), chunk({}, 'content_filter'), 'data: [DONE]');
  await using wire = await startWire(stream(body));
  expect(await modelsAt(wire.url).stream(callFor('p/m').request)).toMatchObject({
    text: 'Well,',
    finishReason: 'content-filter',
  });
});

test('an answer that calls a tool is one request and no second', async () => {
  const call = { index: 0, id: 'c1', type: 'function', function: { name: 'clock', arguments: '{}' } };
  const body = sse(chunk({ tool_calls: [call] }), chunk({}, 'tool_calls'), 'data: [DONE]');
  await using wire = await startWire(stream(body));
  expect(await modelsAt(wire.url).stream(callFor('p/m').request)).toMatchObject({
    text: '',
    finishReason: 'tool-calls',
  });
  expect(wire.requests).toHaveLength(1);
});

test('an answer is streamed piece by piece, with a sign of life for every chunk', async () => {
  let goOn: (() => void) | undefined;
  await using wire = await startWire((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(sse(chunk({ role: 'assistant', content: '' })));
    goOn = () => {
      response.write(sse(chunk({ content: 'one ' })));
      goOn = () => response.end(sse(chunk({ content: 'two' }), chunk({}, 'stop'), 'data: [DONE]'));
    };
  });
  const seen: string[] = [];
  const progress: string[] = [];
  const call = callFor('p/m', {
    onText: (piece) => {
      seen.push(piece);
      goOn?.();
    },
    onProgress: () => {
      progress.push(seen.join('|'));
      // The status line and the first chunk came, and no text yet.
      if (progress.length === 2) goOn?.();
    },
  });
  const reply = await modelsAt(wire.url).stream(call.request);
  expect(seen).toEqual(['one ', 'two']);
  expect(reply.text).toBe(seen.join(''));
  expect(progress.slice(0, 3)).toEqual(['', '', '']);
  expect(progress.length).toBeGreaterThanOrEqual(4);
});

test('an answer leaves its connection to the next request', async () => {
  await using wire = await startWire(stream(OPENAI_ANSWER));
  const models = modelsAt(wire.url);
  for (let n = 0; n < 8; n++) await models.stream(callFor('p/m').request);
  expect(wire.requests).toHaveLength(8);
  // The pool may open a second one in the moment before the first is free again.
  expect(wire.connections()).toBeLessThanOrEqual(2);
});

test('a count that a later event names without a value stays as it was', async () => {
  const delta = '"usage":{"output_tokens":15}';
  expect(ANTHROPIC_ANSWER).toContain(delta);
  const body = ANTHROPIC_ANSWER.replace(
    delta,
    '"usage":{"output_tokens":15,"input_tokens":null,"cache_read_input_tokens":null}',
  );
  await using wire = await startWire(stream(body));
  const reply = await modelsAt(wire.url, 'anthropic').stream(callFor('p/m').request);
  expect(reply.usage).toMatchObject({ inputTokens: 25, cacheReadTokens: 300, outputTokens: 15 });
});
