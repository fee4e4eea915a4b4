// Places in a line that are kept for a call: found again, taken up once and in time, and given back.

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { DEFAULT_RATE_CLASSES } from '../../src/stores/rate-rules.ts';
import { createRates, type RateOptions } from '../../src/stores/rates.ts';
import { admitted, letPass, type Stage, stageRates, waitOf } from '../support/rates.ts';
import { connectAgain, openTestStores, type TestStores } from '../support/stores.ts';

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

/** A request a second, with room for ten more in the horizon of a normal call. The burst is used up. */
async function busy(options: Partial<RateOptions> = {}): Promise<Stage & { readonly lost: number[] }> {
  const lost: number[] = [];
  const stage = stageRates(
    test.redis,
    { provider: () => ({ rpm: 60 }) },
    { onBookingsLost: (_, count) => lost.push(count), ...options },
  );
  expect(admitted(await stage.admitAll(5))).toBe(5);
  return { ...stage, lost };
}

const callKey = 'booked';
const again = { callKey, attemptKey: `${callKey}#0.2.1.0`, isBooked: true };

describe('a wait within the horizon', () => {
  it('is booked: every call has a place of its own, one after the other', async () => {
    const { admitAll } = await busy();
    const waits = (await admitAll(10)).map(waitOf).sort((left, right) => left.ms - right.ms);
    for (const [index, wait] of waits.entries()) {
      expect(wait.isBooked).toBe(true);
      expect(wait.ms).toBeGreaterThan(index * 1_000 + 500);
      expect(wait.ms).toBeLessThanOrEqual((index + 1) * 1_000);
    }
  });

  it('is told exactly and takes nothing where it is beyond the horizon', async () => {
    const { admit, admitAll, debtMs } = await busy();
    await admitAll(30);
    const before = await debtMs('rpm');
    const waits = (await admitAll(5)).map(waitOf);
    expect(waits.every(({ isBooked }) => !isBooked)).toBe(true);
    for (const { ms } of waits) expect(Math.abs(ms - (before - 4_000))).toBeLessThan(500);
    expect(await debtMs('rpm')).toBeLessThanOrEqual(before);
    expect(waitOf(await admit({ priority: 'high' })).isBooked).toBe(true);
  });

  it('is found again by a repeated activity, also by one in another process', async () => {
    const { admit, request, debtMs } = await busy();
    const first = waitOf(await admit({ callKey }));
    const debt = await debtMs('rpm');
    await using other = await connectAgain(test);
    const rules = { provider: () => ({ rpm: 60 }) };
    const elsewhere = createRates(other.redis, { leaseMs: 60_000, rules });
    const repeated = waitOf(await elsewhere.admit(request({ callKey, attemptKey: `${callKey}#0.1.2.0` })));
    expect(repeated.isBooked).toBe(true);
    expect(repeated.ms).toBeLessThanOrEqual(first.ms);
    expect(repeated.ms).toBeGreaterThan(0);
    expect(await debtMs('rpm')).toBeLessThanOrEqual(debt);
  });

  it('belongs to one candidate of its call', async () => {
    const { admit, debtMs } = await busy();
    await admit({ callKey });
    const debt = await debtMs('rpm');
    expect(waitOf(await admit({ callKey, candidate: 1 })).isBooked).toBe(true);
    expect(await debtMs('rpm')).toBeGreaterThan(debt + 500);
  });
});

describe('a booked place', () => {
  it('is waited for by who comes early', async () => {
    const { admit } = await busy();
    const { ms } = waitOf(await admit({ callKey }));
    const early = waitOf(await admit(again));
    expect(early.isBooked).toBe(true);
    expect(early.ms).toBeLessThanOrEqual(ms);
    expect(early.ms).toBeGreaterThan(0);
  });

  it('becomes a permit when its time has come, without another one being taken', async () => {
    const { admit, keys, debtMs } = await busy();
    await admit({ callKey });
    await letPass(test.redis, keys, 1_000);
    const debt = await debtMs('rpm');
    expect(await admit(again)).toEqual({ kind: 'admitted' });
    expect(await debtMs('rpm')).toBeLessThanOrEqual(debt);
  });

  it('grants once, however many come with it at once', async () => {
    const { admit, admitAll, keys } = await busy();
    await admit({ callKey });
    await admitAll(3);
    await letPass(test.redis, keys, 1_000);
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, (_, visit) => admit({ ...again, attemptKey: `${callKey}#0.${visit}.1.0` })),
    );
    expect(admitted(outcomes)).toBe(1);
    expect(outcomes.some((outcome) => outcome.kind === 'wait' && outcome.ms > 2_000)).toBe(true);
  });

  it('is worth nothing when it comes late: the call is admitted like any other, and the loss is counted', async () => {
    const { admit, admitAll, keys, lost } = await busy();
    await admit({ callKey });
    await letPass(test.redis, keys, 1_000 + 5_000 + 100);
    await admitAll(6);
    expect(waitOf(await admit(again)).isBooked).toBe(true);
    expect(lost).toEqual([1]);
  });

  it('is good for a whole burst after its time', async () => {
    const { admit, keys } = await busy();
    await admit({ callKey });
    await letPass(test.redis, keys, 1_000 + 4_500);
    expect(await admit(again)).toEqual({ kind: 'admitted' });
  });

  it('is not missed where the call was told of one that is not there', async () => {
    const { admit } = await busy();
    expect(waitOf(await admit({ ...again, callKey: 'unknown' })).isBooked).toBe(true);
  });

  it('is kept by a block that comes between, and not given before that is over', async () => {
    const { admit, keys, provider, rates } = await busy();
    await admit({ callKey });
    await letPass(test.redis, keys, 1_000);
    await rates.cool(provider, 3_000);
    const wait = waitOf(await admit(again));
    expect(wait).toMatchObject({ dimension: 'cooldown', isBooked: true });
    expect(wait.ms).toBeGreaterThan(2_000);
    await letPass(test.redis, keys, 3_000);
    expect(await admit(again)).toEqual({ kind: 'admitted' });
  });

  it('waits for its turn among parallel requests, which nobody can book', async () => {
    const rules = { provider: () => ({ rpm: 60, maxParallel: 5 }) };
    const { admit, keys } = await busy({ rules });
    await admit({ callKey });
    await letPass(test.redis, keys, 1_000);
    const wait = waitOf(await admit(again));
    expect(wait).toMatchObject({ dimension: 'maxParallel', isBooked: true });
    expect(wait.ms).toBeLessThanOrEqual(750);
  });
});

