// The request log: the oracle of every test about charging.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { chat, control, ended, eventually, json, post, readSse } from './wire-client.ts';

const PATH = '/v1/chat/completions';

test('keeps id, attempt, model, status, usage and outcome of every request', async () => {
  await using provider = await startSimulatedProvider();
  const headers = { 'x-request-id': 'r-1', 'x-weir-attempt': 'call#0.1.1.1' };
  const response = await post(provider, PATH, chat('Explain leases.', { stream: true }), { headers });
  await readSse(response);
  expect(response.headers.get('x-request-id')).toBe('r-1');
  await post(provider, PATH, '{');
  const entry = await ended(provider, 1);
  const outputTokens = entry.usage.outputTokens;
  expect(entry).toEqual({
    n: 1,
    id: 'r-1',
    attemptKey: 'call#0.1.1.1',
    path: PATH,
    model: 'simulated-small',
    at: expect.stringMatching(/^\d{4}-.*Z$/),
    status: 200,
    usage: { inputTokens: 4, cachedInputTokens: 0, cacheWriteTokens: 0, outputTokens, reasoningTokens: 0 },
    outcome: 'completed',
    outputTokensSent: outputTokens,
  });
  expect(await ended(provider, 2)).toMatchObject({
    id: expect.stringMatching(/^req_/),
    attemptKey: null,
    model: null,
    status: 400,
  });
});

test('logs the usage that the client was told, in every dialect', async () => {
  await using provider = await startSimulatedProvider();
  const model = 'reasoner';
  const openai = await json(await post(provider, PATH, chat('One?', { model })));
  const anthropic = await json(await post(provider, '/v1/messages', chat('Two?', { model, max_tokens: 99 })));
  const embedded = await json(await post(provider, '/v1/embeddings', { model, input: 'Three words here' }));
  await ended(provider, 3);
  const usages = provider.requests().map((entry) => entry.usage);
  expect(usages[0]).toMatchObject({
    inputTokens: openai.usage.prompt_tokens,
    outputTokens: openai.usage.completion_tokens,
  });
  expect(usages[0]?.reasoningTokens).toBe(openai.usage.completion_tokens_details.reasoning_tokens);
  expect(usages[1]).toMatchObject({
    inputTokens: anthropic.usage.input_tokens,
    outputTokens: anthropic.usage.output_tokens,
  });
  expect(usages[2]).toMatchObject({ inputTokens: embedded.usage.prompt_tokens, outputTokens: 0 });
});

test('has a request from the moment it arrives and follows what is sent', async () => {
  await using provider = await startSimulatedProvider({ chunkDelayMs: 20, tokensPerChunk: 1 });
  const client = new AbortController();
  const response = await post(provider, PATH, chat('Explain leases.', { stream: true }), {
    signal: client.signal,
  });
  const running = await eventually(() => provider.requests().find((entry) => entry.outputTokensSent >= 3));
  expect(running).toMatchObject({ outcome: null, status: 200 });
  client.abort();
  await expect(response.text()).rejects.toThrow();
  const entry = await ended(provider, 1);
  expect(entry.outcome).toBe('client_gone');
  expect(entry.outputTokensSent).toBeGreaterThanOrEqual(3);
  expect(entry.outputTokensSent).toBeLessThan(40);
  expect(entry.usage.outputTokens).toBe(entry.outputTokensSent);
});

test('notices a client that goes before a whole answer is there', async () => {
  await using provider = await startSimulatedProvider({ latency: 60_000 });
  const client = new AbortController();
  const response = post(provider, PATH, chat('Explain leases.'), { signal: client.signal });
  await eventually(() => provider.requests().find((entry) => entry.usage.inputTokens > 0));
  client.abort();
  await expect(response).rejects.toThrow();
  expect(await ended(provider, 1)).toMatchObject({
    outcome: 'client_gone',
    status: null,
    outputTokensSent: 0,
  });
});

test('has a request whose client died in the middle of its body', async () => {
  await using provider = await startSimulatedProvider();
  const socket = connect(provider.port, '127.0.0.1');
  socket.write(
    `POST ${PATH} HTTP/1.1\r\nhost: x\r\nx-request-id: half\r\ncontent-length: 1000\r\n\r\n{"model":`,
  );
  await eventually(() => provider.requests()[0]);
  socket.destroy();
  expect(await ended(provider, 1)).toMatchObject({ id: 'half', outcome: 'client_gone', model: null });
});

test('answers what came since a number, and forgets on demand without using a number again', async () => {
  await using provider = await startSimulatedProvider();
  for (const text of ['a', 'b', 'c']) await (await post(provider, PATH, chat(text))).text();
  const since = await control(provider, 'GET', 'requests?since=1');
  expect(since.json.map((entry: { n: number }) => entry.n)).toEqual([2, 3]);
  expect((await control(provider, 'GET', 'requests?since=x')).status).toBe(400);
  expect((await control(provider, 'DELETE', 'requests')).json).toEqual([]);
  await (await post(provider, PATH, chat('d'))).text();
  expect((await control(provider, 'GET', 'requests')).json.map((entry: { n: number }) => entry.n)).toEqual([
    4,
  ]);
});

test('mirrors every arrival and every end to a file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'simulated-provider-'));
  const logFile = join(folder, 'requests.jsonl');
  const provider = await startSimulatedProvider({ logFile });
  await (await post(provider, PATH, chat('a'))).text();
  const entry = await ended(provider, 1);
  await provider.close();
  const lines = (await readFile(logFile, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  await rm(folder, { recursive: true });
  expect(lines.map((line) => line.outcome)).toEqual([null, 'completed']);
  expect(lines[1]).toEqual(entry);
});

test('answers control questions and refuses what it does not know', async () => {
  await using provider = await startSimulatedProvider();
  expect((await control(provider, 'GET', 'health')).json).toMatchObject({ status: 'ok', requests: 0 });
  expect((await control(provider, 'GET', 'nothing')).status).toBe(404);
  expect((await control(provider, 'GET', 'toString')).status).toBe(404);
  expect((await control(provider, 'POST', 'faults', [])).status).toBe(405);
  expect((await control(provider, 'PUT', 'faults', {})).status).toBe(400);
  expect(provider.requests()).toEqual([]);
});

test('survives bytes that are no HTTP', async () => {
  await using provider = await startSimulatedProvider();
  const socket = connect(provider.port, '127.0.0.1');
  const answered = new Promise((resolve) => socket.once('close', resolve));
  socket.on('data', () => socket.end());
  socket.write('\u0000\u0001 nonsense\r\n\r\n');
  await answered;
  expect((await post(provider, PATH, chat('x'))).status).toBe(200);
});
