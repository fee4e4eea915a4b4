// Counters that say something else than Postgres are found, told and rebuilt; counters that are only behind for a moment are not, and
// neither are those of a tenant that is never still.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createDriftCheck } from '../../src/stores/drift.ts';
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
import { changeCounters } from '../support/scope-counters.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const DIME = NANO / 10n;
let test: TestStores;
let n = 0;

beforeAll(async () => {
  test = await openTestStores();
});
afterAll(() => test[Symbol.asyncDispose]());
beforeEach(() => {
  n += 1;
});

function check(
  pause: () => Promise<void> = () => Promise.resolve(),
  postgres: Parameters<typeof createDriftCheck>[1] = test.postgres,
) {
  return createDriftCheck(test.redis, postgres, {
    gate: test.stores.ledger.gate,
    pause,
    lookEveryMs: 1,
  });
}

function holdOf(name: string, call = 0): HoldOptions {
  const payer = payerOf(name);
  return {
    attemptKey: `task-${name}:run:answer:${call}#0.1.1.0`,
    payer,
    estimate: estimateOf(DIME),
    limits: [limitOn(payer, 'user', 5n * NANO), limitOn(payer, 'task', 5n * NANO)],
  };
}

/** A call that was held, made durable and sent. */
async function sent(options: HoldOptions) {
  const held = await holdOnce(test.stores, options);
  if (held.kind !== 'ok') throw new Error(held.kind);
  const attempt = attemptOf(options, held.heldAtMs);
  await test.stores.ledger.intent(attempt, undefined);
  return attempt;
}

const CHARGE = { usage: { ...NO_USAGE, inputTokens: 7 }, nanoUsd: DIME / 2n, source: 'measured' } as const;
const RELEASED = { nanoUsd: CHARGE.nanoUsd, tokens: 7 };

/** Goes round the whole keyspace once. */
async function passes(of: ReturnType<typeof check>, times: number) {
  const reports = [];
  for (let pass = 0; pass < times; pass += 1) reports.push(await of.pass());
  return reports.flatMap((report) => report.drifts);
}

describe('a drift check', () => {
  it('finds nothing while calls are held, sent and settled', async () => {
    const options = holdOf(`calm-${n}`);
    const attempt = await sent(options);
    const checking = check();
    expect(await passes(checking, 4)).toEqual([]);
    await test.stores.ledger.settle(attempt, { outcome: 'ok', charge: CHARGE }, undefined);
    await test.stores.redisGate.release(attempt, 'settled', RELEASED);
    expect(await passes(checking, 4)).toEqual([]);
  });

  it('finds nothing at the first look while calls begin, end and are released at every moment', async () => {
    const looked = () => Promise.reject(new Error('one look is enough'));
    const waiting = await sent(holdOf(`busy-${n}`));
    await test.stores.ledger.settle(waiting, { outcome: 'ok', charge: CHARGE }, undefined);
    let calls = 0;
    // Between what Redis says and what Postgres says one call ends, and another is made, from its hold to its release.
    const checking = check(looked, {
      transaction: async (work) => {
        calls += 1;
        const attempt = await sent(holdOf(`busy-${n}`, calls));
        await test.stores.ledger.settle(attempt, { outcome: 'ok', charge: CHARGE }, undefined);
        await test.stores.redisGate.release(attempt, 'settled', RELEASED);
        return test.postgres.transaction(work);
      },
    });
    expect(await passes(checking, 4)).toEqual([]);
    expect(calls).toBeGreaterThan(0);
    await test.stores.redisGate.release(waiting, 'settled', RELEASED);
    expect(await passes(checking, 4)).toEqual([]);
  });

  it('does not call an adjustment drift that reaches Redis between two looks', async () => {
    const options = holdOf(`late-${n}`);
    const attempt = await sent(options);
    const { ledger, redisGate } = test.stores;
    await ledger.settle(attempt, { outcome: 'ok', charge: CHARGE }, undefined);
    await redisGate.release(attempt, 'settled', RELEASED);
    const scopeVersions = await redisGate.scopeVersions(options.payer, 1n);
    await ledger.adjustLate(attempt, { ...CHARGE, nanoUsd: CHARGE.nanoUsd + 3n });
    let looks = 0;
    const checking = check(async () => {
      looks += 1;
      const change = { adjustKey: 'late', nanoUsd: 3n, tokens: 0, scopeVersions };
      if (looks === 3) await redisGate.adjust(attempt, 1n, change);
    });
    expect(await passes(checking, 4)).toEqual([]);
    expect(looks).toBeGreaterThanOrEqual(3);
  });

  it('tells by how much a counter is off, and the scope is rebuilt by its next hold', async () => {
    const options = holdOf(`off-${n}`);
    const attempt = await sent(options);
    const key = budgetKeys(test.prefix, options.payer.tenantId).scope('user', options.payer.userId);
    await changeCounters(test.redis, key, { interval: 'all', settledUsd: '3', heldTokens: '-1' });
    const checking = check();
    const drifts = await passes(checking, 4);
    expect(drifts).toEqual([
      {
        tenantId: options.payer.tenantId,
        scope: { kind: 'user', id: options.payer.userId },
        interval: 'all',
        settledNanoUsd: 3n,
        settledTokens: 0n,
        heldNanoUsd: 0n,
        heldTokens: -1n,
      },
    ]);
    await test.stores.redisGate.release(attempt, 'void', { nanoUsd: 0n, tokens: 0 });
    await test.stores.ledger.resolve(attempt, {
      to: 'voided',
      outcome: 'lost',
      charge: { usage: NO_USAGE, nanoUsd: 0n, source: 'none' },
    });
    const again = await holdOnce(test.stores, {
      ...options,
      attemptKey: `${options.attemptKey.slice(0, -1)}1`,
    });
    expect(again).toMatchObject({
      kind: 'ok',
      uses: [
        { settled: 0n, held: 0n },
        { settled: 0n, held: 0n },
      ],
    });
    expect(await passes(checking, 4)).toEqual([]);
  });
});
