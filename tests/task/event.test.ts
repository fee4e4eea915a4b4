import { describe, expect, it } from 'vitest';
import { EVENT_TYPES, formatCursor, isMilestone, parseCursor } from '../../src/task/event.ts';

describe('cursors', () => {
  it.each([
    { epoch: 0, seq: 0 },
    { epoch: 1, seq: 1 },
    { epoch: 9_999_999_999, seq: 999_999_999_999_999 },
  ])('come back as they went out: $epoch-$seq', (cursor) => {
    expect(parseCursor(formatCursor(cursor))).toEqual(cursor);
  });

  it.each([
    '',
    '-',
    '1',
    '1-',
    '-1',
    '1--1',
    '-1-1',
    '1-1-1',
    '1-1 ',
    ' 1-1',
    '1-1\n',
    '1.5-1',
    '1-1e3',
    '0x1-1',
    'a-b',
    '٣-1',
    '12345678901-1',
    '1-1234567890123456',
  ])('are nothing where the text is %j', (text) => {
    expect(parseCursor(text)).toBeUndefined();
  });
});

describe('isMilestone', () => {
  it('is true of all but what lives in Redis alone or is made for one reader', () => {
    expect(EVENT_TYPES.filter((type) => !isMilestone(type))).toEqual([
      'call_delta',
      'call_snapshot',
      'reset',
    ]);
  });
});
