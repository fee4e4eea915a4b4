import { describe, expect, it } from 'vitest';
import { pressureOf } from '../../src/task/pressure.ts';

describe('pressureOf', () => {
  it.each([
    [0n, 'low'],
    [499n, 'low'],
    [500n, 'medium'],
    [749n, 'medium'],
    [750n, 'high'],
    [899n, 'high'],
    [900n, 'critical'],
    [1000n, 'critical'],
    [5000n, 'critical'],
  ] as const)('says of %d used out of 1000 that it is %s', (used, word) => {
    expect(pressureOf(used, 1000n)).toBe(word);
  });

  it('counts exactly where halves are no whole numbers', () => {
    expect([pressureOf(1n, 3n), pressureOf(2n, 3n), pressureOf(3n, 3n)]).toEqual([
      'low',
      'medium',
      'critical',
    ]);
  });

  it('tells amounts apart that a floating-point number would not', () => {
    const amount = 9_000_000n * 1_000_000_000n;
    expect(pressureOf(amount / 2n, amount)).toBe('medium');
    expect(pressureOf(amount / 2n - 1n, amount)).toBe('low');
  });

  it('is critical on a limit of 0, used or not', () => {
    expect(pressureOf(0n, 0n)).toBe('critical');
    expect(pressureOf(1n, 0n)).toBe('critical');
  });
});
