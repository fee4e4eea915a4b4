// Clients that leave where nobody expects it: while the gateway still asks whether there is such a task, or with a full connection.

import { connect, type Socket } from 'node:net';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { createStoredTask } from './events.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

const UPGRADE = [
  ...['connection: Upgrade', 'upgrade: websocket', 'sec-websocket-version: 13'],
  `sec-websocket-key: ${Buffer.alloc(16).toString('base64')}`,
];

/** How many readers there were, one after the other. */
function watchReaders({ parts }: TestGateway): readonly number[] {
  const seen: number[] = [];
  const { streamReaders } = parts.metrics;
  const set = streamReaders.set.bind(streamReaders);
  Object.assign(streamReaders, {
    set: (count: number) => {
      seen.push(count);
      set(count);
    },
  });
  return seen;
}

/** Sends a request, and reads nothing. */
function request(url: string, line: string, headers: readonly string[], body = '') {
  const { port, hostname } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => undefined /* the test breaks it */);
  socket.pause();
  socket.write([`${line} HTTP/1.1`, 'host: x', ...headers, '', body].join('\r\n'));
  return socket;
}

/** Until it is let go, nobody learns whether there is a task, and none is started. */
function hold({ test: { postgres }, temporal }: TestGateway) {
  const asked = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  const held =
    <Given extends unknown[], Answer>(ask: (...given: Given) => Promise<Answer>) =>
    async (...given: Given): Promise<Answer> => {
      asked.resolve();
      await go.promise;
      return ask(...given);
    };
  Object.assign(postgres, { query: held(postgres.query) });
  Object.assign(temporal, { start: held(temporal.start) });
  return { asked: asked.promise, letGo: go.resolve };
}

const BODY = JSON.stringify({ userId: 'ada', query: 'why' });
const JSON_BODY = ['content-type: application/json', `content-length: ${BODY.length}`];

test.each([
  ['a stream', 'GET /api/v1/tasks/left/stream', [], ''],
  ['a stream that it resumes', 'GET /api/v1/tasks/left/stream', ['last-event-id: 1-1'], ''],
  ['a task and its stream', 'POST /api/v1/tasks/stream', JSON_BODY, BODY],
])(
  'a client that asks for %s and leaves before the answer leaves nothing behind',
  async (_, line, headers, body) => {
    // A persister would ask Postgres too.
    await using gateway = await openTestGateway({ stores: { persists: false } });
    const url = await gateway.listen();
    await createStoredTask(gateway.test, 'left').begin();
    const readers = watchReaders(gateway);
    const { asked, letGo } = hold(gateway);
    const socket = request(url, line, headers, body);
    await asked;
    socket.destroy();
    const connections = () => promisify(gateway.app.server.getConnections.bind(gateway.app.server))();
    await eventually(async () => expect(await connections()).toBe(0));
    letGo();
    await eventually(() => expect(readers).toEqual([1, 0]));
  },
);

test('a WebSocket that breaks while it is full is no fault of the gateway', async () => {
  await using gateway = await openTestGateway();
  const url = await gateway.listen();
  const faults: unknown[] = [];
  Object.assign(gateway.parts.log, { error: (...fault: unknown[]) => faults.push(fault) });
  const task = createStoredTask(gateway.test, 'full');
  await task.begin();
  await task.startCall();
  for (let piece = 0; piece < 300; piece += 1) await task.delta('x'.repeat(30_000));
  const readers = watchReaders(gateway);
  const isFull = Promise.withResolvers<void>();
  gateway.app.server.on('connection', (connection: Socket) => {
    const write = connection.write.bind(connection) as (...given: unknown[]) => boolean;
    Object.assign(connection, {
      write: (...given: unknown[]) => {
        const hasRoom = write(...given);
        if (!hasRoom && connection.writableLength > 100_000) isFull.resolve();
        return hasRoom;
      },
    });
  });
  const socket = request(url, 'GET /api/v1/tasks/full/ws', UPGRADE);
  await isFull.promise;
  socket.resetAndDestroy();
  await eventually(() => expect(readers).toEqual([1, 0]));
  expect(faults).toEqual([]);
});
