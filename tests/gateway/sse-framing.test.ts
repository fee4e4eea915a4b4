// What the gateway frames, the client reads back: a hundred thousand generated events with everything that ends a line or breaks a
// character, in bytes cut at random places. WEIR_FRAMING_SEED repeats a run.

import { randomInt } from 'node:crypto';
import { createRequire } from 'node:module';
import { describe, expect, it } from 'vitest';
import { createEventStreamParser, type ServerSentEvent } from '../../src/client/event-stream.ts';
import { formatEvent } from '../../src/gateway/sse.ts';
import { EVENT_TYPES, formatCursor, type TaskEvent } from '../../src/task/event.ts';
import { createRandom, type Random } from '../model/random.ts';

const SEED = Number(process.env['WEIR_FRAMING_SEED'] ?? randomInt(2 ** 31));
const EVENTS = 100_000;
const PER_STREAM = 1_000;

const PIECES = [
  ...['\r', '\n', '\r\n', '\n\n', '\r\r', '\u0085', '\u2028', '\u2029', '\u000b', '\u000c'],
  ...['\u0000', '\ufeff', '\ud83c', '\udf0a', '\ud83c\udf0a', '\udfff\ud800', 'é', '漢', '👩‍👩‍👧', '\uffff'],
  ...[
    'data: x',
    '\ndata: y',
    '\nid: 9-9\n\n',
    ': a comment\n',
    'event: stream_end\n',
    'retry: 0\n',
    '"',
    '\\',
    '\\u0000',
  ],
  ...['', ' ', ':', 'plain text', 'x'.repeat(300)],
];

function text(random: Random): string {
  let made = '';
  for (let left = random.int(12); left > 0; left -= 1) made += random.pick(PIECES);
  return made;
}

function payload(random: Random, depth = 0): unknown {
  const kind = random.int(depth > 2 ? 4 : 7);
  if (kind === 4) return Array.from({ length: random.int(3) }, () => payload(random, depth + 1));
  if (kind >= 5)
    return Object.fromEntries(
      Array.from({ length: random.int(3) }, () => [text(random), payload(random, depth + 1)]),
    );
  return kind === 3 ? random.pick([null, true, 1.5, 2 ** 53, -7]) : text(random);
}

function event(random: Random, seq: number): TaskEvent {
  return {
    taskId: 't1',
    seq,
    epoch: 1 + random.int(9),
    type: random.pick(EVENT_TYPES),
    at: '2026-01-01T00:00:00.000Z',
    ...(random.chance(0.5) ? { message: text(random) } : {}),
    ...(random.chance(0.5) ? { callKey: text(random) } : {}),
    data: { text: text(random), more: payload(random) },
  };
}

/** A stream as it is written: its head, its events, and heartbeats between some; now and then with line ends that are as good as ours. */
function frame(random: Random, events: readonly TaskEvent[]): Buffer {
  const parts = events.map((one) => (random.chance(0.05) ? ': still here\n\n' : '') + formatEvent(one));
  const whole = `retry: 1000\n\n${parts.join('')}`;
  return Buffer.from(whole.replaceAll('\n', random.pick(['\n', '\n', '\r\n', '\r'])));
}

/** Pieces of a byte, of some, or of what a socket gives at once. */
function* cut(random: Random, bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random.int(random.pick([1, 3, 50, 2_000, 65_536]));
    yield bytes.subarray(at, at + length);
    at += length;
  }
}

/**
 * What does not come back as it went out. The text of the data is compared and not what JSON.parse makes of it: among so many names that of
 * V8 reads one with an escape as its raw beginning now and then (`length\n` as `length\`), which is no fault of the framing.
 */
function faults(events: readonly TaskEvent[], read: readonly ServerSentEvent[]): unknown[] {
  return events.flatMap((sent, index) => {
    const got = read[index];
    const isSame =
      got?.id === formatCursor(sent) && got.type === sent.type && got.data === JSON.stringify(sent);
    return isSame ? [] : [{ seed: SEED, sent, got }];
  });
}

describe('framing', () => {
  it('brings back every one of a hundred thousand generated events', { timeout: 120_000 }, () => {
    const random = createRandom(SEED);
    for (let stream = 0; stream < EVENTS / PER_STREAM; stream += 1) {
      const events = Array.from({ length: PER_STREAM }, (_, n) => event(random, stream * PER_STREAM + n));
      const parser = createEventStreamParser();
      const read: ServerSentEvent[] = [];
      for (const bytes of cut(random, frame(random, events))) read.push(...parser.push(bytes));
      expect(faults(events, read).slice(0, 1)).toEqual([]);
      expect(read.length, `seed ${SEED}`).toBe(PER_STREAM);
      expect(parser.retryMs).toBe(1_000);
    }
  });

  it('is read by a published parser as by ours', async () => {
    // It comes with the package `eventsource`, whose own it is.
    const required = createRequire(import.meta.resolve('eventsource')).resolve('eventsource-parser');
    const { createParser } = (await import(required)) as {
      createParser(callbacks: { onEvent(event: { id?: string; event?: string; data: string }): void }): {
        feed(text: string): void;
      };
    };
    const random = createRandom(SEED + 1);
    const events = Array.from({ length: PER_STREAM }, (_, n) => event(random, n));
    const read: ServerSentEvent[] = [];
    const parser = createParser({
      onEvent: ({ id = '', event: type = 'message', data }) => void read.push({ id, type, data }),
    });
    const decoder = new TextDecoder();
    for (const bytes of cut(random, frame(random, events)))
      parser.feed(decoder.decode(bytes, { stream: true }));
    expect(faults(events, read).slice(0, 1)).toEqual([]);
    expect(read.length, `seed ${SEED}`).toBe(PER_STREAM);
  });
});
