import { describe, expect, it } from 'vitest';
import { budgetKeys } from '../../src/stores/keys.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import {
  attemptOf,
  estimateOf,
  type HoldOptions,
  holdOnce,
  limitOn,
  NANO,
  payerOf,
} from '../support/holds.ts';
import { openTestStores } from '../support/stores.ts';

const DIME = NANO / 10n;

function options(n: number, overrides: Partial<HoldOptions> = {}): HoldOptions {
  const payer = payerOf('a');
  return {
    attemptKey: `task-a:run:answer:${n}#0.1.1.0`,
    payer,
    estimate: estimateOf(DIME),
    limits: [limitOn(payer, 'user', 5n * NANO)],
    ...overrides,
  };
}

describe('hold', () => {
  it('admits exactly fifty of two hundred concurrent dimes on five dollars', async () => {
    await using test = await openTestStores();
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, n) => holdOnce(test.stores, options(n))),
    );
    expect(answers.filter((answer) => answer.kind === 'ok')).toHaveLength(50);
    expect(answers.filter((answer) => answer.kind === 'crowded')).toHaveLength(150);
  });

  it('holds every limit or none', async () => {
    await using test = await openTestStores();
    const payer = payerOf('a');
    const limits = [limitOn(payer, 'user', 5n * NANO), limitOn(payer, 'task', 10n, 'tokens')];
    const refused = await holdOnce(test.stores, options(1, { limits }));
    expect(refused).toMatchObject({ kind: 'refused', limit: { unit: 'tokens' }, settled: 0n });
    const whole = await holdOnce(test.stores, options(2, { estimate: estimateOf(5n * NANO) }));
    expect(whole.kind).toBe('ok');
  });

  it('answers a repeated command of one attempt with the same hold', async () => {
    await using test = await openTestStores();
    const first = await holdOnce(test.stores, options(1));
    expect(await holdOnce(test.stores, options(1))).toEqual({ ...first, uses: [] });
    const rest = await holdOnce(test.stores, options(2, { estimate: estimateOf(5n * NANO - DIME) }));
    expect(rest.kind).toBe('ok');
  });

  it('refuses the first call on a limit of zero, also when it costs nothing', async () => {
    await using test = await openTestStores();
    const limits = [limitOn(payerOf('a'), 'user', 0n)];
    expect((await holdOnce(test.stores, options(1, { limits, estimate: estimateOf(0n) }))).kind).toBe(
      'refused',
    );
  });

  it('lets a newer attempt take over the hold of one that was not sent', async () => {
    await using test = await openTestStores();
    const limits = [limitOn(payerOf('a'), 'user', DIME)];
    const older = options(1, { limits });
    const newer = options(1, { limits, attemptKey: 'task-a:run:answer:1#0.1.2.0' });
    expect((await holdOnce(test.stores, older)).kind).toBe('ok');
    expect((await holdOnce(test.stores, newer)).kind).toBe('ok');
    expect(await test.stores.redisGate.markSent(older, 1n)).toBe(false);
    expect(await test.stores.redisGate.markSent(newer, 1n)).toBe(true);
    expect((await holdOnce(test.stores, older)).kind).toBe('done');
  });

  it('keeps the hold of an older attempt that was sent', async () => {
    await using test = await openTestStores();
    const limits = [limitOn(payerOf('a'), 'user', DIME)];
    const older = options(1, { limits });
    await holdOnce(test.stores, older);
    await test.stores.redisGate.markSent(older, 1n);
    const newer = await holdOnce(
      test.stores,
      options(1, { limits, attemptKey: 'task-a:run:answer:1#0.1.2.0' }),
    );
    expect(newer.kind).toBe('crowded');
  });
});

describe('release', () => {
  it('moves what was charged to settled, once', async () => {
    await using test = await openTestStores();
    const limits = [limitOn(payerOf('a'), 'user', 5n * NANO)];
    const held = options(1, { limits, estimate: estimateOf(3n * NANO) });
    await holdOnce(test.stores, held);
    for (const _ of [1, 2])
      await test.stores.redisGate.release(held, 'settled', { nanoUsd: 2n * NANO, tokens: 70 });
    const rest = await holdOnce(test.stores, options(2, { limits, estimate: estimateOf(3n * NANO + 1n) }));
    expect(rest).toMatchObject({ kind: 'refused', settled: 2n * NANO, held: 0n });
    expect((await holdOnce(test.stores, options(3, { limits, estimate: estimateOf(3n * NANO) }))).kind).toBe(
      'ok',
    );
  });

  it('counts what costs nothing without an error', async () => {
    await using test = await openTestStores();
    const held = options(1, { estimate: estimateOf(0n, 0) });
    await holdOnce(test.stores, held);
    await test.stores.redisGate.release(held, 'void', { nanoUsd: 0n, tokens: 0 });
    expect((await holdOnce(test.stores, options(2, { estimate: estimateOf(5n * NANO) }))).kind).toBe('ok');
  });
});

