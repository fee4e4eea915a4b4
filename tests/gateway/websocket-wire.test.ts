// A task's WebSocket as bytes on a raw connection: frames, pings that nobody answers, a reader that does not read, pages of strangers.

import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { createStoredTask } from './events.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

const CLOSE = 0x8;
const PING = 0x9;
const TEXT = 0x1;

let gateway: TestGateway;
let quick: TestGateway;

beforeAll(async () => {
  gateway = await openTestGateway();
  quick = await openTestGateway({ settings: { heartbeatMs: 50 } });
});
afterAll(async () => {
  await gateway[Symbol.asyncDispose]();
  await quick[Symbol.asyncDispose]();
});

type Frame = { readonly kind: number; readonly payload: Buffer };

type Raw = {
  readonly socket: Socket;
  isClosed: boolean;
  /** The first line of the answer. */
  status(): string;
  frames(): readonly Frame[];
};

async function open(at: TestGateway, taskId: string, headers = ''): Promise<Raw> {
  const url = new URL(at.app.server.listening ? `http://127.0.0.1:${portOf(at)}` : await at.listen());
  const socket = connect(Number(url.port), url.hostname);
  const pieces: Buffer[] = [];
  const raw: Raw = {
    socket,
    isClosed: false,
    status: () => Buffer.concat(pieces).toString('latin1').split('\r\n')[0] ?? '',
    frames: () => framesIn(Buffer.concat(pieces)),
  };
  socket.on('data', (piece) => pieces.push(piece));
  socket.on('error', () => undefined /* the gateway cuts it */);
  socket.on('close', () => {
    raw.isClosed = true;
  });
  socket.write(
    `GET /api/v1/tasks/${taskId}/ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n${headers}` +
      `sec-websocket-version: 13\r\nsec-websocket-key: ${Buffer.alloc(16).toString('base64')}\r\n\r\n`,
  );
  await eventually(() => expect(raw.status()).toContain('HTTP/1.1 '));
  return raw;
}

function portOf({ app }: TestGateway): number {
  const address = app.server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** Whole frames of a server, as RFC 6455 has them: never masked, never in parts. */
function framesIn(received: Buffer): Frame[] {
  const frames: Frame[] = [];
  let rest = received.subarray(received.indexOf('\r\n\r\n') + 4);
  for (;;) {
    const [first = 0, second = 0] = rest;
    const [length, head] =
      second < 126
        ? [second, 2]
        : second === 126
          ? [rest.length < 4 ? 0 : rest.readUInt16BE(2), 4]
          : [rest.length < 10 ? 0 : Number(rest.readBigUInt64BE(2)), 10];
    if (rest.length < Math.max(2, head) || rest.length < head + length) return frames;
    frames.push({ kind: first & 0x0f, payload: rest.subarray(head, head + length) });
    rest = rest.subarray(head + length);
  }
}

async function closed(at: TestGateway, reason: string): Promise<number> {
  const metric = await at.parts.metrics.registry.getSingleMetric('weir_stream_readers_closed_total')?.get();
  return metric?.values.find(({ labels }) => labels['reason'] === reason)?.value ?? 0;
}

test('messages of any length are whole', async () => {
  const task = createStoredTask(gateway.test, 'lengths');
  await task.begin();
  await task.startCall();
  const texts = ['', 'x'.repeat(100), 'ü'.repeat(1_000), 'x'.repeat(70_000)];
  for (const text of texts) await task.delta(text);
  await task.end();
  const raw = await open(gateway, 'lengths');
  await eventually(() => expect(raw.frames().at(-1)?.kind).toBe(CLOSE));
  const messages = raw.frames().filter(({ kind }) => kind === TEXT);
  const deltas = messages
    .map(({ payload }) => JSON.parse(payload.toString()))
    .filter(({ type }) => type === 'call_delta');
  expect(deltas.map(({ data }) => data.text)).toEqual(texts);
  expect(raw.frames().at(-1)?.payload.readUInt16BE(0)).toBe(1000);
  raw.socket.destroy();
});

test('a client that answers no ping is let go', async () => {
  await createStoredTask(quick.test, 'silent').begin();
  const raw = await open(quick, 'silent');
  await eventually(() => expect(raw.isClosed).toBe(true));
  expect(raw.frames().filter(({ kind }) => kind === PING)).toHaveLength(1);
});

test('a reader that does not read is closed with 1013', async () => {
  const task = createStoredTask(gateway.test, 'slow');
  await task.begin();
  await task.startCall();
  const before = await closed(gateway, 'slow');
  const raw = await open(gateway, 'slow');
  await eventually(() => expect(raw.frames()).toHaveLength(3));
  raw.socket.pause();
  // More than the buffers of the system and a backlog together can hold.
  for (let piece = 0; piece < 100; piece += 1) await task.delta('x'.repeat(100_000));
  await eventually(async () => expect(await closed(gateway, 'slow')).toBe(before + 1));
  raw.socket.resume();
  await eventually(() => expect(raw.frames().at(-1)?.kind).toBe(CLOSE));
  expect(raw.frames().at(-1)?.payload.readUInt16BE(0)).toBe(1013);
  raw.socket.destroy();
});

test('a page of a stranger is refused where there are no keys, one of this machine is not', async () => {
  await createStoredTask(gateway.test, 'pages').begin();
  const from = async (origin: string) => {
    const raw = await open(gateway, 'pages', `origin: ${origin}\r\n`);
    raw.socket.destroy();
    return raw.status().split(' ')[1];
  };
  for (const origin of ['https://stranger.example', 'null', 'http://127.0.0.1.stranger.example'])
    expect([origin, await from(origin)]).toEqual([origin, '403']);
  for (const origin of ['http://localhost:3000', 'http://127.0.0.1:8080', 'http://[::1]:1'])
    expect([origin, await from(origin)]).toEqual([origin, '101']);
});
