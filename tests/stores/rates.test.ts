// One provider per test, so that all of them share a server and no clock.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RateLimit } from '../../src/stores/rate-rules.ts';
import { eventually } from '../support/eventually.ts';
import { admitted, NO_BOOKINGS, stageRates, waitOf } from '../support/rates.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const LEASE_MS = 500;

let test: TestStores;

/** Rates of a provider that nobody else uses, and that nothing is booked at. */
function limited(rate: RateLimit, leaseMs = 60_000) {
  const stage = stageRates(test.redis, { provider: () => rate }, { leaseMs, classes: NO_BOOKINGS });
  const { rates, provider, model, tenantId } = stage;
  const permit = (attemptKey: string) => ({ provider, model, tenantId, attemptKey });
  let attempts = 0;
  return {
    rates,
    permit,
    keys: stage.keys,
    debtMs: stage.debtMs,
    admit: (input = 1, attemptKey = `attempt-${++attempts}`) =>
      stage.admit({ callKey: attemptKey, attemptKey, tokens: { input, output: 0 } }),
    giveBack: (attemptKey: string, input: number, isSent = true) =>
      rates.giveBack(permit(attemptKey), { input, output: 0, isSent }),
    cool: (ms: number) => rates.cool(provider, ms),
  };
}

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

describe('requests per minute', () => {
  it('admits a burst of five seconds and then tells the exact wait', async () => {
    const { admit } = limited({ rpm: 60 });
    const burst = await Promise.all(Array.from({ length: 8 }, () => admit()));
    expect(admitted(burst)).toBe(5);
    const waits = burst.flatMap((outcome) => (outcome.kind === 'wait' ? [outcome] : []));
    for (const wait of waits) {
      expect(wait.dimension).toBe('rpm');
      // One a second: the sixth may come a second after the first, less what has passed.
      expect(wait.ms).toBeGreaterThan(500);
      expect(wait.ms).toBeLessThanOrEqual(1_000);
    }
  });

  it('admits once the told time is over, and not before', async () => {
    const { admit } = limited({ rpm: 120 });
    expect(admitted(await Promise.all(Array.from({ length: 12 }, () => admit())))).toBe(10);
    const refused = performance.now();
    const { ms } = waitOf(await admit());
    expect(ms).toBeLessThanOrEqual(500);
    await eventually(async () => expect((await admit()).kind).toBe('admitted'), 2_000);
    expect(performance.now() - refused).toBeGreaterThanOrEqual(ms - 1);
  });

  it('admits one request at a time where the burst is less than one', async () => {
    const { admit } = limited({ rpm: 1 });
    expect((await admit()).kind).toBe('admitted');
    const { ms } = waitOf(await admit());
    expect(ms).toBeGreaterThan(59_000);
    expect(ms).toBeLessThanOrEqual(60_000);
  });

  it('does not bind where there is no limit', async () => {
    const { admit } = limited({});
    expect(admitted(await Promise.all(Array.from({ length: 200 }, () => admit(1e9))))).toBe(200);
  });
});

describe('tokens per minute', () => {
  it('admits exactly two of five concurrent requests of 50 tokens at 100 a minute', async () => {
    const { admit } = limited({ tpm: 100 });
    const outcomes = await Promise.all(Array.from({ length: 5 }, () => admit(50)));
    expect(admitted(outcomes)).toBe(2);
    for (const outcome of outcomes)
      if (outcome.kind === 'wait') {
        expect(outcome.dimension).toBe('tpm');
        expect(outcome.ms).toBeGreaterThan(29_000);
        expect(outcome.ms).toBeLessThanOrEqual(30_000);
      }
  });

  it('takes nothing for a request that it refuses, in any dimension', async () => {
    const { admit, debtMs } = limited({ rpm: 600, tpm: 100 });
    await admit(60);
    const before = [await debtMs('rpm'), await debtMs('tpm')];
    for (let n = 0; n < 20; n += 1) expect(waitOf(await admit(50)).dimension).toBe('tpm');
    const after = [await debtMs('rpm'), await debtMs('tpm')];
    expect(after[0]).toBeLessThanOrEqual(before[0] ?? 0);
    expect(after[1]).toBeLessThanOrEqual(before[1] ?? 0);
    expect((await admit(40)).kind).toBe('admitted');
  });

  it('admits a request larger than the whole minute alone, from a full bucket, and has it paid off', async () => {
    const { admit, debtMs } = limited({ tpm: 100 });
    expect((await admit(250)).kind).toBe('admitted');
    expect(await debtMs('tpm')).toBeGreaterThan(149_000);
    const next = waitOf(await admit(50));
    expect(next.ms).toBeGreaterThan(119_000);
    expect(next.ms).toBeLessThanOrEqual(120_000);
    expect(waitOf(await admit(1_000)).ms).toBeGreaterThan(149_000);
  });

  it('lets no large request through a bucket that is not full', async () => {
    const { admit } = limited({ tpm: 100 });
    await admit(10);
    const { ms } = waitOf(await admit(250));
    expect(ms).toBeGreaterThan(5_000);
    expect(ms).toBeLessThanOrEqual(6_000);
  });

  it('corrects what was booked both ways', async () => {
    const { admit, giveBack, debtMs } = limited({ tpm: 6_000 });
    await admit(1_000, 'less');
    await admit(1_000, 'more');
    expect(await debtMs('tpm')).toBeGreaterThan(19_000);
    await giveBack('less', 0);
    expect(await debtMs('tpm')).toBeLessThanOrEqual(10_000);
    await giveBack('more', 5_000);
    expect(await debtMs('tpm')).toBeGreaterThan(49_000);
    expect(await debtMs('tpm')).toBeLessThanOrEqual(50_000);
  });
});

