// When a provider wants to be asked again: every place where it may say so, and everything that is no such thing.

import { expect, test } from 'vitest';
import { LONGEST_HINT_MS, retryAfterMsFrom } from '../../src/llm/hints.ts';

const NOW = Date.parse('2026-10-21T07:28:00Z');
const hint = (headers: Record<string, string>, body?: unknown) =>
  retryAfterMsFrom(new Headers(headers), body, NOW);

const exhausted = (reset: string, limit = 'requests') => ({
  [`x-ratelimit-remaining-${limit}`]: '0',
  [`x-ratelimit-reset-${limit}`]: reset,
});
const delayed = (retryDelay: unknown) => ({
  error: { details: [{ '@type': 'QuotaFailure' }, { '@type': 'RetryInfo', retryDelay }] },
});

test.each<[string, Record<string, string>, unknown, number]>([
  ['retry-after-ms', { 'retry-after-ms': '1234' }, undefined, 1234],
  ['retry-after-ms with a fraction, up', { 'retry-after-ms': '10.2' }, undefined, 11],
  ['retry-after-ms before retry-after', { 'retry-after-ms': '700', 'retry-after': '1' }, undefined, 700],
  ['retry-after', { 'retry-after': '20' }, undefined, 20_000],
  ['retry-after with a fraction', { 'Retry-After': '0.25' }, undefined, 250],
  ['retry-after as a date', { 'retry-after': 'Wed, 21 Oct 2026 07:28:30 GMT' }, undefined, 30_000],
  ['an unreadable header and a good one', { 'retry-after-ms': 'soon', 'retry-after': '3' }, undefined, 3000],
  ["google's delay", {}, delayed('12s'), 12_000],
  ["google's delay with a fraction", {}, delayed('0.5s'), 500],
  ["google's delay in a list, as text", {}, JSON.stringify([delayed('2s')]), 2000],
  ['requests run out', exhausted('1s'), undefined, 1000],
  ['tokens run out', exhausted('6m0s', 'tokens'), undefined, 360_000],
  ['milliseconds', exhausted('250ms'), undefined, 250],
  ['all units', exhausted('1h2m3.5s'), undefined, LONGEST_HINT_MS],
  ['the later of two', { ...exhausted('1s'), ...exhausted('2m1.5s', 'tokens') }, undefined, 121_500],
  [
    "anthropic's reset",
    {
      'anthropic-ratelimit-input-tokens-remaining': '0',
      'anthropic-ratelimit-input-tokens-reset': '2026-10-21T07:28:05Z',
    },
    undefined,
    5000,
  ],
  [
    "anthropic's reset in another zone",
    {
      'anthropic-ratelimit-requests-remaining': '0',
      'anthropic-ratelimit-requests-reset': '2026-10-21T09:28:05+02:00',
    },
    undefined,
    5000,
  ],
  ["azure's reset in seconds", exhausted('12'), undefined, 12_000],
  [
    'a reset in seconds since 1970',
    { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': String(NOW / 1000 + 9) },
    undefined,
    9000,
  ],
  [
    'a reset in milliseconds since 1970',
    { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': String(NOW + 9500) },
    undefined,
    9500,
  ],
  ['a billion seconds, as an hour', { 'retry-after': '1000000000' }, undefined, LONGEST_HINT_MS],
  ['a billion milliseconds, as an hour', { 'retry-after-ms': '1000000000' }, undefined, LONGEST_HINT_MS],
  [
    "a date by the provider's own clock, however wrong the one here is",
    { 'retry-after': 'Wed, 21 Oct 2026 07:38:30 GMT', date: 'Wed, 21 Oct 2026 07:38:00 GMT' },
    undefined,
    30_000,
  ],
  ['a day, as an hour', { 'retry-after': '86400' }, undefined, LONGEST_HINT_MS],
])('a hint is read from %s', (_, headers, body, expected) => expect(hint(headers, body)).toBe(expected));

test.each<[string, Record<string, string>, unknown]>([
  ['nothing', {}, undefined],
  ['minus one', { 'retry-after': '-1', 'retry-after-ms': '-1' }, undefined],
  ['zero', { 'retry-after': '0', 'retry-after-ms': '0' }, undefined],
  ['words', { 'retry-after': 'soon' }, undefined],
  ['a number with a tail', { 'retry-after': '12abc' }, undefined],
  ['infinity', { 'retry-after': 'Infinity', 'retry-after-ms': '1e999' }, undefined],
  ['a date that is over', { 'retry-after': 'Wed, 21 Oct 2026 07:27:30 GMT' }, undefined],
  ['a date that is none', { 'retry-after': 'Wed, 99 Foo 2026 07:27:30 GMT' }, undefined],
  [
    'a reset of a limit with room',
    { 'x-ratelimit-remaining-requests': '1', 'x-ratelimit-reset-requests': '1s' },
    undefined,
  ],
  ['a reset of a limit of unknown room', { 'x-ratelimit-reset-requests': '1s' }, undefined],
  ['a reset that is no time', exhausted('12 apples'), undefined],
  ['a reset that is negative', exhausted('-1s'), undefined],
  ['a reset of zero', exhausted('0s'), undefined],
  [
    "anthropic's reset with room",
    {
      'anthropic-ratelimit-tokens-remaining': '9',
      'anthropic-ratelimit-tokens-reset': '2026-10-21T07:28:05Z',
    },
    undefined,
  ],
  [
    "anthropic's reset that is over",
    {
      'anthropic-ratelimit-tokens-remaining': '0',
      'anthropic-ratelimit-tokens-reset': '2026-10-21T07:27:05Z',
    },
    undefined,
  ],
  ['a delay that is negative', {}, delayed('-3s')],
  ['a delay that is a number', {}, delayed(12)],
  ['details that are no list', {}, { error: { details: 'retryDelay' } }],
  ['a page', {}, '<html>'],
])('a hint is not read from %s', (_, headers, body) => expect(hint(headers, body)).toBeUndefined());

test('a hint may come without headers', () => {
  expect(retryAfterMsFrom(undefined, delayed('1s'), NOW)).toBe(1000);
});
