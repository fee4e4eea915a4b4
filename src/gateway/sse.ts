// Server-sent events: one task's stream on one connection. A reader that takes its time is waited for; it holds up nobody, since each
// follows the task by itself.

import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { finished } from 'node:stream/promises';
import type { FastifyReply } from 'fastify';
import { formatCursor, type TaskEvent } from '../task/event.ts';

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  connection: 'keep-alive',
  // Proxies that buffer would hold the text back.
  'x-accel-buffering': 'no',
} as const;

/** How soon a browser comes back after a lost connection, in milliseconds. */
const RETRY_MS = 1_000;

/** `id`, `event` and `data` of one event; JSON has no line breaks of its own. */
export function formatEvent(event: TaskEvent): string {
  return `id: ${formatCursor(event)}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

export type SseOptions = {
  /** Makes the events; the signal fires when nobody reads them any more. */
  readonly events: (signal: AbortSignal) => AsyncIterable<TaskEvent>;
  readonly heartbeatMs: number;
  /** Fires when the gateway stops. */
  readonly closing: AbortSignal;
};

/** Takes over the connection. Resolves when the stream has ended, whoever ended it. */
export async function sendEvents(reply: FastifyReply, options: SseOptions): Promise<void> {
  const { raw } = reply;
  reply.hijack();
  const gone = new AbortController();
  const signal = AbortSignal.any([gone.signal, options.closing]);
  raw.once('close', () => gone.abort());
  raw.writeHead(200, HEADERS).write(`retry: ${RETRY_MS}\n\n`);
  // A comment into a full buffer would only lengthen it.
  const heartbeat = setInterval(
    () => raw.writableNeedDrain || raw.write(': still here\n\n'),
    options.heartbeatMs,
  );
  try {
    for await (const event of options.events(signal)) await write(raw, formatEvent(event), signal);
    if (options.closing.aborted && raw.writable) raw.write(': the gateway stops, come back\n\n');
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    clearInterval(heartbeat);
    raw.end();
    // Nobody is left to be told of a connection that broke.
    await finished(raw).catch(() => undefined);
  }
}

async function write(raw: ServerResponse, chunk: string, signal: AbortSignal): Promise<void> {
  if (!raw.write(chunk)) await once(raw, 'drain', { signal });
}
