// How a call over the wire fails: each way once, with its kind, how far it came and what it measured. Real sockets.

import { expect, test } from 'vitest';
import { LlmError } from '../../src/llm/error.ts';
import type { ModelRequest } from '../../src/llm/language-model.ts';
import type { Protocol } from '../../src/llm/protocol.ts';
import { googleChunk } from './answers.ts';
import {
  anthropicSse,
  callFor,
  chunk,
  modelsAt,
  refuse,
  sse,
  startTcp,
  startWire,
  stream,
  usageChunk,
} from './wire.ts';

async function failureOf(url: string, protocol: Protocol = 'openai', more: Partial<ModelRequest> = {}) {
  const error = await modelsAt(url, protocol)
    .stream(callFor('p/m', more).request)
    .then(
      (reply) => expect.fail(`answered ${JSON.stringify(reply)}`),
      (reason: unknown) => reason,
    );
  expect(error).toBeInstanceOf(LlmError);
  return error as LlmError;
}

const NO_SPACE = { error: { message: 'slow down', type: 'requests', code: 'rate_limit_exceeded' } };

test('an error status is answered, with its hint, and asked only once', async () => {
  await using wire = await startWire(refuse(429, NO_SPACE, { 'retry-after': '1.5' }));
  expect(await failureOf(wire.url)).toMatchObject({
    kind: 'rate_limited',
    stage: 'answered',
    status: 429,
    retryAfterMs: 1500,
  });
  expect(wire.requests).toHaveLength(1);
});

test.each([
  {
    protocol: 'openai',
    status: 400,
    body: { error: { code: 'context_length_exceeded', message: 'x' } },
    kind: 'too_long',
  },
  {
    protocol: 'openai',
    status: 429,
    body: { error: { type: 'insufficient_quota', code: 'insufficient_quota', message: 'x' } },
    kind: 'quota',
  },
  { protocol: 'openai', status: 500, body: '<html>oops</html>', kind: 'unknown' },
  { protocol: 'openai', status: 503, body: '', kind: 'unknown' },
  { protocol: 'openai-compatible', status: 404, body: { detail: 'no such model' }, kind: 'not_found' },
  { protocol: 'openai-compatible', status: 401, body: { error: 'who?' }, kind: 'auth' },
  {
    protocol: 'anthropic',
    status: 529,
    body: { type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } },
    kind: 'overloaded',
  },
  {
    protocol: 'anthropic',
    status: 400,
    body: {
      type: 'error',
      error: { type: 'invalid_request_error', message: 'prompt is too long: 210000 tokens > 200000 maximum' },
    },
    kind: 'too_long',
  },
  {
    protocol: 'anthropic',
    status: 400,
    body: {
      type: 'error',
      error: { type: 'invalid_request_error', message: 'temperature: must be at most 1' },
    },
    kind: 'bad_request',
  },
  {
    protocol: 'google',
    status: 400,
    body: {
      error: {
        code: 400,
        status: 'INVALID_ARGUMENT',
        message: 'API key not valid.',
        details: [{ reason: 'API_KEY_INVALID' }],
      },
    },
    kind: 'auth',
  },
] as const)('an error status $status over $protocol is $kind', async ({ protocol, status, body, kind }) => {
  await using wire = await startWire(refuse(status, body));
  expect(await failureOf(wire.url, protocol)).toMatchObject({
    kind,
    stage: 'answered',
    status,
    usage: undefined,
  });
  expect(wire.requests).toHaveLength(1);
});

test('a redirect is not followed, since it would be a second request', async () => {
  await using other = await startWire(stream(''));
  await using wire = await startWire(refuse(307, '', { location: `${other.url}/v1/chat/completions` }));
  expect(await failureOf(wire.url)).toMatchObject({ kind: 'unknown', stage: 'answered', status: 307 });
  expect(other.requests).toHaveLength(0);
});

test("google's delay in the body is a hint", async () => {
  const body = {
    error: { code: 429, status: 'RESOURCE_EXHAUSTED', message: 'x', details: [{ retryDelay: '12s' }] },
  };
  await using wire = await startWire(refuse(429, body));
  expect(await failureOf(wire.url, 'google')).toMatchObject({ kind: 'rate_limited', retryAfterMs: 12_000 });
});

test.each(['openai', 'openai-compatible', 'google'] as const)(
  'a stream that is cut cleanly after output over %s is a failed attempt',
  async (protocol) => {
    const body =
      protocol === 'google'
        ? sse(googleChunk([{ text: 'Hel' }], { promptTokenCount: 7 }))
        : sse(chunk({ content: 'Hel' }));
    await using wire = await startWire(stream(body));
    const error = await failureOf(wire.url, protocol);
    expect(error).toMatchObject({ kind: 'cut', stage: 'output', outputText: 'Hel' });
  },
);