describe('the clock of a worker', () => {
  it('changes nothing, ten minutes ahead or behind', async () => {
    const { admit, keys } = await busy();
    const nowMs = Date.now();
    vi.useFakeTimers({ toFake: ['Date'] });
    try {
      vi.setSystemTime(nowMs + 600_000);
      const wait = waitOf(await admit({ callKey }));
      expect(wait.isBooked).toBe(true);
      expect(wait.ms).toBeLessThanOrEqual(1_000);
      vi.setSystemTime(nowMs - 600_000);
      expect(waitOf(await admit(again)).ms).toBeLessThanOrEqual(wait.ms);
      await letPass(test.redis, keys, 1_000);
      expect(await admit(again)).toEqual({ kind: 'admitted' });
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('overdue places', () => {
  it('do not burst: of a hundred, five minutes late, no more are admitted than a bucket holds', async () => {
    const { admit, keys, lost } = await busy({
      rules: { provider: () => ({ rpm: 60 }) },
      classes: { ...DEFAULT_RATE_CLASSES, horizonMs: { ...DEFAULT_RATE_CLASSES.horizonMs, normal: 120_000 } },
    });
    const calls = Array.from({ length: 100 }, (_, n) => `late-${n}`);
    const booked = await Promise.all(calls.map((late) => admit({ callKey: late })));
    expect(booked.every((outcome) => outcome.kind === 'wait' && outcome.isBooked)).toBe(true);
    await letPass(test.redis, keys, 300_000);
    const late = await Promise.all(
      calls.map((one) => admit({ callKey: one, attemptKey: `${one}#0.2.1.0`, isBooked: true })),
    );
    expect(admitted(late)).toBe(5);
    expect(lost.reduce((sum, count) => sum + count, 0)).toBe(100);
  });
});

describe('unbook', () => {
  it('gives the last place of the line back', async () => {
    const { admit, debtMs, rates, request, lost } = await busy();
    const debt = await debtMs('rpm');
    await admit({ callKey });
    expect(await debtMs('rpm')).toBeGreaterThan(debt + 500);
    await rates.unbook(request({ callKey }));
    expect(await debtMs('rpm')).toBeLessThanOrEqual(debt);
    await rates.unbook(request({ callKey }));
    expect(await debtMs('rpm')).toBeGreaterThan(debt - 500);
    expect(lost).toEqual([]);
  });

  it('leaves a place empty that others have lined up behind, and counts it as lost', async () => {
    const { admit, admitAll, debtMs, rates, request, lost } = await busy();
    await admit({ callKey });
    await admitAll(2);
    const debt = await debtMs('rpm');
    await rates.unbook(request({ callKey }));
    expect(await debtMs('rpm')).toBeGreaterThan(debt - 500);
    expect(lost).toEqual([1]);
  });
});

describe('delay', () => {
  it('books what is long and takes nothing of what is free', async () => {
    const stage = stageRates(test.redis, { provider: () => ({ rpm: 60 }) });
    for (let n = 0; n < 20; n += 1) expect(await stage.rates.delay(stage.request())).toBeUndefined();
    expect(admitted(await stage.admitAll(5))).toBe(5);
    const wait = await stage.rates.delay(stage.request({ callKey }));
    expect(wait).toMatchObject({ kind: 'wait', bucket: 'provider', dimension: 'rpm', isBooked: true });
    await letPass(test.redis, stage.keys, 1_000);
    expect(await stage.admit(again)).toEqual({ kind: 'admitted' });
  });

  it('leaves short waits to the call, and books none of them', async () => {
    const { rates, request, debtMs, admitAll } = stageRates(test.redis, { provider: () => ({ rpm: 600 }) });
    await admitAll(50);
    const debt = await debtMs('rpm');
    expect(await rates.delay(request())).toBeUndefined();
    expect(await debtMs('rpm')).toBeLessThanOrEqual(debt);
  });
});