describe('a permit', () => {
  it('is the same for every repetition of its attempt, also at once', async () => {
    const { admit, debtMs } = limited({ rpm: 1, tpm: 60_000, maxParallel: 1 });
    const outcomes = await Promise.all(Array.from({ length: 10 }, () => admit(1_000, 'same')));
    expect(admitted(outcomes)).toBe(10);
    expect(await debtMs('tpm')).toBeLessThanOrEqual(1_000);
    expect((await admit(1, 'other')).kind).toBe('wait');
  });

  it('is given back once, however often somebody tries', async () => {
    const { admit, giveBack, debtMs } = limited({ tpm: 6_000 });
    await admit(1_000, 'one');
    await admit(1_000, 'two');
    await Promise.all(Array.from({ length: 5 }, () => giveBack('one', 0)));
    const debt = await debtMs('tpm');
    expect(debt).toBeGreaterThan(9_000);
    expect(debt).toBeLessThanOrEqual(10_000);
    await giveBack('unknown', 0);
    expect(await debtMs('tpm')).toBeGreaterThan(9_000);
  });

  it('gives its place in the minute back when it was never sent, not when it was', async () => {
    const { admit, giveBack } = limited({ rpm: 1 });
    await admit(1, 'unsent');
    await giveBack('unsent', 0, false);
    expect((await admit(1, 'sent')).kind).toBe('admitted');
    await giveBack('sent', 0, true);
    expect(waitOf(await admit()).dimension).toBe('rpm');
  });
});

describe('parallel requests', () => {
  it('are bounded, and the wait is jittered', async () => {
    const { admit, giveBack } = limited({ maxParallel: 2 });
    const outcomes = await Promise.all(Array.from({ length: 20 }, (_, n) => admit(1, `a${n}`)));
    expect(admitted(outcomes)).toBe(2);
    const waits = outcomes.flatMap((outcome) => (outcome.kind === 'wait' ? [outcome] : []));
    expect(new Set(waits.map((wait) => wait.ms)).size).toBeGreaterThan(5);
    for (const wait of waits) {
      expect(wait.dimension).toBe('maxParallel');
      expect(Number.isInteger(wait.ms) && wait.ms >= 250 && wait.ms <= 750).toBe(true);
    }
    const held = outcomes.findIndex((outcome) => outcome.kind === 'admitted');
    await giveBack(`a${held}`, 1);
    expect((await admit()).kind).toBe('admitted');
    expect((await admit()).kind).toBe('wait');
  });

  it('come back when the lease of a lost one is over, unless it is renewed', async () => {
    const { admit, rates, permit } = limited({ maxParallel: 1 }, LEASE_MS);
    await admit(1, 'first');
    const renewing = setInterval(() => void rates.renew(permit('first')), LEASE_MS / 6);
    try {
      const giveUpAt = performance.now() + 2 * LEASE_MS;
      while (performance.now() < giveUpAt) expect((await admit(1, 'second')).kind).toBe('wait');
    } finally {
      clearInterval(renewing);
    }
    await eventually(async () => expect((await admit(1, 'second')).kind).toBe('admitted'), 5_000);
    // What is gone is not revived by a renewal that comes late.
    await rates.renew(permit('first'));
    expect((await admit(1, 'third')).kind).toBe('wait');
    await rates.giveBack(permit('second'), { input: 1, output: 0, isSent: true });
    expect((await admit(1, 'third')).kind).toBe('admitted');
  });
});

describe('permits of requests that never came back', () => {
  it('are forgotten with their lease, and no others', async () => {
    const { admit, keys } = limited({ rpm: 60_000 }, LEASE_MS);
    const kept = async () => {
      const fields = await test.redis.command((client) => client.hkeys(keys.outer));
      return fields.filter((field) => field.startsWith('p:')).sort();
    };
    const lost = Array.from({ length: 300 }, (_, n) => `lost-${n}`);
    await Promise.all(lost.map((key) => admit(1, key)));
    expect(await kept()).toEqual(lost.map((key) => `p:${key}`).sort());
    // A look comes with an admission, at most once a second, and sees a part of them.
    await eventually(async () => {
      await admit();
      expect((await kept()).filter((field) => field.startsWith('p:lost'))).toEqual([]);
    });
    await admit(1, 'fresh');
    expect(await kept()).toContain('p:fresh');
  });
});

describe('cool', () => {
  it('blocks everybody until the hint, and no shorter hint shortens it', async () => {
    const { admit, cool } = limited({});
    await cool(60_000);
    await cool(10);
    const { ms, dimension } = waitOf(await admit());
    expect(dimension).toBe('cooldown');
    expect(ms).toBeGreaterThan(59_000);
    expect(ms).toBeLessThanOrEqual(60_000);
    await cool(120_000);
    expect(waitOf(await admit()).ms).toBeGreaterThan(119_000);
  });

  it('ends by itself', async () => {
    const { admit, cool } = limited({});
    await cool(400.4);
    expect((await admit()).kind).toBe('wait');
    await eventually(async () => expect((await admit()).kind).toBe('admitted'), 2_000);
  });

  it('names the limit that is longest in the way', async () => {
    const { admit, cool } = limited({ rpm: 1 });
    await admit();
    await cool(1_000);
    expect(waitOf(await admit()).dimension).toBe('rpm');
    await cool(120_000);
    expect(waitOf(await admit()).dimension).toBe('cooldown');
  });

  it('does not touch a permit that was given before', async () => {
    const { admit, cool } = limited({});
    await admit(1, 'running');
    await cool(60_000);
    expect((await admit(1, 'running')).kind).toBe('admitted');
  });
});
