// The parser of event streams against the HTML standard: what counts as a line, a field and an event, however the bytes are cut.

import { describe, expect, it } from 'vitest';
import { createEventStreamParser, type ServerSentEvent } from '../../src/client/event-stream.ts';

const bytesOf = (text: string) => new TextEncoder().encode(text);

/** Pushes the bytes in pieces of one length. */
function parse(bytes: Uint8Array, pieceLength = bytes.length): ServerSentEvent[] {
  const parser = createEventStreamParser();
  const events: ServerSentEvent[] = [];
  for (let at = 0; at < bytes.length; at += pieceLength)
    events.push(...parser.push(bytes.subarray(at, at + pieceLength)));
  return events;
}

const parseText = (text: string) => parse(bytesOf(text));

describe('event stream parser', () => {
  it.each([
    ['LF', '\n'],
    ['CR', '\r'],
    ['CRLF', '\r\n'],
  ])('ends lines at %s', (_, end) => {
    const text = ['id: 1-2', 'event: call_delta', 'data: {"a":1}', '', 'data: next', '', ''].join(end);
    expect(parseText(text)).toEqual([
      { id: '1-2', type: 'call_delta', data: '{"a":1}' },
      { id: '1-2', type: 'message', data: 'next' },
    ]);
  });

  it('answers the same however the bytes are cut', () => {
    const text =
      '\ufeffid: 7\r\nevent: a\r\ndata: é 漢 🌊\r\ndata: two\r\n\r\n:beat\r\rdata:x\n\rdata: y\r\n\n';
    const whole = parseText(text);
    expect(whole).toEqual([
      { id: '7', type: 'a', data: 'é 漢 🌊\ntwo' },
      { id: '7', type: 'message', data: 'x' },
      { id: '7', type: 'message', data: 'y' },
    ]);
    for (let length = 1; length < 12; length += 1) expect(parse(bytesOf(text), length)).toEqual(whole);
  });

  it('takes a byte order mark away at the beginning only', () => {
    expect(parseText('\ufeffdata: a\n\n\ufeffdata: b\n\n')).toEqual([{ id: '', type: 'message', data: 'a' }]);
  });

  it('joins the data lines of one event, empty ones among them', () => {
    expect(parseText('data: a\ndata\ndata:\ndata: b\n\n')).toEqual([
      { id: '', type: 'message', data: 'a\n\n\nb' },
    ]);
  });

  it('removes one space behind the colon and no more', () => {
    expect(parseText('data:  two spaces\n\ndata:none\n\n').map(({ data }) => data)).toEqual([
      ' two spaces',
      'none',
    ]);
  });

  it('passes over comments, unknown fields and events without data', () => {
    expect(parseText(': heartbeat\n\nretry: 10\nfoo: bar\n\nevent: empty\n\ndata: real\n\n')).toEqual([
      { id: '', type: 'message', data: 'real' },
    ]);
  });

  it('keeps the last id for events without one, and an id without data for the next event', () => {
    expect(parseText('id: 1\ndata: a\n\nid: 2\n\ndata: b\n\nid\ndata: c\n\n').map(({ id }) => id)).toEqual([
      '1',
      '2',
      '',
    ]);
  });

  it('ignores an id with NUL', () => {
    expect(parseText('id: 1\ndata: a\n\nid: 2\u0000\ndata: b\n\n').map(({ id }) => id)).toEqual(['1', '1']);
  });

  it('does not answer an event whose blank line never comes', () => {
    expect(parseText('data: whole\n\nid: 9\ndata: cut off\n')).toEqual([
      { id: '', type: 'message', data: 'whole' },
    ]);
  });

  it('does not carry the type of one event over to the next', () => {
    expect(parseText('event: a\ndata: 1\n\ndata: 2\n\n').map(({ type }) => type)).toEqual(['a', 'message']);
  });

  it('keeps the last retry that is a number of milliseconds', () => {
    const parser = createEventStreamParser();
    expect(parser.retryMs).toBeUndefined();
    parser.push(bytesOf('retry: 1000\n\nretry: soon\n\nretry: -1\n\nretry: 1e9\n\nretry:\n\n'));
    expect(parser.retryMs).toBe(1_000);
    parser.push(bytesOf('retry:0\n'));
    expect(parser.retryMs).toBe(0);
  });

  it.each([
    ['one line without an end', 'data: ', 'x'],
    ['data lines without a blank one', '', 'data: x\n'],
  ])('holds no more than its bound of %s', (_, begin, piece) => {
    const parser = createEventStreamParser(1_000);
    parser.push(bytesOf(begin));
    const push = (times: number) => {
      for (let n = 0; n < times; n += 1) parser.push(bytesOf(piece));
    };
    push(400);
    expect(() => push(700)).toThrow(RangeError);
  });

  it('counts neither events that are complete nor comments towards its bound', () => {
    const parser = createEventStreamParser(1_000);
    for (let n = 0; n < 1_000; n += 1) {
      expect(parser.push(bytesOf(`data: ${'x'.repeat(500)}\n\n`))).toHaveLength(1);
      expect(parser.push(bytesOf(`: ${'x'.repeat(500)}\n`))).toHaveLength(0);
    }
  });

  // Were it quadratic, the test would run into its time limit.
  it('reads a line of two megabytes in small pieces', () => {
    const long = 'x'.repeat(2_000_000);
    expect(parse(bytesOf(`data: ${long}\n\n`), 256)[0]?.data.length).toBe(long.length);
  });
});
