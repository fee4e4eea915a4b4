// Which request meets a fault: rules, markers in the prompt, how often each applies, and what cannot be read.

import { afterEach, beforeEach, expect, test } from 'vitest';
import { type SimulatedProvider, startSimulatedProvider } from '../../../dev/simulated-provider/server.ts';
import { chat, control, post, readSse, textOfChat } from './wire-client.ts';

const PATH = '/v1/chat/completions';
let provider: SimulatedProvider;

beforeEach(async () => {
  provider = await startSimulatedProvider();
});
afterEach(async () => {
  await provider.close();
});

test('applies rules in order, each as often as it says, to the requests that match', async () => {
  const rules = [
    { match: { model: 'other' }, status: 418 },
    { times: 2, status: 503 },
    { match: { promptContains: 'leases', path: '/v1/chat' }, times: 1, status: 500 },
  ];
  const put = await control(provider, 'PUT', 'faults', rules);
  expect(put.status).toBe(200);
  const statuses = [];
  for (let count = 0; count < 4; count += 1)
    statuses.push((await post(provider, PATH, chat('Explain leases.'))).status);
  expect(statuses).toEqual([503, 503, 500, 200]);
  expect((await post(provider, PATH, chat('x', { model: 'other' }))).status).toBe(418);
  const list = await control(provider, 'GET', 'faults');
  expect(list.json.map((rule: { applied: number }) => rule.applied)).toEqual([1, 2, 1]);
  await control(provider, 'DELETE', 'faults');
  expect((await post(provider, PATH, chat('x', { model: 'other' }))).status).toBe(200);
});

test('fails about as many requests as the error rate says', async () => {
  await control(provider, 'PUT', 'faults', [{ errorRate: 0.3, status: 503 }]);
  let failed = 0;
  for (let count = 0; count < 200; count += 1) {
    const response = await post(provider, PATH, chat('x'));
    await response.text();
    if (response.status === 503) failed += 1;
  }
  expect(failed).toBeGreaterThan(35);
  expect(failed).toBeLessThan(85);
});

test('meets the fault of a marker in the prompt, counted by the marker', async () => {
  const marked = (id: string) =>
    chat(`Explain leases. [[sim:{"status":429,"retryAfterMs":1500,"times":1,"id":"${id}"}]]`);
  const statuses = [];
  for (const id of ['a', 'a', 'b', 'b']) statuses.push((await post(provider, PATH, marked(id))).status);
  expect(statuses).toEqual([429, 200, 429, 200]);
  await control(provider, 'DELETE', 'faults');
  expect((await post(provider, PATH, marked('a'))).status).toBe(429);
});

test('takes the next marker of a prompt when the first is used up', async () => {
  const text = 'Explain. [[sim:{"status":500,"times":1}]] [[sim:{"status":503,"times":1}]]';
  const statuses = [];
  for (let count = 0; count < 3; count += 1) statuses.push((await post(provider, PATH, chat(text))).status);
  expect(statuses).toEqual([500, 503, 200]);
});

test('finds a marker in every dialect', async () => {
  const text = 'x [[sim:{"status":418}]]';
  const contents = [{ role: 'user', parts: [{ text }] }];
  const asks: [string, object][] = [
    [PATH, chat(text)],
    ['/v1/responses', { model: 'm', input: text }],
    ['/v1/messages', chat(text, { max_tokens: 9 })],
    ['/v1beta/models/g:generateContent', { contents }],
    ['/v1/embeddings', { model: 'e', input: text }],
  ];
  for (const [path, body] of asks) expect((await post(provider, path, body)).status, path).toBe(418);
});

test.each([
  ['no JSON', '{'],
  ['an unknown field', '{"statsu":500}'],
  ['nothing to do', '{"times":1}'],
  ['a status that is no error', '{"status":200}'],
  ['a hang that says neither when nor true', '{"hang":"later"}'],
  ['a distribution that does not exist', '{"latency":{"kind":"normal"}}'],
])('refuses a fault with %s, wherever it comes from', async (_, fault) => {
  expect((await post(provider, PATH, chat('x'), { headers: { 'x-sim-fault': fault } })).status).toBe(400);
  if (fault !== '{') expect((await post(provider, PATH, chat(`x [[sim:${fault}]]`))).status).toBe(400);
  const put = await fetch(`${provider.url}/control/faults`, { method: 'PUT', body: `[${fault}]` });
  expect(put.status).toBe(400);
});

test('sets pace and limits for all requests', async () => {
  const put = await control(provider, 'PUT', 'settings', {
    chunkDelayMs: 10,
    tokensPerChunk: 10,
    firstTokenMs: 30,
    rpm: 'unlimited',
  });
  expect(put.json).toMatchObject({
    chunkDelayMs: { kind: 'fixed', ms: 10 },
    tokensPerChunk: 10,
    rpm: 'unlimited',
  });
  const begun = performance.now();
  const response = await post(provider, PATH, chat('x', { stream: true }), {
    headers: { 'x-sim-output-tokens': '40' },
  });
  const { events } = await readSse(response);
  expect(performance.now() - begun).toBeGreaterThanOrEqual(55);
  expect(events).toHaveLength(1 + 4 + 2);
  expect(response.headers.get('x-ratelimit-limit-requests')).toBeNull();
  expect(textOfChat(events).length).toBe(160);
  expect((await control(provider, 'PUT', 'settings', { chunkDelay: 1 })).status).toBe(400);
  expect((await control(provider, 'PUT', 'settings', { rpm: 0 })).status).toBe(400);
});
