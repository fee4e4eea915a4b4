import { describe, expect, it } from 'vitest';
import { hasUncleanText, isTooDeep, MAX_JSON_DEPTH } from '../../src/task/json.ts';

const lists = (levels: number): unknown => JSON.parse('['.repeat(levels) + ']'.repeat(levels));
const objects = (levels: number): unknown => JSON.parse(`${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`);

describe('isTooDeep', () => {
  it.each<[string, unknown, boolean]>([
    ['a text', 'x', false],
    ['nothing', null, false],
    ['lists as deep as it may be', lists(MAX_JSON_DEPTH + 1), false],
    ['lists one level deeper', lists(MAX_JSON_DEPTH + 2), true],
    ['objects as deep as it may be', objects(MAX_JSON_DEPTH), false],
    ['objects one level deeper', objects(MAX_JSON_DEPTH + 1), true],
    ['a hundred thousand lists', lists(100_000), true],
    ['a hundred thousand objects', objects(100_000), true],
    ['a depth behind many shallow entries', [...Array.from({ length: 10_000 }, () => [1]), lists(80)], true],
    ['many entries side by side', Array.from({ length: 100_000 }, (_, n) => n), false],
  ])('judges %s', (_title, value, expected) => {
    expect(isTooDeep(value)).toBe(expected);
  });
});

describe('hasUncleanText', () => {
  it.each<[string, unknown, boolean]>([
    ['numbers, booleans and null', [1, true, null], false],
    ['a clean text', { a: ['😀'] }, false],
    ['a NUL deep inside', { a: [{ b: 'x\u0000' }] }, true],
    ['a lone surrogate as the whole value', '\udc00', true],
    ['a lone surrogate in a key', { a: { '\ud800': 1 } }, true],
    ['a NUL in a key', [{ '\u0000': 1 }], true],
    ['a bad text under a hundred thousand lists', [lists(100_000), '\u0000'], true],
  ])('looks into %s', (_title, value, expected) => {
    expect(hasUncleanText(value)).toBe(expected);
  });
});
