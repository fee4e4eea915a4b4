// The readers of a fan-out (fan-out.ts), in a process of their own: plain sockets that count bytes into one shared buffer. A few of them
// look for the times at which events were published; some never read at all.

import { connect, type Socket } from 'node:net';

export type ReadersOrder =
  | { readonly kind: 'open'; readonly path: string; readonly readers: number; readonly samples: number }
  /** Connections that never read. */
  | { readonly kind: 'stall'; readonly path: string; readonly readers: number }
  /** What has come since the last `report` or `open`. */
  | { readonly kind: 'report' }
  /** How far all have got since then. */
  | { readonly kind: 'progress' }
  | { readonly kind: 'close' };

export type ReadersProgress = {
  /** That a sampled reader got, on average. */
  readonly events: number;
  /** Over all readers. */
  readonly bytes: number;
};

export type ReadersReport = {
  readonly open: number;
  /** Times that something came, over all readers. */
  readonly pieces: number;
  /** Bytes of the reader that got the fewest, and of the one that got the most. */
  readonly leastBytes: number;
  readonly mostBytes: number;
  /** Events that a sampled reader got, on average. */
  readonly events: number;
  /** From publishing to reading, of each event that a sampled reader got, in milliseconds. */
  readonly latencies: readonly number[];
  readonly cpuMicros: number;
};

type Reader = { readonly socket: Socket; bytes: number; pieces: number; isOpen: boolean };

const port = Number(process.argv[2]);
/** Connections that are being opened at one time. */
const OPENING = 50;
/** Bytes read at a time. */
const BUFFER_BYTES = 65_536;
/** What the publisher writes before the time, in milliseconds since 1970. */
const MARK = '@';

let readers: Reader[] = [];
const stalled: Socket[] = [];
let sampled = { readers: 0, events: 0, latencies: [] as number[] };

process.on('message', (order: ReadersOrder) => void obey(order));
process.on('disconnect', () => process.exit(0));
process.send?.('ready');

async function obey(order: ReadersOrder): Promise<void> {
  if (order.kind === 'open') {
    for (let at = 0; at < order.readers; at += OPENING)
      await Promise.all(
        Array.from({ length: Math.min(OPENING, order.readers - at) }, (_, index) =>
          openReader(order.path, at + index < order.samples),
        ),
      );
    sampled = { readers: order.samples, events: 0, latencies: [] };
    process.send?.('open');
  } else if (order.kind === 'stall') {
    for (let index = 0; index < order.readers; index += 1) await openStalled(order.path);
    process.send?.('open');
  } else if (order.kind === 'report') process.send?.(report());
  else if (order.kind === 'progress') process.send?.(progress());
  else {
    for (const { socket } of readers) socket.destroy();
    for (const socket of stalled) socket.destroy();
    readers = [];
    stalled.length = 0;
    process.send?.('closed');
  }
}

function progress(): ReadersProgress {
  return {
    events: sampled.events / Math.max(1, sampled.readers),
    bytes: readers.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

function report(): ReadersReport {
  const bytes = readers.map((reader) => reader.bytes);
  const pieces = readers.reduce((sum, reader) => sum + reader.pieces, 0);
  for (const reader of readers) {
    reader.bytes = 0;
    reader.pieces = 0;
  }
  const { user, system } = process.cpuUsage();
  const { events, latencies } = sampled;
  sampled = { readers: sampled.readers, events: 0, latencies: [] };
  return {
    open: readers.filter(({ isOpen }) => isOpen).length,
    leastBytes: Math.min(...bytes),
    mostBytes: Math.max(...bytes),
    pieces,
    events: events / Math.max(1, sampled.readers),
    latencies,
    cpuMicros: user + system,
  };
}

const shared = Buffer.allocUnsafe(BUFFER_BYTES);

/** Resolves when the head of the answer has come. */
function openReader(path: string, isSampled: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const callback = (length: number) => {
      if (reader.bytes === 0) resolve();
      reader.bytes += length;
      reader.pieces += 1;
      if (isSampled) measure(length);
      return true;
    };
    // One buffer for all: what is read is looked at before the next read.
    const socket = connect({ host: '127.0.0.1', port, onread: { buffer: shared, callback } });
    const reader: Reader = { socket, bytes: 0, pieces: 0, isOpen: true };
    socket.on('close', () => {
      reader.isOpen = false;
    });
    socket.on('error', reject);
    socket.write(`GET ${path} HTTP/1.1\r\nhost: bench\r\n\r\n`);
    readers.push(reader);
  });
}

function measure(length: number): void {
  const now = performance.timeOrigin + performance.now();
  const text = shared.toString('latin1', 0, length);
  for (let at = text.indexOf(MARK); at >= 0; at = text.indexOf(MARK, at + 1)) {
    sampled.events += 1;
    const time = Number(text.slice(at + 1, at + 18));
    // A time that is cut by the end of a piece is left out.
    if (at + 18 <= length) sampled.latencies.push(now - time);
  }
}

function openStalled(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.pause();
    socket.on('error', reject);
    stalled.push(socket);
    socket.write(`GET ${path} HTTP/1.1\r\nhost: bench\r\n\r\n`, () => resolve());
  });
}
