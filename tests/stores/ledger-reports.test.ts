// What the ledger tells afterwards: late adjustments, failures, medians, open attempts; and where its rows lie.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NO_USAGE } from '../../src/task/usage.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { ANSWER, CHARGE, ESTIMATE, ledgerStage, NOTHING } from './ledger-stage.ts';

let test: TestStores;
const { started, besides, bookedFor, rowsOf } = ledgerStage(() => test);

beforeAll(async () => {
  test = await openTestStores();
  await test.stores.ledger.gate('acme');
});

afterAll(() => test[Symbol.asyncDispose]());

describe('adjustLate', () => {
  it('books the difference between estimate and truth, once, and makes the sum exact', async () => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, { to: 'estimated', outcome: 'lost', charge: ESTIMATE });
    const difference = {
      source: 'measured',
      nanoUsd: 300n,
      usage: { ...NO_USAGE, inputTokens: -10, cacheReadTokens: 5, outputTokens: -43, reasoningTokens: 2 },
    };
    const answers = await Promise.all([1, 2, 3].map(() => test.stores.ledger.adjustLate(attempt, CHARGE)));
    expect(answers.filter((answer) => answer !== undefined)).toEqual([difference]);
    expect(await test.stores.ledger.adjustLate(attempt, CHARGE)).toBeUndefined();
    expect(await bookedFor(attempt)).toBe(CHARGE.nanoUsd);
    // What the attempt was booked at when it ended: the adjustment reaches Redis by itself.
    expect((await test.stores.ledger.charged(attempt)).nanoUsd).toBe(ESTIMATE.nanoUsd);
    expect(await rowsOf(attempt)).toMatchObject([
      { kind: 'estimate' },
      { kind: 'adjust', adjustKey: 'late', billable: false, nano: 300n },
    ]);
  });

  it('books the whole of an attempt that had been voided', async () => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, { to: 'voided', outcome: 'lost', charge: NOTHING });
    expect(await test.stores.ledger.adjustLate(attempt, CHARGE)).toEqual(CHARGE);
    expect(await bookedFor(attempt)).toBe(1_000n);
  });

  it('takes back what an estimate had too much', async () => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, {
      to: 'estimated',
      outcome: 'lost',
      charge: { ...ESTIMATE, nanoUsd: 5_000n },
    });
    expect((await test.stores.ledger.adjustLate(attempt, CHARGE))?.nanoUsd).toBe(-4_000n);
    expect(await bookedFor(attempt)).toBe(1_000n);
  });

  it('is listed for a while, with who pays, until it must have reached Redis', async () => {
    const attempt = await started();
    await test.stores.ledger.resolve(attempt, { to: 'voided', outcome: 'lost', charge: NOTHING });
    await test.stores.ledger.adjustLate(attempt, CHARGE);
    const mine = async (minAgeMs: number, maxAgeMs: number) =>
      (await test.stores.ledger.recentAdjustments(minAgeMs, maxAgeMs)).filter(
        (one) => one.attemptKey === attempt.attemptKey,
      );
    expect(await mine(0, 60_000)).toEqual([
      {
        attemptKey: attempt.attemptKey,
        adjustKey: 'late',
        heldAt: attempt.heldAt,
        payer: { ...attempt.payer, shareId: undefined },
      },
    ]);
    expect(await mine(60_000, 120_000)).toEqual([]);
    await test.postgres.query(
      "update ledger set created_at = now() - interval '90 seconds' where attempt_key = $1",
      [attempt.attemptKey],
    );
    expect(await mine(60_000, 120_000)).toHaveLength(1);
    expect(await mine(0, 60_000)).toEqual([]);
  });
});

describe('failures', () => {
  it('counts per candidate what failed at the provider and what it throttled, nothing else', async () => {
    const call = 'task:run:answer:failures';
    const end = async (
      n: string,
      candidate: number,
      outcome: 'ok' | 'failed' | 'throttled' | 'cancelled' | 'lost',
    ) => {
      const attempt = await started({ call, n, candidate });
      await test.stores.ledger.settle(attempt, { outcome, charge: NOTHING }, undefined);
    };
    expect(await test.stores.ledger.failures(call)).toEqual([]);
    await end('0.1.1.0', 0, 'failed');
    await end('0.1.2.0', 0, 'failed');
    await end('0.2.1.0', 0, 'throttled');
    await end('0.3.1.0', 0, 'lost');
    await end('1.4.1.0', 1, 'cancelled');
    const lost = await started({ call, n: '1.4.2.0', candidate: 1 });
    await test.stores.ledger.resolve(lost, { to: 'estimated', outcome: 'failed', charge: ESTIMATE });
    await started({ call, n: '1.4.3.0', candidate: 1 });
    const counts = await test.stores.ledger.failures(call);
    expect([...counts].sort((left, right) => left.candidate - right.candidate)).toEqual([
      { candidate: 0, failed: 2, throttled: 1 },
      { candidate: 1, failed: 1, throttled: 0 },
    ]);
  });
});

