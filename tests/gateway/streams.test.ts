// Event streams on a real socket: what goes over the wire, where a reader may begin, and what happens to it when somebody leaves.

import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TaskEvent } from '../../src/task/event.ts';
import { eventually } from '../support/eventually.ts';
import { createStoredTask, textOf, typesOf } from './events.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

let gateway: TestGateway;
let url: string;

beforeAll(async () => {
  gateway = await openTestGateway({
    settings: { heartbeatMs: 100 },
    stores: {
      events: { ringCapacity: 50, onPublished: () => undefined },
      liveFeed: { coalesceMs: 50, backlogEvents: 1_000, backlogBytes: 262_144, lingerMs: 50 },
    },
  });
  url = await gateway.listen();
});
afterAll(() => gateway[Symbol.asyncDispose]());

type Read = {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly events: TaskEvent[];
  readonly ids: string[];
};

/** Reads a stream to its end. */
async function read(path: string, headers: Record<string, string> = {}): Promise<Read> {
  const response = await fetch(`${url}/api/v1/tasks/${path}`, {
    headers,
    signal: AbortSignal.timeout(20_000),
  });
  const text = await response.text();
  const ids = [...text.matchAll(/^id: (.+)$/gm)].map(([, id]) => id ?? '');
  return { status: response.status, headers: response.headers, text, ids, events: eventsIn(text) };
}

function eventsIn(text: string): TaskEvent[] {
  return [...text.matchAll(/^data: (.+)$/gm)].map(([, data]) => JSON.parse(data ?? '') as TaskEvent);
}

/** A connection that reads only when it is told to. */
async function openRaw(path: string): Promise<Socket & { received: string }> {
  const { hostname, port } = new URL(url);
  const socket = Object.assign(connect(Number(port), hostname), { received: '' });
  socket.on('data', (chunk) => {
    socket.received += chunk.toString();
  });
  socket.on('error', () => undefined /* the test cuts it */);
  socket.write(`GET /api/v1/tasks/${path} HTTP/1.1\r\nhost: x\r\n\r\n`);
  return socket;
}

async function readers(): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^weir_stream_readers (\d+)$/m.exec(text)?.[1]);
}

async function blockedReaders(): Promise<number> {
  const list = await gateway.test.redis.command((client) => client.client('LIST'));
  return String(list)
    .split('\n')
    .filter((line) => line.includes(`name=${gateway.test.prefix}:reader`) && line.includes('cmd=xread'))
    .length;
}

