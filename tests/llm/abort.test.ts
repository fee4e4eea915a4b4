// A cancelled call reaches the socket: the provider sees its connection close, and the caller an `aborted` that says how far it came.

import { once } from 'node:events';
import { expect, test } from 'vitest';
import { callFor, chunk, modelsAt, sse, startTcp, startWire } from './wire.ts';

test('an abort after output closes the connection and keeps what was seen', async () => {
  let closed: Promise<unknown> | undefined;
  await using wire = await startWire((response) => {
    closed = once(response, 'close');
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(sse(chunk({ content: 'Hel' })));
  });
  const abort = new AbortController();
  const call = callFor('p/m', { signal: abort.signal, onText: () => abort.abort(new Error('cancelled')) });
  await expect(modelsAt(wire.url).stream(call.request)).rejects.toMatchObject({
    name: 'LlmError',
    kind: 'aborted',
    stage: 'output',
    outputText: 'Hel',
  });
  await closed;
});

test('an abort before any status closes the connection, and the request may have been served', async () => {
  const abort = new AbortController();
  let closed: Promise<unknown> | undefined;
  await using wire = await startWire((response) => {
    closed = once(response, 'close');
    abort.abort();
  });
  await expect(
    modelsAt(wire.url).stream(callFor('p/m', { signal: abort.signal }).request),
  ).rejects.toMatchObject({ kind: 'aborted', stage: 'unanswered' });
  await closed;
});

test('an abort after the status and before output leaves the request unanswered', async () => {
  let closed: Promise<unknown> | undefined;
  await using wire = await startWire((response) => {
    closed = once(response, 'close');
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
  });
  for (const protocol of ['openai', 'openai-compatible', 'anthropic', 'google'] as const) {
    const abort = new AbortController();
    const call = callFor('p/m', { signal: abort.signal, onProgress: () => abort.abort() });
    await expect(modelsAt(wire.url, protocol).stream(call.request)).rejects.toMatchObject({
      kind: 'aborted',
      stage: 'unanswered',
    });
    await closed;
  }
});

test('a call that was aborted before it began sends nothing', async () => {
  await using wire = await startWire((response) => response.end());
  await expect(
    modelsAt(wire.url).stream(callFor('p/m', { signal: AbortSignal.abort() }).request),
  ).rejects.toMatchObject({ kind: 'aborted', stage: 'unsent' });
  expect(wire.requests).toHaveLength(0);
});

test('an abort after the reply changes nothing', async () => {
  await using wire = await startWire((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(sse(chunk({ content: 'Hel' }), chunk({}, 'stop'), 'data: [DONE]'));
  });
  const abort = new AbortController();
  const reply = await modelsAt(wire.url).stream(callFor('p/m', { signal: abort.signal }).request);
  abort.abort();
  expect(reply.text).toBe('Hel');
});

test('a stream that is given up because of an error in it is closed, however long the provider keeps it open', async () => {
  let closed: Promise<unknown> | undefined;
  await using wire = await startWire((response) => {
    closed = once(response, 'close');
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(
      sse(chunk({ content: 'Hel' }), { error: { message: 'x', type: 'server_error', code: null } }),
    );
  });
  await expect(modelsAt(wire.url).stream(callFor('p/m').request)).rejects.toMatchObject({ stage: 'output' });
  await closed;
});

test('an abort while the connection is being made ends the call at once', async () => {
  const abort = new AbortController();
  // It accepts and never speaks TLS, so the handshake hangs: the pool gives it up by its own time limit.
  await using tcp = await startTcp((socket) => socket.once('data', () => abort.abort()));
  await expect(
    modelsAt(`https://127.0.0.1:${tcp.port}`).stream(callFor('p/m', { signal: abort.signal }).request),
  ).rejects.toMatchObject({ kind: 'aborted', stage: 'unanswered' });
});