describe('take', () => {
  it('takes an unsent hold only after its lease', async () => {
    await using test = await openTestStores({ leaseMs: 150 });
    const held = options(1);
    await holdOnce(test.stores, held);
    expect((await test.stores.redisGate.take(held)).kind).toBe('live');
    await expect.poll(() => test.stores.redisGate.take(held)).toEqual({ kind: 'taken' });
    expect(await test.stores.redisGate.markSent(held, 1n)).toBe(false);
    expect(await test.stores.redisGate.take(held)).toEqual({ kind: 'done', marker: 'void' });
  });

  it('tells what a sent attempt had seen and leaves its hold', async () => {
    await using test = await openTestStores({ leaseMs: 150 });
    const held = options(1);
    await holdOnce(test.stores, held);
    await test.stores.redisGate.markSent(held, 1n);
    await test.stores.redisGate.renew(held, 42);
    await expect.poll(() => test.stores.redisGate.take(held)).toEqual({ kind: 'sent', outputTokensSeen: 42 });
  });
});

describe('hydrate', () => {
  it('rebuilds settled sums and open holds after Redis was emptied', async () => {
    await using test = await openTestStores();
    const { stores } = test;
    const limits = [limitOn(payerOf('a'), 'user', 5n * NANO)];
    const settled = options(1, { limits, estimate: estimateOf(2n * NANO) });
    const open = options(2, { limits, estimate: estimateOf(NANO) });
    for (const one of [settled, open]) {
      const held = await holdOnce(stores, one);
      if (held.kind !== 'ok') throw new Error(held.kind);
      expect(await stores.ledger.intent(attemptOf(one, held.heldAtMs), undefined)).toBe(true);
      await stores.redisGate.markSent(one, 1n);
      if (one !== settled) continue;
      const charge = { usage: NO_USAGE, nanoUsd: 2n * NANO, source: 'measured' } as const;
      expect(
        await stores.ledger.settle(attemptOf(one, held.heldAtMs), { outcome: 'ok', charge }, undefined),
      ).toBe('settled');
      await stores.redisGate.release(one, 'settled', { nanoUsd: 2n * NANO, tokens: 0 });
    }
    await test.redis.command(async (client) => {
      for await (const keys of client.scanStream({ match: `${test.prefix}:*` }))
        if (keys.length > 0) await client.del(...keys);
    });
    expect(
      await holdOnce(stores, options(3, { limits, estimate: estimateOf(2n * NANO + 1n) })),
    ).toMatchObject({
      kind: 'crowded',
      settled: 2n * NANO,
      held: NANO,
    });
    expect((await holdOnce(stores, options(4, { limits, estimate: estimateOf(2n * NANO) }))).kind).toBe('ok');
    // The rebuilt record says "maybe sent": its end is known from Postgres alone.
    await stores.redisGate.release(open, 'settled', { nanoUsd: NANO / 2n, tokens: 0 });
    expect((await holdOnce(stores, options(5, { limits, estimate: estimateOf(NANO / 2n) }))).kind).toBe('ok');
  });

  it('voids an attempt that was held before a rebuild that did not know it', async () => {
    await using test = await openTestStores();
    const { stores } = test;
    const held = options(1);
    await holdOnce(stores, held);
    const { scope } = budgetKeys(test.prefix, held.payer.tenantId);
    await test.redis.command((client) => client.del(scope('user', held.payer.userId)));
    await holdOnce(stores, options(2));
    expect(await stores.redisGate.markSent(held, 1n)).toBe(false);
  });

  it('starts again when a hold ended while Postgres was read', async () => {
    await using test = await openTestStores();
    const { stores } = test;
    const limits = [limitOn(payerOf('a'), 'user', 5n * NANO)];
    const rounds = Array.from({ length: 20 }, (_, n) => options(n, { limits, estimate: estimateOf(DIME) }));
    await Promise.all(
      rounds.map(async (one) => {
        const held = await holdOnce(stores, one);
        if (held.kind !== 'ok') throw new Error(held.kind);
        const attempt = attemptOf(one, held.heldAtMs);
        if (
          !(await stores.ledger.intent(attempt, undefined)) ||
          !(await stores.redisGate.markSent(one, 1n))
        ) {
          await stores.ledger.resolve(attempt, {
            to: 'voided',
            outcome: 'lost',
            charge: { usage: NO_USAGE, nanoUsd: 0n, source: 'none' },
          });
          return stores.redisGate.release(one, 'void', { nanoUsd: 0n, tokens: 0 });
        }
        const { scope } = budgetKeys(test.prefix, one.payer.tenantId);
        await test.redis.command((client) => client.hdel(scope('user', one.payer.userId), 'hydrated'));
        const charge = { usage: NO_USAGE, nanoUsd: DIME, source: 'measured' } as const;
        await stores.ledger.settle(attempt, { outcome: 'ok', charge }, undefined);
        await stores.redisGate.release(one, 'settled', { nanoUsd: DIME, tokens: 0 });
      }),
    );
    const spent = await stores.accounts.settled('tenant-a', { kind: 'user', id: 'user-a' });
    const probe = await holdOnce(stores, options(99, { limits, estimate: estimateOf(6n * NANO) }));
    expect(probe).toMatchObject({ kind: 'refused', settled: spent.nanoUsd, held: 0n });
  });
});
