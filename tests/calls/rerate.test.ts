// Re-rating: what was booked is brought to another price list by rows of its own, once per list, and the counters follow.

import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { CallDependencies, Catalog } from '../../src/calls/call.ts';
import { type RerateDependencies, type RerateRequest, rerate } from '../../src/calls/rerate.ts';
import { moveGate } from '../../src/stores/gates.ts';
import type { PriceEntry } from '../../src/task/price.ts';
import { NO_USAGE, type Usage } from '../../src/task/usage.ts';
import { addAttempt, addRows, makeMonth, type OldRow } from '../stores/old-months.ts';
import { callDependencies, PRICE } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { attemptOf, estimateOf } from '../support/holds.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

let test: TestStores;
let calls: CallDependencies;

beforeAll(async () => {
  test = await openTestStores();
  calls = callDependencies(test, createFakeModels([]));
  await makeMonth(test, '2025-01');
});

beforeEach(() => test.postgres.query('truncate ledger, attempts'));

afterAll(() => test[Symbol.asyncDispose]());

const MODEL = 'p/a';
const JANUARY: Pick<RerateRequest, 'from' | 'to' | 'dryRun' | 'limit'> = {
  from: new Date('2025-01-01T00:00:00Z'),
  to: new Date('2025-02-01T00:00:00Z'),
  dryRun: false,
  limit: 10_000,
};

/** Input at so many nano-USD a token, output at twice that. */
function priceOf(nano: bigint, validFromMs = 0): PriceEntry {
  const input = nano * 1_000_000n;
  const all = { input, cachedInput: input, cacheWrite5m: input, cacheWrite1h: input };
  return { ...all, validFromMs, output: 2n * input, above: [] };
}

function listOf(priceHash: string, prices: Readonly<Record<string, readonly PriceEntry[]>>): Catalog {
  return {
    priceHash,
    modelOf: (id) => {
      const known = prices[id];
      return known === undefined ? undefined : { maxOutputTokens: 1_000, prices: known };
    },
  };
}

function withList(catalog: Catalog, change: Partial<RerateDependencies> = {}): RerateDependencies {
  return { ...calls, rerateRows: test.stores.rerateRows, catalog, ...change };
}

/** Ten tokens in, five out: 20 at one nano-USD a token. */
const row = (n: number, change: Partial<OldRow> = {}): OldRow => ({
  at: `2025-01-0${n}T00:00:00Z`,
  attemptKey: `call${n}#0.1.1.0`,
  model: MODEL,
  tokens: [10, 0, 0, 0, 5, 1],
  nano: 20n,
  ...change,
});

async function book(...rows: readonly OldRow[]): Promise<void> {
  await addRows(test, rows);
  for (const one of rows.filter(({ kind }) => kind !== 'adjust'))
    await addAttempt(test, one, one.kind === 'estimate' ? 'estimated' : 'settled');
}

async function adjustments() {
  const { rows } = await test.postgres.query(
    `select attempt_key as key, adjust_key as adjust, cost_nano_usd as nano, billable, tokens, price_hash as hash, call_key as call
     from ledger where kind = 'adjust' and adjust_key <> 'late' order by held_at, adjust_key`,
  );
  return rows;
}

it('books the difference to the present prices as one row that is billable as its charge, and nothing twice', async () => {
  await book(
    row(1),
    row(2, { billable: false, kind: 'estimate', nano: 15n }),
    row(3, { nano: 60n }),
    row(4, { kind: 'void', nano: 0n, tokens: [0, 0, 0, 0, 0, 0], billable: false }),
  );
  const list = listOf('new', { [MODEL]: [priceOf(3n)] });
  expect(await rerate(withList(list), { ...JANUARY })).toEqual({
    priceHash: 'new',
    attempts: 3,
    adjusted: 2,
    differenceNanoUsd: 85n,
    models: new Map([[MODEL, { adjusted: 2, differenceNanoUsd: 85n }]]),
    unknown: new Map(),
    appliedBefore: 0,
    next: undefined,
  });
  const common = { adjust: 'rerate:new', tokens: 0n, hash: 'new' };
  const booked = [
    { ...common, key: 'call1#0.1.1.0', call: 'call1', nano: 40n, billable: true },
    { ...common, key: 'call2#0.1.1.0', call: 'call2', nano: 45n, billable: false },
  ];
  expect(await adjustments()).toEqual(booked);
  expect(await rerate(withList(list), { ...JANUARY })).toMatchObject({ attempts: 3, adjusted: 0 });
  expect(await adjustments()).toEqual(booked);
  const { total } = await test.stores.accounts.usage([], {}, 1);
  expect(total).toMatchObject({ calls: 3, attempts: 3, nanoUsd: 180n, billableNanoUsd: 120n });
  expect(total.usage).toMatchObject({ inputTokens: 30n, outputTokens: 15n });
});