describe('a stream', () => {
  test('carries id, event and data of each event, and ends with stream_end', async () => {
    const task = createStoredTask(gateway.test, 'wire-1');
    await task.begin();
    await task.startCall();
    await task.delta('two\nlines and 🌊');
    await task.completeCall('two\nlines and 🌊');
    await task.end();
    const { status, headers, text, events, ids } = await read('wire-1/stream');
    expect(status).toBe(200);
    expect(headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(headers.get('x-accel-buffering')).toBe('no');
    expect(headers.get('cache-control')).toContain('no-cache');
    expect(text).toContain('\n\nid: 1-1\nevent: task_started\ndata: {');
    expect(typesOf(events)).toBe(
      'task_started step_started call_started call_delta call_completed task_completed stream_end',
    );
    expect(ids).toEqual(events.map((event) => `${event.epoch}-${event.seq}`));
    expect(textOf(events)).toBe('two\nlines and 🌊');
    expect(text.endsWith('\n\n')).toBe(true);
  });

  test('sends its head at once and comments while nothing happens', async () => {
    await createStoredTask(gateway.test, 'quiet-1').queue();
    const socket = await openRaw('quiet-1/stream');
    await eventually(() => expect(socket.received.split(': still here').length).toBeGreaterThan(3));
    expect(socket.received).toContain('retry: 1000');
    expect(socket.received).not.toContain('event:');
    socket.destroy();
  });

  test('goes on after Last-Event-ID, which wins over ?after=, and after ?after=', async () => {
    const task = createStoredTask(gateway.test, 'resume-1');
    await task.begin();
    await task.end();
    expect((await read('resume-1/stream?after=1-1', { 'last-event-id': '1-3' })).ids).toEqual(['1-4']);
    expect((await read('resume-1/stream?after=1-2')).ids).toEqual(['1-3', '1-4']);
    expect((await read('resume-1/stream?after=9-2')).events[0]).toMatchObject({ type: 'reset' });
  });

  test('tells a reader that has everything by 204, so that a browser does not come back', async () => {
    const task = createStoredTask(gateway.test, 'resume-2');
    await task.begin();
    await task.end();
    const { status, text } = await read('resume-2/stream', { 'last-event-id': '1-4' });
    expect([status, text]).toEqual([204, '']);
  });

  test('sends only the types that are asked for', async () => {
    const task = createStoredTask(gateway.test, 'types-1');
    await task.begin();
    await task.end();
    expect(typesOf((await read('types-1/stream?types=task_started,task_completed')).events)).toBe(
      'task_started task_completed stream_end',
    );
    expect(typesOf((await read('types-1/stream?types=task_started&types=step_started')).events)).toBe(
      'task_started step_started stream_end',
    );
  });

  test.each([
    ['wire-1/stream?after=abc', {}, 400, 'after'],
    ['wire-1/stream', { 'last-event-id': '1' }, 400, 'Last-Event-ID'],
    ['wire-1/stream?types=nonsense', {}, 400, 'types'],
    ['wire-1/events?after=-1', {}, 400, 'after'],
  ])('refuses %s %j', async (path, headers, status, fault) => {
    const answer = await read(path, headers);
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.text)).toMatchObject({ type: 'InvalidRequest', faults: [{ path: fault }] });
  });

  test('is not there for a task that nobody knows', async () => {
    for (const path of ['nobody/stream', 'nobody/events']) expect((await read(path)).status).toBe(404);
  });

  test('ends for a task that Temporal ended before it could begin', async () => {
    gateway.temporal.executions.set('plain-1', { status: 'failed' });
    const { events, ids } = await read('plain-1/stream');
    expect(events).toMatchObject([{ type: 'stream_end', data: { status: 'failed' } }]);
    expect((await read('plain-1/stream', { 'last-event-id': ids.at(-1) ?? '' })).status).toBe(204);
  });
});

describe('a reader', () => {
  test('that leaves is forgotten, with its connection to Redis', async () => {
    await createStoredTask(gateway.test, 'leave-1').begin();
    await eventually(async () => expect(await blockedReaders()).toBe(0));
    const before = await readers();
    const socket = await openRaw('leave-1/stream');
    await eventually(async () => expect(await readers()).toBe(before + 1));
    await eventually(async () => expect(await blockedReaders()).toBe(1));
    socket.destroy();
    await eventually(async () => expect(await readers()).toBe(before));
    await eventually(async () => expect(await blockedReaders()).toBe(0));
  });
});

describe('stored events', () => {
  test('come in pages', async () => {
    const task = createStoredTask(gateway.test, 'stored-1');
    await task.begin();
    await task.startCall();
    await task.delta('text');
    await task.completeCall('text');
    await task.end();
    await task.persisted();
    const page = async (query: string) => (await fetch(`${url}/api/v1/tasks/stored-1/events${query}`)).json();
    const first = await page('?limit=4');
    expect(typesOf(first.events)).toBe('task_started step_started call_started call_completed');
    expect(first.next).toBe(5);
    const second = await page(`?after=${first.next}&limit=4`);
    expect(typesOf(second.events)).toBe('task_completed stream_end');
    expect(second).not.toHaveProperty('next');
  });
});

test('closing the gateway ends streams with a last comment', async () => {
  const own = await openTestGateway();
  const at = await own.listen();
  await createStoredTask(own.test, 'closing-1').begin();
  const response = await fetch(`${at}/api/v1/tasks/closing-1/stream`);
  const text = response.text();
  await eventually(async () => {
    const { values } = await own.parts.metrics.streamReaders.get();
    expect(values[0]?.value).toBe(1);
  });
  const waiting = fetch(`${at}/api/v1/tasks`, {
    method: 'POST',
    headers: { prefer: 'wait=60', 'content-type': 'application/json' },
    body: JSON.stringify({ userId: 'u', query: 'q' }),
  });
  await eventually(() => expect(own.temporal.started).toHaveLength(1));
  await own.app.close();
  expect(await text).toMatch(/: the gateway stops, come back\n\n$/);
  await waiting.catch(() => undefined /* cut or answered, but not left waiting */);
  await own[Symbol.asyncDispose]();
});
