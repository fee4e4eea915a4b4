// Readers that take less than they are sent: they are closed and come back, and nobody else notices.

import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TaskEvent } from '../../src/task/event.ts';
import { eventually } from '../support/eventually.ts';
import { createStoredTask, textOf, typesOf } from './events.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

const SLOW = 50;

let gateway: TestGateway;
let url: string;

beforeAll(async () => {
  gateway = await openTestGateway();
  url = await gateway.listen();
});
afterAll(() => gateway[Symbol.asyncDispose]());

type SlowReader = { readonly socket: Socket; received: string; isClosed: boolean };

/** A reader over a raw socket, which reads until it is paused. */
function openReader(taskId: string): SlowReader {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  const reader: SlowReader = { socket, received: '', isClosed: false };
  socket.on('data', (chunk) => {
    reader.received += chunk.toString();
  });
  socket.on('error', () => undefined /* the gateway cuts it */);
  socket.on('close', () => {
    reader.isClosed = true;
  });
  socket.write(`GET /api/v1/tasks/${taskId}/stream HTTP/1.1\r\nhost: x\r\n\r\n`);
  return reader;
}

async function read(taskId: string, lastEventId?: string): Promise<readonly TaskEvent[]> {
  const headers = lastEventId === undefined ? {} : { 'last-event-id': lastEventId };
  const response = await fetch(`${url}/api/v1/tasks/${taskId}/stream`, {
    headers,
    signal: AbortSignal.timeout(25_000),
  });
  return eventsIn(await response.text());
}

function eventsIn(text: string): TaskEvent[] {
  return [...text.matchAll(/^data: (.+)\n\n/gm)].map(([, data]) => JSON.parse(data ?? '') as TaskEvent);
}

async function closedAsSlow(): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^weir_stream_readers_closed_total\{reason="slow"\} (\d+)$/m.exec(text)?.[1] ?? 0);
}

describe('readers that never read', () => {
  test('are closed at their backlog, and the others have everything', async () => {
    const task = createStoredTask(gateway.test, 'slow-1');
    await task.begin();
    await task.startCall();
    const slow = Array.from({ length: SLOW }, () => openReader('slow-1'));
    for (const reader of slow) await eventually(() => expect(reader.received).toContain('call_started'));
    for (const { socket } of slow) socket.pause();
    const fast = Array.from({ length: 5 }, () => read('slow-1'));
    let text = '';
    // More than the buffers of the system and a backlog together can hold.
    for (let piece = 0; piece < 150; piece += 1) {
      const part = `${piece}:${'x'.repeat(100_000)} `;
      text += part;
      await task.delta(part);
    }
    await eventually(async () => expect(await closedAsSlow()).toBe(SLOW));
    await task.completeCall(text);
    await task.end();
    for (const events of await Promise.all(fast)) {
      expect(textOf(events) === text).toBe(true);
      expect(typesOf(events.slice(-3))).toBe('call_completed task_completed stream_end');
    }
    for (const { socket } of slow) socket.resume();
    await eventually(() => expect(slow.every(({ isClosed }) => isClosed)).toBe(true));
    expect(slow.some(({ received }) => received.includes('event: stream_end'))).toBe(false);
  }, 60_000);

  test('resume by the id of the last event that they have, with the whole text', async () => {
    const task = createStoredTask(gateway.test, 'slow-2');
    await task.begin();
    await task.startCall();
    const before = await closedAsSlow();
    const slow = openReader('slow-2');
    await eventually(() => expect(slow.received).toContain('call_started'));
    slow.socket.pause();
    let text = '';
    for (let piece = 0; piece < 150; piece += 1) {
      const part = `${piece}:${'y'.repeat(100_000)} `;
      text += part;
      await task.delta(part);
    }
    await eventually(async () => expect(await closedAsSlow()).toBe(before + 1));
    await task.completeCall(text);
    await task.end();
    slow.socket.resume();
    await eventually(() => expect(slow.isClosed).toBe(true));
    const ids = [...slow.received.matchAll(/^id: (.+)\n(?:.+\n)+\n/gm)].map(([, id]) => id ?? '');
    const rest = await read('slow-2', ids.at(-1));
    const milestones = [...eventsIn(withoutChunks(slow.received)), ...rest].filter(
      ({ type }) => type !== 'call_delta' && type !== 'call_snapshot',
    );
    expect(typesOf(milestones)).toBe(
      'task_started step_started call_started call_completed task_completed stream_end',
    );
    expect(textOf(rest).endsWith(text.slice(-1_000))).toBe(true);
  }, 60_000);
});

/** The body of a chunked answer whose text is ASCII, as far as it came. */
function withoutChunks(received: string): string {
  let body = '';
  let rest = received.slice(received.indexOf('\r\n\r\n') + 4);
  for (;;) {
    const end = rest.indexOf('\r\n');
    const size = Number.parseInt(rest.slice(0, end), 16);
    if (!(size > 0)) return body;
    body += rest.slice(end + 2, end + 2 + size);
    rest = rest.slice(end + 2 + size + 2);
  }
}
