// What the use of a limit asks for before anybody is refused: pure.

import { describe, expect, it } from 'vitest';
import { delayFor, pressureOfCall, project } from '../../src/calls/ladder.ts';
import type { LimitUse } from '../../src/stores/gate.ts';
import { ALWAYS } from '../../src/task/window.ts';
import { estimateOf, limitOn, payerOf } from '../support/holds.ts';

const TABLE = [
  { at: 0.8, ms: 50 },
  { at: 0.85, ms: 300 },
  { at: 0.9, ms: 750 },
  { at: 0.95, ms: 1_500 },
];

function useOf(amount: bigint, settled: bigint, held = 0n, unit: 'usd' | 'tokens' = 'usd'): LimitUse {
  return { limit: limitOn(payerOf('a'), 'user', amount, unit), interval: ALWAYS, settled, held };
}

describe('delayFor', () => {
  it.each([
    [0, 0],
    [0.799_999, 0],
    [0.8, 50],
    [0.849_999, 50],
    [0.85, 300],
    [0.9, 750],
    [0.95, 1_500],
    [0.999_999, 1_500],
    [1, 5_000],
    [Number.POSITIVE_INFINITY, 5_000],
  ])('delays a call at %s of its limit by %s ms', (ratio, ms) => {
    expect(delayFor(ratio, { threshold: 0.8, maxDelayMs: 5_000, table: TABLE })).toBe(ms);
  });

  it('delays nobody below the threshold, whatever the table says', () => {
    expect(delayFor(0.89, { threshold: 0.9, maxDelayMs: 5_000, table: TABLE })).toBe(0);
    expect(delayFor(0.9, { threshold: 0.9, maxDelayMs: 5_000, table: TABLE })).toBe(750);
  });

  it('delays nobody longer than the maximum', () => {
    expect(delayFor(0.95, { threshold: 0.8, maxDelayMs: 1_000, table: TABLE })).toBe(1_000);
  });

  it('delays nobody before the first step of the table', () => {
    expect(delayFor(0.75, { threshold: 0.5, maxDelayMs: 1_000, table: TABLE })).toBe(0);
  });
});

describe('project', () => {
  it('adds settled, held and the estimate in the unit of each limit, the tightest first', () => {
    const projected = project(
      [useOf(1_000n, 100n, 100n), useOf(200n, 50n, 0n, 'tokens'), useOf(0n, 0n)],
      estimateOf(300n, 100),
    );
    expect(projected.map(({ projected: sum, ratio }) => [sum, ratio])).toEqual([
      [300n, Number.POSITIVE_INFINITY],
      [150n, 0.75],
      [500n, 0.5],
    ]);
  });

  it('divides amounts beyond 2^53 exactly enough', () => {
    const amount = 9_000_000_000_000_000n;
    const [use] = project([useOf(amount, amount - 1n)], estimateOf(1n));
    expect(use?.ratio).toBe(1);
  });
});

describe('pressureOfCall', () => {
  it('is the word for the tightest limit, the call included', () => {
    const at = (settled: bigint) => pressureOfCall(project([useOf(1_000n, settled)], estimateOf(100n)));
    expect([at(0n), at(399n), at(400n), at(650n), at(799n), at(800n)]).toEqual([
      'low',
      'low',
      'medium',
      'high',
      'high',
      'critical',
    ]);
  });

  it('is nothing where no limit binds', () => {
    expect(pressureOfCall([])).toBeUndefined();
  });
});
