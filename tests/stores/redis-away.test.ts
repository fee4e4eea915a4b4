// Which errors say that Redis is away, so that budgets are held in Postgres.

import { expect, it } from 'vitest';
import { BreakerOpen } from '../../src/calls/breaker.ts';
import { createIsRedisAway } from '../../src/stores/redis-away.ts';

const answers = createIsRedisAway({ ping: async () => undefined });
const isGone = createIsRedisAway({ ping: () => Promise.reject(new Error('connection is closed')) });

function replyOf(message: string): Error {
  return Object.assign(new Error(message), { name: 'ReplyError' });
}

it('believes what Redis or the breaker before it says itself', async () => {
  expect(await answers(new BreakerOpen('redis', 1_000))).toBe(true);
  expect(await answers(replyOf('LOADING Redis is loading the dataset in memory'))).toBe(true);
  expect(await isGone(replyOf('ERR wrong number of arguments'))).toBe(false);
});

it('asks Redis about any other error', async () => {
  expect(await answers(new Error('Command timed out'))).toBe(false);
  expect(await isGone(new Error('Command timed out'))).toBe(true);
});

it('leaves Redis for no open breaker before Postgres', async () => {
  expect(await answers(new BreakerOpen('postgres', 1_000))).toBe(false);
});
