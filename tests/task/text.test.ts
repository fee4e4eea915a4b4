import { describe, expect, it } from 'vitest';
import { cleanText, isCleanText, toSummary, utf8Bytes } from '../../src/task/text.ts';

describe('utf8Bytes', () => {
  it.each<[string, string]>([
    ['nothing', ''],
    ['ASCII', 'plain text\n\t\u007f'],
    ['two bytes', 'äöü߿\u0080'],
    ['three bytes', '日本語ࠀ￿'],
    ['four bytes', '😀👩‍👩‍👧‍👦𝒳'],
    ['a lone high surrogate at the end', 'a\ud83d'],
    ['a lone high surrogate before a letter', '\ud83da'],
    ['a lone low surrogate', '\ude00a'],
    ['two high surrogates before a low one', '\ud83d\ud83d\ude00'],
    ['NUL', 'a\u0000b'],
  ])('counts %s as Node does', (_title, text) => {
    expect(utf8Bytes(text)).toBe(Buffer.byteLength(text));
  });
});

describe('cleanText', () => {
  it.each<[string, string, string]>([
    ['clean text', 'a\tb\nc 😀', 'a\tb\nc 😀'],
    ['NULs', '\u0000a\u0000\u0000b\u0000', 'ab'],
    ['lone surrogates', '\ud800a\udc00', '�a�'],
    ['a pair that a NUL parted', '\ud83d\u0000\ude00', '😀'],
  ])('mends %s', (_title, text, clean) => {
    expect(cleanText(text)).toBe(clean);
    expect(isCleanText(clean)).toBe(true);
    expect(isCleanText(text)).toBe(text === clean);
  });
});

describe('toSummary', () => {
  it('makes one line of it', () => {
    expect(toSummary('  why\n\n is \t the\u0000 sky\r\nblue ')).toBe('why is the sky blue');
    expect(toSummary(' \n ')).toBe('');
  });

  it('leaves 120 characters whole and cuts the next one at a character', () => {
    expect(toSummary('x'.repeat(120))).toBe('x'.repeat(120));
    expect(toSummary('x'.repeat(121))).toBe(`${'x'.repeat(119)}…`);
    expect(Array.from(toSummary(`${'ä'.repeat(118)}😀😀😀`))).toHaveLength(120);
  });

  it.each<[string, string]>([
    ['emoji', '😀'.repeat(200)],
    ['quotation marks, which JSON doubles', '"'.repeat(200)],
    ['control characters, which JSON makes six of', '\u0001'.repeat(200)],
    ['lone surrogates', '\ud800'.repeat(200)],
    ['three-byte characters', '語'.repeat(200)],
    ['a mebibyte', 'x'.repeat(1_048_576)],
  ])('stays below 350 bytes of JSON with %s', (_title, text) => {
    const summary = toSummary(text);
    expect(Buffer.byteLength(JSON.stringify(summary))).toBeLessThanOrEqual(350);
    expect(summary.endsWith('…')).toBe(true);
    expect(isCleanText(summary)).toBe(true);
    expect(summary.length).toBeGreaterThan(40);
  });
});