const MESSAGE_START = {
  type: 'message_start',
  message: {
    id: 'msg_1',
    type: 'message',
    role: 'assistant',
    model: 'm',
    content: [],
    usage: { input_tokens: 25, output_tokens: 1 },
  },
};
const TEXT_START = { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } };
const TEXT_DELTA = { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Hel' } };

test('an anthropic stream that is cut cleanly carries the input that was measured', async () => {
  await using wire = await startWire(stream(anthropicSse(MESSAGE_START, TEXT_START, TEXT_DELTA)));
  expect(await failureOf(wire.url, 'anthropic')).toMatchObject({
    kind: 'cut',
    stage: 'output',
    outputText: 'Hel',
    usage: { inputTokens: 25, outputTokens: 1 },
  });
});

test.each(['openai', 'openai-compatible', 'anthropic', 'google'] as const)(
  'a success that ends before any output over %s may have cost something',
  async (protocol) => {
    await using wire = await startWire(stream(''));
    expect(await failureOf(wire.url, protocol)).toMatchObject({
      kind: 'cut',
      stage: 'unanswered',
      status: undefined,
    });
  },
);

test('a stream whose socket breaks after output is cut, and says what was seen of it', async () => {
  await using wire = await startWire((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(sse(chunk({ content: 'Hel' })));
    // Only once the client has it.
    onText = () => response.destroy();
  });
  let onText = () => {};
  const error = await failureOf(wire.url, 'openai', { onText: () => onText() });
  expect(error).toMatchObject({ kind: 'cut', stage: 'output', outputText: 'Hel' });
});

test('reasoning counts as output although nobody sees it', async () => {
  const body = sse(chunk({ reasoning_content: 'Let me think.' }));
  await using wire = await startWire(stream(body));
  const call = callFor('p/m');
  const error = await failureOf(wire.url, 'openai-compatible', { onText: call.request.onText });
  expect(error).toMatchObject({ kind: 'cut', stage: 'output', outputText: 'Let me think.' });
  expect(call.pieces).toEqual([]);
});

const OVERLOADED = { type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } };

test('an error inside a stream is what its content says, and answered while there is no output', async () => {
  await using anthropic = await startWire(stream(anthropicSse(OVERLOADED)));
  expect(await failureOf(anthropic.url, 'anthropic')).toMatchObject({
    kind: 'overloaded',
    stage: 'answered',
  });
  await using begun = await startWire(stream(anthropicSse(MESSAGE_START, OVERLOADED)));
  expect(await failureOf(begun.url, 'anthropic')).toMatchObject({
    kind: 'overloaded',
    stage: 'answered',
    usage: { inputTokens: 25 },
  });
  await using openai = await startWire(
    stream(sse({ error: { message: 'x', type: 'server_error', code: 'insufficient_quota' } })),
  );
  expect(await failureOf(openai.url)).toMatchObject({ kind: 'quota', stage: 'answered', status: undefined });
  await using text = await startWire(stream(sse({ error: 'out of memory' })));
  expect(await failureOf(text.url, 'openai-compatible')).toMatchObject({
    kind: 'unknown',
    stage: 'answered',
  });
  await using google = await startWire(
    stream(sse({ error: { code: 503, status: 'UNAVAILABLE', message: 'x' } })),
  );
  expect(await failureOf(google.url, 'google')).toMatchObject({
    kind: 'unknown',
    stage: 'answered',
    status: 503,
  });
});

test.each(['openai', 'openai-compatible', 'anthropic'] as const)(
  'an error inside a stream after output over %s keeps the output',
  async (protocol) => {
    const body =
      protocol === 'anthropic'
        ? anthropicSse(MESSAGE_START, TEXT_START, TEXT_DELTA, {
            type: 'error',
            error: { type: 'rate_limit_error', message: 'x' },
          })
        : sse(chunk({ content: 'Hel' }), {
            error: { message: 'x', type: 'tokens', code: 'rate_limit_exceeded' },
          });
    await using wire = await startWire(stream(body, { 'retry-after-ms': '700' }));
    expect(await failureOf(wire.url, protocol)).toMatchObject({
      kind: 'rate_limited',
      stage: 'output',
      outputText: 'Hel',
      retryAfterMs: 700,
    });
  },
);

test('bytes that are no protocol are a cut stream', async () => {
  await using wire = await startWire(stream('data: {"no\n\n'));
  expect(await failureOf(wire.url)).toMatchObject({ kind: 'cut', stage: 'unanswered' });
  await using page = await startWire(refuse(200, '<html>please log in</html>'));
  expect(await failureOf(page.url)).toMatchObject({ kind: 'cut', stage: 'unanswered' });
});

