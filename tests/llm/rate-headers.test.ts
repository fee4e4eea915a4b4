// What providers say of their limits: every dialect, and everything that is to be passed over.

import { expect, test } from 'vitest';
import { forAllKeys, LONGEST_EMPTY_MS, readRateHeaders } from '../../src/llm/rate-headers.ts';
import type { RateReading } from '../../src/task/rate-reading.ts';

const NOW = Date.parse('2026-10-21T07:28:00Z');
const read = (headers: Record<string, string>) => readRateHeaders(new Headers(headers), NOW);

const model = (reading: Omit<RateReading, 'scope'>): RateReading => ({ scope: 'model', ...reading });
const provider = (reading: Omit<RateReading, 'scope' | 'dimension'>): RateReading => ({
  scope: 'provider',
  dimension: 'rpm',
  ...reading,
});

const openai = (limit: string, values: Record<string, string>) =>
  Object.fromEntries(
    Object.entries(values).map(([part, value]) => [`x-ratelimit-${part}-${limit}`, value] as const),
  );
const anthropic = (limit: string, values: Record<string, string>) =>
  Object.fromEntries(
    Object.entries(values).map(([part, value]) => [`anthropic-ratelimit-${limit}-${part}`, value] as const),
  );

test.each<[string, Record<string, string>, readonly RateReading[]]>([
  [
    'openai',
    {
      ...openai('requests', { limit: '500', remaining: '499', reset: '120ms' }),
      ...openai('tokens', { limit: '30000', remaining: '29000', reset: '2s' }),
    },
    [
      model({ dimension: 'rpm', limit: 500, remaining: 499 }),
      model({ dimension: 'tpm', limit: 30_000, remaining: 29_000 }),
    ],
  ],
  [
    'openai with no request left: the next one is there long before all of them',
    openai('requests', { limit: '600', remaining: '0', reset: '1m0s' }),
    [model({ dimension: 'rpm', limit: 600, remaining: 0, emptyMs: 100 })],
  ],
  [
    'openai with no token left',
    openai('tokens', { limit: '600', remaining: '0', reset: '1m0s' }),
    [model({ dimension: 'tpm', limit: 600, remaining: 0, emptyMs: 1_000 })],
  ],
  [
    'openai in debt for a large request',
    openai('tokens', { limit: '1000', remaining: '0', reset: '1m50s' }),
    [model({ dimension: 'tpm', limit: 1_000, remaining: 0, emptyMs: 1_000 })],
  ],
  [
    'openai with a limit of a day, which is no rate',
    openai('requests', { limit: '200', remaining: '199', reset: '7m12s' }),
    [model({ dimension: 'rpm', remaining: 199 })],
  ],
  [
    'openai with a limit of a day used up',
    openai('requests', { limit: '200', remaining: '0', reset: '24h0m0s' }),
    [model({ dimension: 'rpm', remaining: 0, emptyMs: 432_000 })],
  ],
  [
    'azure, whose windows end after seconds',
    {
      ...openai('requests', { limit: '60', remaining: '59', reset: '60' }),
      ...openai('tokens', { limit: '6000', remaining: '5000' }),
    },
    [
      model({ dimension: 'rpm', limit: 60, remaining: 59 }),
      model({ dimension: 'tpm', limit: 6_000, remaining: 5_000 }),
    ],
  ],
  [
    'azure without a limit',
    openai('requests', { remaining: '9' }),
    [model({ dimension: 'rpm', remaining: 9 })],
  ],
  [
    'anthropic, which counts tokens in and out apart',
    {
      ...anthropic('requests', { limit: '50', remaining: '49', reset: '2026-10-21T07:28:01Z' }),
      ...anthropic('input-tokens', { limit: '40000', remaining: '39000', reset: '2026-10-21T07:28:02Z' }),
      ...anthropic('output-tokens', { limit: '8000', remaining: '0', reset: '2026-10-21T07:28:00.500Z' }),
      ...anthropic('tokens', { limit: '48000', remaining: '47000', reset: '2026-10-21T07:28:02Z' }),
    },
    [
      model({ dimension: 'rpm', limit: 50, remaining: 49 }),
      model({ dimension: 'tpm', limit: 48_000, remaining: 47_000 }),
      model({ dimension: 'inputTpm', limit: 40_000, remaining: 39_000 }),
      model({ dimension: 'outputTpm', limit: 8_000, remaining: 0, emptyMs: 500 }),
    ],
  ],
  [
    'a window that ends after seconds',
    { 'x-ratelimit-limit': '100', 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': '30' },
    [provider({ limit: 100, remaining: 0, emptyMs: 30_000 })],
  ],
  [
    'a window that ends at a second since 1970',
    {
      'x-ratelimit-limit': '100',
      'x-ratelimit-remaining': '0',
      'x-ratelimit-reset': String(NOW / 1000 + 20),
    },
    [provider({ limit: 100, remaining: 0, emptyMs: 20_000 })],
  ],
  [
    'a window that ends at a millisecond since 1970',
    { 'x-ratelimit-limit': '20', 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': String(NOW + 1_500) },
    [provider({ limit: 20, remaining: 0, emptyMs: 1_500 })],
  ],
  [
    'a window that ends at a date',
    { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': 'Wed, 21 Oct 2026 07:28:10 GMT' },
    [provider({ remaining: 0, emptyMs: 10_000 })],
  ],
  [
    "a date by the provider's clock, ten minutes off",
    {
      date: 'Wed, 21 Oct 2026 07:38:00 GMT',
      'x-ratelimit-remaining': '0',
      'x-ratelimit-reset': 'Wed, 21 Oct 2026 07:38:10 GMT',
    },
    [provider({ remaining: 0, emptyMs: 10_000 })],
  ],
  [
    'a window of an hour, whose limit is no rate of a minute',
    { 'x-ratelimit-limit': '5000', 'x-ratelimit-remaining': '4999', 'x-ratelimit-reset': '3600' },
    [provider({ remaining: 4_999 })],
  ],
  [
    'a limit and its policy',
    { 'ratelimit-limit': '10, 10;w=1, 1000;w=3600', 'ratelimit-remaining': '9', 'ratelimit-reset': '1' },
    [provider({ limit: 600, remaining: 9 })],
  ],
  [
    'the ietf draft of 2021',
    { ratelimit: 'limit=100, remaining=50, reset=30' },
    [provider({ limit: 100, remaining: 50 })],
  ],
  [
    'the ietf draft of 2024',
    { ratelimit: '"default";r=0;t=12', 'ratelimit-policy': '"default";q=100;w=60' },
    [provider({ limit: 100, remaining: 0, emptyMs: 12_000 })],
  ],
  ['a policy of another window', { 'ratelimit-policy': '30;w=10' }, [provider({ limit: 180 })]],
  [
    'the tightest of several policies',
    { 'ratelimit-policy': '"burst";q=50;w=10, "hour";q=6000;w=3600, "day";q=1000;w=86400' },
    [provider({ limit: 100 })],
  ],
  [
    'the tighter of two states',
    { ratelimit: '"minute";r=50;t=30, "hour";r=0;t=300', 'ratelimit-policy': '"minute";q=60;w=60' },
    [provider({ limit: 60, remaining: 0, emptyMs: 300_000 })],
  ],
  [
    'a reset in a year, as an hour',
    { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': '31536000' },
    [provider({ remaining: 0, emptyMs: LONGEST_EMPTY_MS })],
  ],
  [
    'a reset that is over',
    { 'x-ratelimit-limit': '100', 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': '1000000000' },
    [provider({ limit: 100, remaining: 0 })],
  ],
])('limits are read from %s', (_, headers, expected) => expect(read(headers)).toEqual(expected));

test.each<[string, Record<string, string>]>([
  ['nothing', {}],
  ['minus one', { ...openai('requests', { limit: '-1', remaining: '-1', reset: '-1' }) }],
  ['zero', openai('requests', { limit: '0' })],
  ['a billion, which is no limit', openai('tokens', { limit: '1000000000', remaining: '999999999999' })],
  ['words', { 'x-ratelimit-limit': 'unlimited', 'x-ratelimit-remaining': 'many' }],
  ['infinity', { 'x-ratelimit-limit': 'Infinity', 'x-ratelimit-remaining': '1e999' }],
  ['a number with a tail', openai('requests', { limit: '12abc' })],
  ['a number too long to be one', openai('requests', { limit: '9'.repeat(400) })],
  ['a hexadecimal number', openai('requests', { limit: '0x10' })],
  ['an empty header', openai('requests', { limit: '', remaining: ' ' })],
  ['an empty policy', { 'ratelimit-policy': ';;,,=,' }],
  ['a policy of a day', { 'ratelimit-policy': '"day";q=1000;w=86400' }],
  ['a policy of no time', { 'ratelimit-policy': '100;w=0' }],
  ['a policy that counts bytes', { 'ratelimit-policy': '"peruser";q=65535;qu="content-bytes";w=10' }],
  ['a list of nothing', { ratelimit: ', ,', 'x-ratelimit-limit': ',' }],
])('no limit is read from %s', (_, headers) => expect(read(headers)).toEqual([]));

test('several keys may do together what each of them may, and one that is used up leaves the others', () => {
  const readings = [
    model({ dimension: 'rpm', limit: 500, remaining: 0, emptyMs: 100 }),
    model({ dimension: 'tpm', remaining: 9 }),
  ];
  expect(forAllKeys(readings, 1)).toBe(readings);
  expect(forAllKeys(readings, 0)).toBe(readings);
  expect(forAllKeys(readings, 3)).toEqual([model({ dimension: 'rpm', limit: 1_500 })]);
});

test('limits may be asked of no headers at all', () => {
  expect(readRateHeaders(undefined, NOW)).toEqual([]);
});
