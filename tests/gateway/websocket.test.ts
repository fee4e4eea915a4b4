// A task's events over a WebSocket, read by Node's own client.

import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TaskEvent } from '../../src/task/event.ts';
import { eventually } from '../support/eventually.ts';
import { createStoredTask, textOf, typesOf } from './events.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

let gateway: TestGateway;
let url: string;

beforeAll(async () => {
  gateway = await openTestGateway({ settings: { heartbeatMs: 50 } });
  url = await gateway.listen();
});
afterAll(() => gateway[Symbol.asyncDispose]());

type Follower = { readonly socket: WebSocket; readonly events: TaskEvent[]; code: number | undefined };

function follow(path: string): Follower {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/api/v1/tasks/${path}`);
  const follower: Follower = { socket, events: [], code: undefined };
  socket.addEventListener('message', ({ data }) => {
    follower.events.push(JSON.parse(String(data)) as TaskEvent);
  });
  socket.addEventListener('close', ({ code }) => {
    follower.code = code;
  });
  return follower;
}

async function toItsEnd(follower: Follower): Promise<readonly TaskEvent[]> {
  await eventually(() => expect(follower.code).toBeDefined());
  return follower.events;
}

/** What a request is answered that asks for a WebSocket and gets none. */
async function refused(path: string): Promise<number> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let answer = '';
  socket.on('data', (chunk) => {
    answer += chunk.toString();
  });
  const key = Buffer.alloc(16).toString('base64');
  socket.write(
    `GET /api/v1/tasks/${path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n` +
      `sec-websocket-version: 13\r\nsec-websocket-key: ${key}\r\n\r\n`,
  );
  await eventually(() => expect(answer).toContain('\r\n'));
  socket.destroy();
  return Number(answer.split(' ')[1]);
}

describe('GET /api/v1/tasks/{taskId}/ws', () => {
  test('sends the same envelopes as they come, outlives its pings, and closes with 1000 after the end', async () => {
    const task = createStoredTask(gateway.test, 'ws-1');
    await task.begin();
    const follower = follow('ws-1/ws');
    await eventually(() => expect(follower.events).toHaveLength(2));
    await task.startCall();
    for (const text of ['a', 'ü', '\u2028']) await task.delta(text);
    await task.completeCall('aü\u2028');
    await task.end();
    const events = await toItsEnd(follower);
    expect(follower.code).toBe(1000);
    expect(textOf(events)).toBe('aü\u2028');
    expect(typesOf(events.filter(({ type }) => type !== 'call_delta'))).toBe(
      'task_started step_started call_started call_completed task_completed stream_end',
    );
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    const response = await fetch(`${url}/api/v1/tasks/ws-1/stream`);
    // Not by `.`, which U+2028 ends.
    const overSse = (await response.text())
      .split('\n')
      .filter((line) => line.startsWith('data: '))
      .map((line) => JSON.parse(line.slice(6)));
    expect(events).toEqual(overSse);
  });

  test('goes on after ?after=, sends the types that are asked for, and resets what it cannot honour', async () => {
    const task = createStoredTask(gateway.test, 'ws-2');
    await task.begin();
    await task.end();
    expect(typesOf(await toItsEnd(follow('ws-2/ws?after=1-2')))).toBe('task_completed stream_end');
    expect(typesOf(await toItsEnd(follow('ws-2/ws?types=task_started')))).toBe('task_started stream_end');
    expect(typesOf((await toItsEnd(follow('ws-2/ws?after=7-3'))).slice(0, 2))).toBe('reset task_started');
    expect(await toItsEnd(follow('ws-2/ws?after=1-4'))).toEqual([]);
  });

  test('answers before the upgrade what it cannot serve', async () => {
    await createStoredTask(gateway.test, 'ws-3').begin();
    expect(await refused('nobody/ws')).toBe(404);
    expect(await refused('ws-3/ws?after=abc')).toBe(400);
    expect(await refused('ws-3/ws?types=nonsense')).toBe(400);
    expect((await fetch(`${url}/api/v1/tasks/ws-3/ws`)).status).toBe(426);
  });

  test('forgets a client that leaves', async () => {
    await createStoredTask(gateway.test, 'ws-4').begin();
    const readers = async () => (await gateway.parts.metrics.streamReaders.get()).values[0]?.value;
    const before = await readers();
    const follower = follow('ws-4/ws');
    await eventually(() => expect(follower.events).toHaveLength(2));
    expect(await readers()).toBe((before ?? 0) + 1);
    follower.socket.close();
    await eventually(async () => expect(await readers()).toBe(before));
  });
});

describe('POST /api/v1/tasks/stream', () => {
  test('submits and streams in one request', async () => {
    const response = await fetch(`${url}/api/v1/tasks/stream?taskId=posted-1`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ userId: 'u1', query: 'hello' }),
    });
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    expect(gateway.temporal.started.at(-1)).toMatchObject({ taskId: 'posted-1' });
    const task = createStoredTask(gateway.test, 'posted-1');
    await task.begin();
    await task.end();
    expect((await response.text()).match(/^event: .+$/gm)).toEqual([
      'event: task_started',
      'event: step_started',
      'event: task_completed',
      'event: stream_end',
    ]);
  });

  test('answers bad input as a problem, and starts nothing', async () => {
    const before = gateway.temporal.started.length;
    const response = await fetch(`${url}/api/v1/tasks/stream`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query: 'hello' }),
    });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ faults: [{ path: 'userId' }] });
    expect(gateway.temporal.started).toHaveLength(before);
  });
});
