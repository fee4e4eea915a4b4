import { describe, expect, it } from 'vitest';
import { formatUsd, MAX_LIMIT_NANO_USD, parseUsd } from '../../src/task/money.ts';

describe('parseUsd', () => {
  it.each<[string | number, bigint]>([
    ['0', 0n],
    ['5', 5_000_000_000n],
    ['5.00', 5_000_000_000n],
    ['0.25', 250_000_000n],
    ['0.000000001', 1n],
    ['007.5', 7_500_000_000n],
    ['9000000', MAX_LIMIT_NANO_USD],
    ['999999999999999.999999999', 999_999_999_999_999_999_999_999n],
    [0, 0n],
    [-0, 0n],
    [20, 20_000_000_000n],
    [0.1, 100_000_000n],
    [1.1, 1_100_000_000n],
    [4.35, 4_350_000_000n],
    [1e-7, 100n],
    [1.5e-8, 15n],
    [1e-9, 1n],
    [1e6, 1_000_000_000_000_000n],
  ])('reads %s exactly', (value, nano) => {
    expect(parseUsd(value)).toBe(nano);
  });

  it.each<string | number>([
    '',
    ' ',
    ' 5',
    '5 ',
    '-1',
    '-0',
    '+1',
    '1e3',
    '1E-3',
    '.5',
    '5.',
    '1,000.00',
    '$5',
    '0x10',
    'NaN',
    'Infinity',
    '12abc',
    '5.00\n',
    '٥',
    '0.0000000001',
    '1.0000000000',
    '1'.repeat(16),
    -1,
    -0.01,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    1e-10,
    0.1 + 0.2,
    1e21,
    -1e-7,
  ])('refuses %j', (value) => {
    expect(parseUsd(value)).toBeUndefined();
  });
});

describe('formatUsd', () => {
  it.each<[bigint, string]>([
    [0n, '0.00'],
    [1n, '0.000000001'],
    [123_000n, '0.000123'],
    [100_000_000n, '0.10'],
    [1_230_000_000n, '1.23'],
    [1_234_000_000n, '1.234'],
    [5_000_000_000n, '5.00'],
    [10_000_000_000n, '10.00'],
    [MAX_LIMIT_NANO_USD, '9000000.00'],
    [-123_000n, '-0.000123'],
    [-5_000_000_000n, '-5.00'],
  ])('writes %s nano-USD as %s', (nano, text) => {
    expect(formatUsd(nano)).toBe(text);
  });

  it('writes what parseUsd reads back', () => {
    for (let nano = 1n; nano < MAX_LIMIT_NANO_USD; nano = nano * 7n + 3n)
      expect(parseUsd(formatUsd(nano))).toBe(nano);
  });
});