describe('medianOutputTokens', () => {
  it('is nothing before the first answer and the middle of the last two hundred after', async () => {
    const model = 'simulated/median';
    expect(await test.stores.ledger.medianOutputTokens(model)).toBeUndefined();
    const answer = async (outputTokens: number) => {
      const attempt = await started({ model });
      const charge = { ...CHARGE, usage: { ...NO_USAGE, outputTokens } };
      await test.stores.ledger.settle(attempt, { outcome: 'ok', charge, result: ANSWER }, undefined);
    };
    for (const tokens of [10, 1_000, 30]) await answer(tokens);
    expect(await test.stores.ledger.medianOutputTokens(model)).toBe(30);
    await test.postgres.query(
      `insert into call_results (call_key, tenant_id, attempt_key, status, model, text, finish_reason, usage, cost_nano_usd)
       select 'median:' || n, 'acme', 'a', 'completed', $1, '', 'stop', '{"outputTokens": 7}', 0 from generate_series(1, 200) as n`,
      [model],
    );
    expect(await test.stores.ledger.medianOutputTokens(model)).toBe(7);
  });

  it('leaves out answers that a user cut short', async () => {
    const model = 'simulated/cut';
    const attempt = await started({ model });
    const charge = { ...CHARGE, usage: { ...NO_USAGE, outputTokens: 1 } };
    await test.stores.ledger.settle(
      attempt,
      { outcome: 'cancelled', charge, result: { ...ANSWER, status: 'cancelled' } },
      undefined,
    );
    expect(await test.stores.ledger.medianOutputTokens(model)).toBeUndefined();
  });
});

describe('open attempts', () => {
  it('are listed oldest first, of a call and of a tenant, and counted', async () => {
    const tenantId = 'open';
    await test.stores.ledger.gate(tenantId);
    const payer = { tenantId, userId: 'ada' };
    const before = await test.stores.ledger.openHolds();
    const now = Date.now();
    const newer = await started({
      payer,
      call: 'open:run:answer:1',
      n: '0.1.2.0',
      heldAt: new Date(now - 1_000),
    });
    const [older] = await besides(newer, ['0.1.1.0'], new Date(now - 60_000));
    const other = await started({ payer, call: 'open:run:answer:2', heldAt: new Date(now) });
    expect(await test.stores.ledger.startedOfCall('open:run:answer:1')).toEqual([older, newer]);
    expect(await test.stores.ledger.startedOfTenant(tenantId)).toEqual([older, newer, other]);
    const after = await test.stores.ledger.openHolds();
    expect(after.count - before.count).toBe(3);
    expect(after.oldestSeconds).toBeGreaterThanOrEqual(60);
    await test.stores.ledger.settle(other, { outcome: 'ok', charge: CHARGE, result: ANSWER }, undefined);
    expect(await test.stores.ledger.startedOfTenant(tenantId)).toEqual([older, newer]);
  });
});

describe('partitions', () => {
  it('exist from last month to three months ahead, and are made once when many make them', async () => {
    await Promise.all(Array.from({ length: 5 }, () => test.stores.ledger.ensurePartitions()));
    const { rows } = await test.postgres.query<{ name: string }>(
      `select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
       where p.relnamespace = $1::regnamespace order by 1`,
      [test.schema],
    );
    const months = Array.from({ length: 5 }, (_, ahead) => {
      const now = new Date();
      return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + ahead - 1, 1))
        .toISOString()
        .slice(0, 7)
        .replace('-', '_');
    });
    const names = rows.map((row) => row.name).filter((name) => /^(attempts|ledger)_\d{4}_\d\d$/.test(name));
    expect(names).toEqual(
      ['attempts', 'ledger'].flatMap((parent) => months.map((month) => `${parent}_${month}`)),
    );
  });

  it('take an attempt of the last millisecond of a month and the first of the next', async () => {
    const now = new Date();
    const next = Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1);
    for (const at of [next - 1, next]) {
      const attempt = await started({ heldAt: new Date(at) });
      await test.stores.ledger.settle(attempt, { outcome: 'ok', charge: CHARGE, result: ANSWER }, undefined);
      expect((await test.stores.ledger.charged(attempt)).nanoUsd).toBe(1_000n);
    }
  });
});
