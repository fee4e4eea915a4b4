// A reader of server-sent events whose connection is cut again and again, at any byte: it goes on by the id of the last event that came
// whole, and keeps what a client would have in the end.

import { connect, type Socket } from 'node:net';
import { createEventStreamParser } from '../../src/client/event-stream.ts';
import type { TaskEvent } from '../../src/task/event.ts';

/** What a reader has in its hands. */
export type Read = {
  /** Milestones in the order in which they came, as `<type> <seq>`. */
  readonly milestones: string[];
  /** By call: deltas add, a snapshot replaces. */
  readonly texts: Map<string, string>;
  /** How many events were a reset. */
  resets: number;
  /** Connections that were cut. */
  drops: number;
  isOver: boolean;
};

export type DroppedReaderOptions = {
  readonly port: number;
  /** Of the stream, `?after=` not among it. */
  readonly path: string;
  readonly drops: number;
  /** How long a connection may live before it is cut, in milliseconds, at most. */
  readonly livesMs: number;
};

/** Resolves after `stream_end`. @throws where the gateway refuses it */
export async function readDropped(options: DroppedReaderOptions, read = emptyRead()): Promise<Read> {
  for (let lastId = ''; !read.isOver; ) lastId = await connectOnce(options, read, lastId);
  return read;
}

function emptyRead(): Read {
  return { milestones: [], texts: new Map(), resets: 0, drops: 0, isOver: false };
}

/** Answers the id of the last event that came whole. */
function connectOnce({ port, path, drops, livesMs }: DroppedReaderOptions, read: Read, lastId: string) {
  return new Promise<string>((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    const body = createBody();
    const parser = createEventStreamParser();
    let id = lastId;
    const cut = () => {
      if (read.isOver) return;
      read.drops += 1;
      socket.destroy();
    };
    const timer = read.drops < drops ? setTimeout(cut, Math.random() * livesMs) : undefined;
    socket.on('data', (bytes) => {
      try {
        for (const event of parser.push(body.push(bytes))) {
          id = event.id;
          take(read, JSON.parse(event.data) as TaskEvent); // the gateway's own envelope
        }
      } catch (error) {
        reject(error);
      }
      if (read.isOver) socket.destroy();
    });
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(id);
    });
    socket.on('error', () => undefined /* 'close' follows */);
    send(socket, path, lastId);
  });
}

function send(socket: Socket, path: string, lastId: string): void {
  const resume = lastId === '' ? '' : `last-event-id: ${lastId}\r\n`;
  socket.write(`GET ${path} HTTP/1.1\r\nhost: reader\r\n${resume}\r\n`);
}

function take(read: Read, event: TaskEvent): void {
  const { type, callKey = '' } = event;
  const text = String(event.data?.['text'] ?? '');
  if (type === 'reset') {
    read.resets += 1;
    read.milestones.length = 0;
    read.texts.clear();
  } else if (type === 'call_delta') read.texts.set(callKey, (read.texts.get(callKey) ?? '') + text);
  else if (type === 'call_snapshot') read.texts.set(callKey, text);
  else read.milestones.push(`${type} ${event.seq}`);
  read.isOver = type === 'stream_end';
}

/** The body of a chunked answer, as far as it has come. */
function createBody() {
  let rest: Buffer = Buffer.alloc(0);
  let isBody = false;
  return {
    push(bytes: Buffer): Buffer {
      rest = Buffer.concat([rest, bytes]);
      if (!isBody) {
        const end = rest.indexOf('\r\n\r\n');
        if (end < 0) return Buffer.alloc(0);
        const head = rest.toString('latin1', 0, end);
        if (!head.startsWith('HTTP/1.1 200 '))
          throw new Error(`the gateway answers ${head.split('\r\n')[0]}`);
        rest = rest.subarray(end + 4);
        isBody = true;
      }
      const parts: Buffer[] = [];
      for (;;) {
        const end = rest.indexOf('\r\n');
        const size = end < 0 ? 0 : Number.parseInt(rest.toString('latin1', 0, end), 16);
        if (size === 0 || rest.length < end + 4 + size) return Buffer.concat(parts);
        parts.push(rest.subarray(end + 2, end + 2 + size));
        rest = rest.subarray(end + 4 + size);
      }
    },
  };
}
