// Who comes first in a line that all priorities share, and that nobody starves in it.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DEFAULT_RATE_CLASSES, type RateOutcome } from '../../src/stores/rate-rules.ts';
import { admitted, letPass, NO_BOOKINGS, stageRates, waitOf } from '../support/rates.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

const limited = (rpm: number, classes = DEFAULT_RATE_CLASSES) =>
  stageRates(test.redis, { provider: () => ({ rpm }) }, { classes });
const isBooked = (outcome: RateOutcome) => outcome.kind === 'wait' && outcome.isBooked;

describe('the horizon', () => {
  it.each([
    ['low', 10],
    ['normal', 30],
    ['high', 60],
    ['critical', 120],
  ] as const)('of %s lets it book %i seconds ahead', async (priority, seconds) => {
    const { admitAll } = limited(60);
    const outcomes = await admitAll(5 + seconds + 20, { priority });
    const booked = outcomes.filter(isBooked).length;
    // The lowest class has a second less of the burst before it.
    expect(booked).toBeGreaterThanOrEqual(seconds);
    expect(booked).toBeLessThanOrEqual(seconds + 2);
  });

  it('keeps a higher class ahead of lower ones that crowd the line', async () => {
    const { admit, admitAll } = limited(60);
    await admitAll(100);
    expect((await admitAll(20)).some(isBooked)).toBe(false);
    const high = waitOf(await admit({ priority: 'high' }));
    expect(high.isBooked).toBe(true);
    expect(high.ms).toBeLessThanOrEqual(32_000);
  });
});

describe('the last fifth of the burst', () => {
  it('is never for the lowest class', async () => {
    const { admitAll, admit } = limited(600, NO_BOOKINGS);
    expect(admitted(await admitAll(60, { priority: 'low' }))).toBe(40);
    expect((await admit()).kind).toBe('admitted');
  });

  it('is for everybody else, as long as no higher class is about', async () => {
    const { admitAll } = limited(600, NO_BOOKINGS);
    expect(admitted(await admitAll(60))).toBeGreaterThanOrEqual(50);
  });

  it('is kept for the higher classes once one of them was seen, for a while', async () => {
    const { horizonMs } = DEFAULT_RATE_CLASSES;
    const classes = { ...NO_BOOKINGS, horizonMs: { ...NO_BOOKINGS.horizonMs, high: horizonMs.high } };
    const { admitAll, admit, keys } = limited(600, classes);
    expect(await admit({ priority: 'high' })).toEqual({ kind: 'admitted' });
    expect(admitted(await admitAll(60))).toBeLessThanOrEqual(40);
    expect(admitted(await admitAll(60, { priority: 'critical' }))).toBeGreaterThanOrEqual(10);
    await letPass(test.redis, keys, 61_000);
    expect(admitted(await admitAll(60))).toBeGreaterThanOrEqual(50);
  });

  it('lets a request of the lowest class through a bucket that holds but one', async () => {
    const { admit } = limited(6, NO_BOOKINGS);
    expect(await admit({ priority: 'low' })).toEqual({ kind: 'admitted' });
    expect((await admit({ priority: 'low' })).kind).toBe('wait');
  });
});

describe('age', () => {
  it('opens a tenth of a line that higher classes have booked, however long they flood it', async () => {
    const { admitAll, admit, keys, debtMs } = limited(60);
    const queuedAtMs = (await test.redis.nowMs()) - 3_600_000;
    let [low, served] = [0, 0];
    for (let second = 0; second < 120; second += 1) {
      await admitAll(second === 0 ? 70 : 3, { priority: 'high' });
      for (let n = 0; n < 2; n += 1) {
        const outcome = await admit({ priority: 'low', queuedAtMs });
        if (isBooked(outcome)) low += 1;
      }
      served += 1;
      await letPass(test.redis, keys, 1_000);
    }
    expect(low / served).toBeGreaterThan(0.05);
    expect(low / served).toBeLessThan(0.12);
    expect(await debtMs('rpm')).toBeLessThan(70_000);
  });

  it('is nothing to a call that has not waited for longer than its horizon', async () => {
    const { admitAll, admit } = limited(600);
    await admitAll(700, { priority: 'high' });
    const nowMs = await test.redis.nowMs();
    expect(isBooked(await admit({ priority: 'low', queuedAtMs: nowMs - 5_000 }))).toBe(false);
    expect(isBooked(await admit({ priority: 'low' }))).toBe(false);
    expect(isBooked(await admit({ priority: 'low', queuedAtMs: nowMs - 15_000 }))).toBe(true);
  });
});