it('prices all that an attempt used, late adjustments included, also of one that had been voided', async () => {
  const late = { kind: 'adjust', adjustKey: 'late', billable: false } as const;
  await book(
    row(1, { kind: 'estimate' }),
    row(1, { ...late, tokens: [-4, 0, 0, 0, 7, 0], nano: 10n }),
    row(2, { kind: 'void', tokens: [0, 0, 0, 0, 0, 0], nano: 0n, billable: false }),
    row(2, { ...late, nano: 20n }),
  );
  await rerate(withList(listOf('new', { [MODEL]: [priceOf(2n)] })), { ...JANUARY });
  // 6 in and 12 out, and 10 in and 5 out, at two nano-USD a token.
  expect((await adjustments()).map(({ nano }) => nano)).toEqual([60n - 30n, 40n - 20n]);
});

it('takes the price that held when the call was held', async () => {
  await book(row(1), row(5));
  const list = listOf('dated', { [MODEL]: [priceOf(1n), priceOf(7n, Date.UTC(2025, 0, 3))] });
  await rerate(withList(list), { ...JANUARY });
  expect(await adjustments()).toMatchObject([{ key: 'call5#0.1.1.0', nano: 120n }]);
});

it('keeps to the period, its beginning included and its end not, and to the model', async () => {
  await book(row(1), row(2), row(3), row(4), row(3, { attemptKey: 'other#0.1.1.0', model: 'p/b' }));
  const list = listOf('new', { [MODEL]: [priceOf(2n)], 'p/b': [priceOf(2n)] });
  const period = { from: new Date('2025-01-02T00:00:00Z'), to: new Date('2025-01-04T00:00:00Z') };
  const report = await rerate(withList(list), { ...JANUARY, ...period, model: MODEL });
  expect(report).toMatchObject({ attempts: 2, adjusted: 2 });
  expect((await adjustments()).map(({ key }) => key)).toEqual(['call2#0.1.1.0', 'call3#0.1.1.0']);
});

it('counts what the list does not know and leaves it as it is, and what a flagged list could not say it says later', async () => {
  await book(
    row(1),
    row(2, { model: 'p/unknown', priceHash: 'unknown:flagged' }),
    row(3, { model: 'p/young' }),
  );
  const prices = { [MODEL]: [priceOf(1n)], 'p/young': [priceOf(1n, Date.UTC(2025, 5, 1))] };
  const report = await rerate(withList(listOf('flagged', prices)), { ...JANUARY });
  expect(report).toMatchObject({ attempts: 3, adjusted: 0 });
  expect(report.unknown).toEqual(
    new Map([
      ['p/unknown', 1],
      ['p/young', 1],
    ]),
  );
  await rerate(withList(listOf('known', { ...prices, 'p/unknown': [priceOf(5n)] })), { ...JANUARY });
  expect(await adjustments()).toMatchObject([{ key: 'call2#0.1.1.0', nano: 80n }]);
});

it('tells on a dry run what it would book, and books nothing', async () => {
  await book(row(1), row(2));
  const list = listOf('new', { [MODEL]: [priceOf(3n)] });
  const dry = await rerate(withList(list), { ...JANUARY, dryRun: true });
  expect(await adjustments()).toEqual([]);
  expect(await rerate(withList(list), { ...JANUARY })).toEqual(dry);
  expect(dry).toMatchObject({ adjusted: 2, differenceNanoUsd: 80n });
});

it('goes over to a list and back, and tells of the one that it applied already', async () => {
  const [first, second] = [
    listOf('first', { [MODEL]: [priceOf(1n)] }),
    listOf('second', { [MODEL]: [priceOf(4n)] }),
  ];
  await book(row(1, { priceHash: 'first' }));
  const sum = async () => (await test.stores.accounts.usage([], {}, 1)).total.nanoUsd;
  expect(await rerate(withList(first), { ...JANUARY })).toMatchObject({ adjusted: 0 });
  await rerate(withList(second), { ...JANUARY });
  expect(await sum()).toBe(80n);
  await rerate(withList(first), { ...JANUARY });
  expect(await sum()).toBe(20n);
  expect(await rerate(withList(second), { ...JANUARY })).toMatchObject({ adjusted: 0, appliedBefore: 1 });
  expect(await sum()).toBe(20n);
});

