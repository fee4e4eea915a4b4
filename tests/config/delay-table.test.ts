import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { faultsOf, load } from './overlay.ts';

const tableOf = (text: string) =>
  load({ files: { 'default.yaml': stringify({ budget: { backpressure: { table: text } } }) } }).budget
    .backpressure.table;

describe('the table of back-pressure', () => {
  it('is the one of the tuning guide until another is given', () => {
    const { threshold, maxDelayMs, table } = load().budget.backpressure;
    expect({ threshold, maxDelayMs, table }).toEqual({
      threshold: 0.8,
      maxDelayMs: 5_000,
      table: [
        { at: 0.8, ms: 50 },
        { at: 0.85, ms: 300 },
        { at: 0.9, ms: 750 },
        { at: 0.95, ms: 1_500 },
      ],
    });
  });

  it('takes steps whose delays stay the same, spaces or none, and no step at all', () => {
    expect(tableOf(' 0.1:1s ,0.999999999:1000ms')).toEqual([
      { at: 0.1, ms: 1_000 },
      { at: 0.999999999, ms: 1_000 },
    ]);
    expect(tableOf('')).toEqual([]);
  });

  it.each([
    ['shares that fall', '0.9:1s, 0.8:2s'],
    ['a share twice', '0.9:1s, 0.9:2s'],
    ['delays that fall', '0.8:2s, 0.9:1s'],
    ['a share of nothing', '0.0:1s'],
    ['the whole, whose delay is maxDelay', '1:1s'],
    ['percents', '80:50ms'],
    ['a delay without a unit', '0.8:50'],
    ['a delay that is too long', '0.8:601s'],
    ['a step without a delay', '0.8'],
    ['a comma too many', '0.8:1s,'],
    ['too many steps', Array.from({ length: 21 }, (_, index) => `0.${index + 10}:1s`).join()],
  ])('is refused with %s', (_title, text) => {
    expect(faultsOf({ env: { WEIR_BUDGET_BACKPRESSURE_TABLE: text } })).toEqual([
      {
        key: 'budget.backpressure.table',
        expected: expect.stringContaining('up to 20 steps such as "0.8:50ms, 0.9:750ms"'),
        got: expect.stringContaining(text.slice(0, 20)),
        source: 'environment WEIR_BUDGET_BACKPRESSURE_TABLE',
      },
    ]);
  });
});
