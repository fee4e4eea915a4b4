import { expect, it } from 'vitest';
import { createKeyRing, DEAD_KEY_MS } from '../../src/llm/key-ring.ts';

const USE = { provider: 'p', model: 'm', keys: ['a', 'b', 'c'] };

function ringAt(start = 0) {
  const clock = { ms: start };
  return { clock, ring: createKeyRing(() => clock.ms) };
}

it('takes keys evenly, one after the other', () => {
  const { ring } = ringAt();
  expect(Array.from({ length: 7 }, () => ring.take(USE)).join('')).toBe('abcabca');
});

it('takes the others evenly while one is dead, and that one again afterwards', () => {
  const { ring, clock } = ringAt();
  expect(ring.failed(USE, 'b', { kind: 'auth', status: 401 })).toMatchObject({ hasOtherKey: true });
  expect(Array.from({ length: 6 }, () => ring.take(USE)).join('')).toBe('acacac');
  clock.ms = DEAD_KEY_MS;
  expect(ring.take(USE)).toBe('b');
});

it.each([
  ['auth', 401],
  ['quota', 402],
  ['quota', 429],
] as const)('passes over a key for all models after %s with status %i', (kind, status) => {
  const { ring } = ringAt();
  ring.failed(USE, 'a', { kind, status });
  expect([ring.take({ ...USE, model: 'other' }), ring.take({ ...USE, model: 'other' })]).toEqual(['b', 'c']);
});

it.each([
  ['auth', 403],
  ['rate_limited', 429],
] as const)('passes over a key for the one model alone after %s with status %i', (kind, status) => {
  const { ring } = ringAt();
  ring.failed(USE, 'a', { kind, status });
  expect(ring.take({ ...USE, model: 'other' })).toBe('a');
  expect([ring.take(USE), ring.take(USE), ring.take(USE)]).toEqual(['b', 'c', 'b']);
});

it('says that no other key is left once all were refused or are throttled, and when the first is back', () => {
  const { ring, clock } = ringAt(1_000);
  const throttled = (retryAfterMs?: number) => ({ kind: 'rate_limited', status: 429, retryAfterMs }) as const;
  expect(ring.failed(USE, 'a', { kind: 'auth', status: 401 }).hasOtherKey).toBe(true);
  expect(ring.failed(USE, 'b', throttled(9_000))).toEqual({ hasOtherKey: true, retryAfterMs: 0 });
  clock.ms += 2_000;
  expect(ring.failed(USE, 'c', throttled(30_000))).toEqual({ hasOtherKey: false, retryAfterMs: 7_000 });
  // Somebody asks all the same: the one that is back first.
  expect(ring.take(USE)).toBe('b');
  // A longer rest of another key is no hint.
  expect(ring.failed(USE, 'c', throttled())).toEqual({ hasOtherKey: false, retryAfterMs: undefined });
});

it('rests a throttled key for a second where there is no hint', () => {
  const { ring, clock } = ringAt();
  const two = { ...USE, keys: ['a', 'b'] };
  ring.failed(two, 'a', { kind: 'rate_limited' });
  expect([ring.take(two), ring.take(two)]).toEqual(['b', 'b']);
  clock.ms = 1_000;
  expect(ring.take(two)).toBe('a');
});

it('forgets what a key was passed over for when it works again', () => {
  const { ring } = ringAt();
  ring.failed(USE, 'a', { kind: 'quota' });
  ring.worked(USE, 'a');
  expect(ring.take(USE)).toBe('a');
});

it("leaves a key's hint alone where there is no other, and where the provider itself is at fault", () => {
  const { ring } = ringAt();
  const one = { ...USE, keys: ['a'] };
  expect(ring.failed(one, 'a', { kind: 'rate_limited', retryAfterMs: 5 })).toEqual({
    hasOtherKey: false,
    retryAfterMs: 5,
  });
  expect(ring.failed(one, 'a', { kind: 'rate_limited' })).toEqual({
    hasOtherKey: false,
    retryAfterMs: undefined,
  });
  const { ring: fresh } = ringAt();
  expect(fresh.failed(USE, 'a', { kind: 'overloaded', retryAfterMs: 5 })).toEqual({
    hasOtherKey: false,
    retryAfterMs: 5,
  });
  expect(fresh.take(USE)).toBe('a');
});

it('has no key for a provider that needs none', () => {
  expect(ringAt().ring.take({ ...USE, keys: [] })).toBeUndefined();
});
