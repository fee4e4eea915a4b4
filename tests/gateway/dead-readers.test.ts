// Connections whose other end takes nothing any more, while nothing new comes that could fill a backlog.

import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { createStoredTask } from './events.ts';
import { openTestGateway } from './open-gateway.ts';

test('a connection that takes nothing of what was missed is cut, and one that takes its time is not', async () => {
  await using gateway = await openTestGateway({ settings: { heartbeatMs: 20, deadAfterMs: 400 } });
  const url = new URL(await gateway.listen());
  const task = createStoredTask(gateway.test, 'dead');
  await task.begin();
  await task.startCall();
  // The ring holds more than the system takes for a connection, and the task goes on by nothing.
  for (let piece = 0; piece < 500; piece += 1) await task.delta('x'.repeat(30_000));
  const open = () => {
    const reader = {
      socket: connect(Number(url.port), url.hostname),
      bytes: 0,
      isSipping: false,
      isClosed: false,
    };
    reader.socket.on('data', (piece) => {
      reader.bytes += piece.length;
      if (reader.isSipping) reader.socket.pause();
    });
    reader.socket.on('error', () => undefined /* the gateway cuts it */);
    reader.socket.on('close', () => {
      reader.isClosed = true;
    });
    reader.socket.write('GET /api/v1/tasks/dead/stream HTTP/1.1\r\nhost: x\r\n\r\n');
    return reader;
  };
  const closed = async () => {
    const metric = await gateway.parts.metrics.registry
      .getSingleMetric('weir_stream_readers_closed_total')
      ?.get();
    return metric?.values.map(({ labels, value }) => `${labels['reason']} ${value}`);
  };
  const dead = open();
  const slow = open();
  dead.socket.pause();
  slow.socket.pause();
  // A little at a time, for longer than a dead one lives.
  slow.isSipping = true;
  const sips = setInterval(() => slow.socket.resume(), 5);
  await eventually(async () => expect(await closed()).toEqual(['slow 0', 'dead 1', 'stopped 0']));
  clearInterval(sips);
  slow.isSipping = false;
  dead.socket.resume();
  slow.socket.resume();
  await eventually(() => expect(dead.isClosed).toBe(true));
  await eventually(() => expect(slow.bytes).toBeGreaterThan(500 * 30_000));
  expect(dead.bytes).toBeLessThan(500 * 30_000);
  expect(slow.isClosed).toBe(false);
  slow.socket.destroy();
});
