// Server-sent events: one task's stream on one HTTP connection. What is written was made once for all readers of the task. A reader that
// does not take it is closed and comes back by id; it holds up nobody.

import type { ServerResponse } from 'node:http';
import { finished } from 'node:stream/promises';
import type { FastifyReply } from 'fastify';
import { formatCursor, type TaskEvent } from '../task/event.ts';
import { deliver, type Outlet, type StreamReader } from './deliver.ts';
import { type EventBatch, jsonOf } from './event-batch.ts';
import type { OpenStreams } from './open-streams.ts';

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  // Proxies that buffer would hold the text back.
  'x-accel-buffering': 'no',
} as const;

/** How soon a browser comes back after a lost connection, in milliseconds. */
const RETRY_MS = 1_000;

/** `id`, `event` and `data` of one event; JSON has no line breaks of its own. */
export function formatEvent(event: TaskEvent): string {
  return `id: ${formatCursor(event)}\nevent: ${event.type}\ndata: ${jsonOf(event)}\n\n`;
}

export type SseOptions = {
  readonly events: (reader: StreamReader) => AsyncIterable<EventBatch>;
  readonly streams: OpenStreams;
  readonly headers?: Readonly<Record<string, string>>;
};

/** Takes over the connection. Resolves when the stream has ended, whoever ended it. */
export async function sendEvents(reply: FastifyReply, options: SseOptions): Promise<void> {
  const { raw } = reply;
  const { streams, events, headers } = options;
  reply.hijack();
  streams.adopt(raw);
  const gone = new AbortController();
  raw.once('close', () => gone.abort());
  // It may have left while it was asked whether there is such a task: then nothing is emitted any more.
  if (raw.destroyed) gone.abort();
  raw.writeHead(200, { ...HEADERS, ...headers }).write(`retry: ${RETRY_MS}\n\n`);
  const outlet = toOutlet(raw);
  await streams.run(outlet, async () => {
    const end = await deliver(outlet, { gone: gone.signal, streams, events });
    if (end === 'slow') raw.destroy();
    if (end === 'stopped' && raw.writable) raw.write(': the gateway stops, come back\n\n');
    raw.end();
    // Nobody is left to be told of a connection that broke.
    await finished(raw).catch(() => undefined);
  });
}

/**
 * Writes past the response, straight to its socket: the response would frame each piece again, for every reader. It has sent its head by
 * then and keeps the end; a response whose turn on the connection has not come yet (pipelining) has no socket and frames for itself.
 */
function toOutlet(raw: ServerResponse): Outlet {
  const encoding = raw.chunkedEncoding ? encodeChunk : encodePlain;
  return {
    write: (batch) => {
      if (raw.socket === null) return raw.write(batch.encode(encodePlain));
      return raw.socket.write(batch.encode(encoding));
    },
    isFull: () => (raw.socket ?? raw).writableNeedDrain,
    emitter: () => raw.socket ?? raw,
    unsent: () => raw.socket?.writableLength ?? raw.writableLength,
    sent: () => (raw.socket === null ? 0 : raw.socket.bytesWritten - raw.socket.writableLength),
    beat: () => {
      // A comment into a full buffer would only lengthen it.
      if (!raw.writableEnded && !raw.writableNeedDrain) raw.write(': still here\n\n');
    },
    cut: () => raw.destroy(),
  };
}

/** The body as it is: for HTTP/1.0, whose bodies end with the connection. */
function encodePlain(events: readonly TaskEvent[]): Buffer {
  return Buffer.from(events.map(formatEvent).join(''));
}

/** As one chunk of HTTP/1.1's chunked encoding. */
function encodeChunk(events: readonly TaskEvent[]): Buffer {
  const text = events.map(formatEvent).join('');
  return Buffer.from(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`);
}