it('leaves what was booked with this very list as it is, and rates an estimate at the hold by the rule of holds', async () => {
  const dear: PriceEntry = { ...priceOf(2n), cacheWrite1h: 10_000_000n };
  // Held at the dearest way to send 100 tokens, and booked at that: 100 at one hour's writing, 10 out.
  const atHold = { kind: 'estimate', tokens: [100, 0, 0, 0, 10, 0], nano: 540n, billable: false } as const;
  await addRows(test, [row(1, atHold), row(2, { ...atHold, priceHash: 'dear' })]);
  const hold = { nano: 540n, inputTokens: 100, maxOutputTokens: 10 };
  for (const n of [1, 2]) await addAttempt(test, row(n), 'estimated', hold);
  await rerate(withList(listOf('dear', { [MODEL]: [dear] })), { ...JANUARY });
  expect(await adjustments()).toMatchObject([{ key: 'call1#0.1.1.0', nano: 1_040n - 540n }]);
});

it('stops at its limit, says where to go on, and comes to the same end', async () => {
  await book(...Array.from({ length: 9 }, (_, n) => row(n + 1)));
  const list = listOf('new', { [MODEL]: [priceOf(2n)] });
  let after: RerateRequest['after'];
  const parts: number[] = [];
  do {
    const part = await rerate(withList(list), { ...JANUARY, limit: 4, after });
    parts.push(part.adjusted);
    after = part.next;
  } while (after !== undefined);
  expect(parts).toEqual([4, 4, 1]);
  expect(await adjustments()).toHaveLength(9);
});

it('books once when several are at it, and exactly when a late adjustment comes in between', async () => {
  await book(...Array.from({ length: 9 }, (_, n) => row(n + 1)));
  const list = listOf('new', { [MODEL]: [priceOf(2n)] });
  const reports = await Promise.all([1, 2, 3, 4].map(() => rerate(withList(list), { ...JANUARY })));
  expect(reports.reduce((sum, { adjusted }) => sum + adjusted, 0)).toBe(9);
  expect(await adjustments()).toHaveLength(9);

  await test.postgres.query('truncate ledger, attempts');
  await book(row(1));
  // Between the look and the lock somebody books five more tokens of output.
  const { rerateRows } = test.stores;
  const overtaken: RerateDependencies['rerateRows'] = {
    ...rerateRows,
    async book(...args) {
      await addRows(test, [
        row(1, { kind: 'adjust', adjustKey: 'late', tokens: [0, 0, 0, 0, 5, 0], nano: 10n, billable: false }),
      ]);
      return rerateRows.book(...args);
    },
  };
  await rerate(withList(list, { rerateRows: overtaken }), { ...JANUARY });
  expect((await test.stores.accounts.usage([], {}, 1)).total.nanoUsd).toBe(2n * 10n + 4n * 10n);
});

it('and a late adjustment wait for each other, so that the sum is that of the whole usage', async () => {
  await book(row(1, { tenantId: 'acme' }));
  const payer = { tenantId: 'acme', userId: 'ada' };
  const held = { attemptKey: 'call1#0.1.1.0', payer, estimate: estimateOf(500n, 40), limits: [] };
  const attempt = { ...attemptOf(held, Date.UTC(2025, 0, 1)), model: MODEL };
  const usage: Usage = { ...NO_USAGE, inputTokens: 10, outputTokens: 10 };
  let late: Promise<unknown> = Promise.resolve();
  await test.postgres.transaction(async (sql) => {
    // As a re-rating does it, which is in the midst of its step.
    await sql.query("select from attempts where attempt_key = 'call1#0.1.1.0' for update");
    late = test.stores.ledger.adjustLate(attempt, { usage, nanoUsd: 60n, source: 'measured' });
    await eventually(async () => {
      const { rows } = await test.postgres.query(
        "select from pg_locks w join pg_locks h on h.pid = w.pid where not w.granted and h.relation = 'attempts'::regclass",
      );
      expect(rows.length).toBeGreaterThan(0);
    }, 5_000);
    await sql.query(
      `insert into ledger (held_at, attempt_key, kind, adjust_key, call_key, tenant_id, user_id, provider, model, input_tokens,
         cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, billable,
         usage_source, price_hash)
       select held_at, attempt_key, 'adjust', 'rerate:new', call_key, tenant_id, user_id, provider, model, 0, 0, 0, 0, 0, 0, 20, billable,
         'none', 'new' from ledger where attempt_key = 'call1#0.1.1.0'`,
    );
  });
  await late;
  expect((await test.stores.accounts.usage([], {}, 1)).total.nanoUsd).toBe(60n);
});