test('a content filter without text refuses the content and says what it measured', async () => {
  const usage = usageChunk({ prompt_tokens: 9, completion_tokens: 0 });
  await using wire = await startWire(stream(sse(chunk({}, 'content_filter'), usage, 'data: [DONE]')));
  expect(await failureOf(wire.url)).toMatchObject({
    kind: 'content_filter',
    stage: 'answered',
    usage: { inputTokens: 9, outputTokens: 0 },
  });
  const blocked = sse({ promptFeedback: { blockReason: 'SAFETY' }, usageMetadata: { promptTokenCount: 9 } });
  await using google = await startWire(stream(blocked));
  expect(await failureOf(google.url, 'google')).toMatchObject({
    kind: 'content_filter',
    stage: 'answered',
    usage: { inputTokens: 9, outputTokens: 0 },
  });
});

test('a finish that no answer has is a failed attempt', async () => {
  await using wire = await startWire(
    stream(sse(googleChunk([{ text: 'Hel' }], { promptTokenCount: 7 }, 'OTHER'))),
  );
  expect(await failureOf(wire.url, 'google')).toMatchObject({ kind: 'cut', stage: 'output' });
});

test('a peer that hangs up after the request was written leaves it unanswered', async () => {
  await using tcp = await startTcp((socket) => socket.once('data', () => socket.destroy()));
  expect(await failureOf(`http://127.0.0.1:${tcp.port}`)).toMatchObject({
    kind: 'connection',
    stage: 'unanswered',
    status: undefined,
  });
});

test('a peer that hangs up within the status line leaves the request unanswered', async () => {
  await using tcp = await startTcp((socket) => socket.once('data', () => socket.end('HTTP/1.1 20')));
  expect(await failureOf(`http://127.0.0.1:${tcp.port}`)).toMatchObject({
    kind: 'connection',
    stage: 'unanswered',
  });
});

test('a port that nobody listens on leaves the request unsent', async () => {
  const tcp = await startTcp(() => {});
  await tcp[Symbol.asyncDispose]();
  expect(await failureOf(`http://127.0.0.1:${tcp.port}`)).toMatchObject({
    kind: 'connection',
    stage: 'unsent',
  });
  // Two addresses are tried, each with an error of its own.
  expect(await failureOf(`http://localhost:${tcp.port}`)).toMatchObject({
    kind: 'connection',
    stage: 'unsent',
  });
});

test('a name that does not exist leaves the request unsent', async () => {
  expect(await failureOf('http://nobody.invalid')).toMatchObject({ kind: 'connection', stage: 'unsent' });
});

test('a handshake that fails leaves the request unsent', async () => {
  await using plain = await startWire(stream(''));
  expect(await failureOf(plain.url.replace('http:', 'https:'))).toMatchObject({
    kind: 'connection',
    stage: 'unsent',
  });
  await using tcp = await startTcp((socket) => socket.once('data', () => socket.end()));
  expect(await failureOf(`https://127.0.0.1:${tcp.port}`)).toMatchObject({
    kind: 'connection',
    stage: 'unsent',
  });
});

test('a model that no provider has is not asked for', async () => {
  const models = modelsAt('http://127.0.0.1:9');
  for (const model of ['q/m', 'p/', 'p', '', '/m', 'toString/m']) {
    expect(models.has(model), model).toBe(false);
    await expect(models.stream(callFor(model).request)).rejects.toMatchObject({
      kind: 'not_found',
      stage: 'unsent',
    });
  }
  expect(models.has('p/a/b')).toBe(true);
});

test('a callback that throws is no fault of the provider', async () => {
  await using wire = await startWire(stream(sse(chunk({ content: 'Hel' }), chunk({}, 'stop'))));
  const broken = new Error('publisher is closed');
  const throwing = () => {
    throw broken;
  };
  const onText = await failureOf(wire.url, 'openai', { onText: throwing });
  expect(onText).toMatchObject({ kind: 'unknown', stage: 'output', outputText: 'Hel', cause: broken });
  const onProgress = await failureOf(wire.url, 'openai', { onProgress: throwing });
  expect(onProgress).toMatchObject({ kind: 'unknown', stage: 'unanswered', cause: broken });
});

test('an error tells nothing of prompt, answer or key, wherever it is printed', async () => {
  const secrets = ['Say hello.', 'sk-test', 'Hel', 'quoted prompt'];
  const body = {
    error: {
      message: 'quoted prompt is wrong',
      type: 'invalid_request_error',
      code: 'bad_value',
      param: 'messages[0]',
    },
  };
  await using wire = await startWire(refuse(400, body));
  await using cut = await startWire(stream(sse(chunk({ content: 'Hel' }), 'data: {"Hel')));
  for (const { url } of [wire, cut]) {
    const error = await failureOf(url);
    const { toPrintable } = await import('../../src/log/printable.ts');
    const printed = JSON.stringify(toPrintable(error));
    for (const secret of secrets) expect(printed).not.toContain(secret);
    expect(printed).toContain('t1:r1:s1:1#0.1.1.1');
  }
  expect(String((await failureOf(wire.url)).cause)).toContain(
    'bad_value, invalid_request_error, param messages[0]',
  );
});
