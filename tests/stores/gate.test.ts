// What only the gate in Redis does. What it has in common with the one in Postgres: gate-conformance.test.ts.

import { describe, expect, it } from 'vitest';
import { budgetKeys } from '../../src/stores/keys.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { eventually } from '../support/eventually.ts';
import {
  attemptOf,
  estimateOf,
  type HoldOptions,
  holdOnce,
  limitOn,
  NANO,
  payerOf,
} from '../support/holds.ts';
import { changeCounters, changeRecord, readCounters } from '../support/scope-counters.ts';
import { openTestStores, storesOn } from '../support/stores.ts';

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

  it('marks nothing that another server process held, also where no scope has a limit', async () => {
    await using test = await openTestStores();
    const { stores } = test;
    const held = options(1, { limits: [] });
    await holdOnce(stores, held);
    const { holds } = budgetKeys(test.prefix, held.payer.tenantId);
    // As a snapshot has it that was taken before somebody took the hold away.
    await changeRecord(test.redis, holds, held.attemptKey, { hydrated: '1:another-server' });
    expect(await stores.redisGate.markSent(held, 1n)).toBe(false);
    await changeRecord(test.redis, holds, held.attemptKey, { hydrated: `1:${await test.redis.runId()}` });
    expect(await stores.redisGate.markSent(held, 1n)).toBe(true);
  });

  it('counts right what ended while Postgres was read', async () => {
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
        await changeCounters(test.redis, scope('user', one.payer.userId), { hydrated: '' });
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

describe('expiredLeases', () => {
  it('finds every hold that nobody marked, also of more than it looks at in one go', async () => {
    await using test = await openTestStores();
    const short = storesOn(test, { leaseMs: 20 });
    const keys = Array.from({ length: 2_500 }, (_, n) => options(n, { limits: [] }));
    for (const one of keys) await holdOnce(short, one);
    const found = new Set<string>();
    await eventually(async () => {
      const tenantId = keys[0]?.payer.tenantId ?? '';
      for (const key of await short.redisGate.expiredLeases(tenantId, 5_000)) found.add(key);
      expect(found).toEqual(new Set(keys.map(({ attemptKey }) => attemptKey)));
    });
  });
});

describe('hold', () => {
  it('leaves no counter behind where an older attempt cannot be counted down', async () => {
    await using test = await openTestStores();
    const { stores } = test;
    const limits = [limitOn(payerOf('a'), 'user', 10_000n, 'tokens')];
    await holdOnce(stores, options(1, { limits }));
    const { scope } = budgetKeys(test.prefix, 'tenant-a');
    const key = scope('user', 'user-a');
    await changeCounters(test.redis, key, { interval: 'all', heldUsd: '=inf' });
    const newer = options(1, { limits, attemptKey: 'task-a:run:answer:1#0.1.2.0' });
    expect((await holdOnce(stores, newer)).kind).toBe('ok');
    expect(await test.redis.command((client) => client.exists(key))).toBe(0);
    // Its next caller has it rebuilt.
    expect((await holdOnce(stores, options(2, { limits }))).kind).toBe('ok');
    expect(await readCounters(test.redis, key)).toMatchObject({ 'all:usd:settled': '0' });
  });
});