it.each(['redis', 'postgres'] as const)(
  'brings the counters of budgets in %s along, and a rebuild comes to the same',
  async (mode) => {
    const payer = { tenantId: `in-${mode}`, userId: 'ada', sessionId: 'talk', taskId: 'task' };
    const { ledger, gate } = test.stores;
    const { generation } = await ledger.gate(payer.tenantId);
    if (mode === 'postgres') {
      const move = { tenantId: payer.tenantId, from: generation, to: mode, leaseMs: 10_000 };
      expect(await moveGate(test.postgres, move)).toBe(true);
    }
    const limit = { unit: 'usd', amount: 1_000_000n, window: 'month', hard: true, warnAt: 0.8 } as const;
    const limits = [{ ...limit, scope: { kind: 'user', id: 'ada' } } as const];
    const hold = async (n: number) => {
      const held = { attemptKey: `${mode}:run:answer:${n}#0.1.1.0`, payer, estimate: estimateOf(500n, 40) };
      const { heldAt: _, mode: __, generation: ___, ...draft } = attemptOf({ ...held, limits: [] }, 0);
      const answer = await gate.hold({ ...draft, model: MODEL }, limits);
      if (answer.kind !== 'ok') throw new Error(`the hold was ${answer.kind}`);
      expect(answer.attempt.mode).toBe(mode);
      return answer;
    };
    const settled = async (n: number) => {
      const look = await hold(n);
      await gate.undo(look.attempt);
      return look.uses[0]?.settled;
    };
    const { attempt } = await hold(1);
    await ledger.intent(attempt, undefined);
    const usage: Usage = { ...NO_USAGE, inputTokens: 10, outputTokens: 5 };
    const charge = { usage, nanoUsd: 20n, source: 'measured' } as const;
    await ledger.settle(attempt, { outcome: 'ok', charge }, undefined);
    await gate.release(attempt, 'settled', { nanoUsd: 20n, tokens: 15 });
    expect(await settled(2)).toBe(20n);

    const now = { from: new Date(Date.now() - 3_600_000), to: new Date(Date.now() + 3_600_000) };
    await rerate(withList(listOf('new', { [MODEL]: [priceOf(3n)] })), { ...JANUARY, ...now });
    expect(await settled(3)).toBe(60n);
    await test.postgres.query('delete from budget_counters');
    await test.redis.command(async (client) => {
      for await (const keys of client.scanStream({ match: `${test.prefix}:*` }))
        if (keys.length > 0) await client.del(...(keys as string[]));
    });
    expect(await settled(4)).toBe(60n);
  },
);

it('books also when the counters cannot be told, which the reaper makes good', async () => {
  await book(row(1));
  const gate = { ...calls.gate, adjust: () => Promise.reject(new Error('redis is gone')) };
  const report = await rerate(withList(listOf('new', { [MODEL]: [priceOf(2n)] }), { gate, log: test.log }), {
    ...JANUARY,
  });
  expect(report.adjusted).toBe(1);
  expect(await adjustments()).toHaveLength(1);
});

it('rates tiers and caches as settlement does', async () => {
  const list = listOf('tiers', {
    [MODEL]: [
      {
        ...PRICE,
        cachedInput: 100_000_000n,
        above: [{ inputTokens: 200_000, input: 2_000_000_000n, output: 4_000_000_000n }],
      },
    ],
  });
  await book(
    row(1, { tokens: [100_000, 100_000, 0, 0, 10, 0], nano: 0n }),
    row(2, { tokens: [100_001, 100_000, 0, 0, 10, 0], nano: 0n }),
  );
  await rerate(withList(list), { ...JANUARY });
  expect((await adjustments()).map(({ nano }) => nano)).toEqual([
    100_000n * 1_000n + 100_000n * 100n + 10n * 2_000n,
    200_001n * 2_000n + 10n * 4_000n,
  ]);
});
