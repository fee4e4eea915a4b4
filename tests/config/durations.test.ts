import { describe, expect, it } from 'vitest';
import { formatDuration, parseDuration } from '../../src/config/durations.ts';

describe('parseDuration', () => {
  it.each([
    ['0ms', 0],
    ['250ms', 250],
    ['5s', 5_000],
    ['1.1s', 1_100],
    ['1.5m', 90_000],
    ['0.001s', 1],
    ['0.5ms', undefined],
    ['0.0005s', undefined],
    ['24h', 86_400_000],
    ['5', undefined],
    ['', undefined],
    ['s', undefined],
    ['-5s', undefined],
    ['+5s', undefined],
    ['5S', undefined],
    ['5 s', undefined],
    ['5s ', undefined],
    ['1e3ms', undefined],
    ['1h30m', undefined],
    ['30d', 2_592_000_000],
    ['0.5d', 43_200_000],
    ['5w', undefined],
    ['.5s', undefined],
    ['Infinitys', undefined],
  ])('reads %j as %s', (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });
});

describe('formatDuration', () => {
  it.each([
    [0, '0ms'],
    [250, '250ms'],
    [1_500, '1500ms'],
    [5_000, '5s'],
    [90_000, '90s'],
    [120_000, '2m'],
    [7_200_000, '2h'],
    [86_400_000, '1d'],
    [90_000_000, '25h'],
  ])('writes %s ms as %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
    expect(parseDuration(text)).toBe(ms);
  });
});
