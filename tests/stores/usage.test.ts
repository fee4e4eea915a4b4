// The usage report on the ledger as calls write it: groups, filters, totals, and numbers of any size.

import { afterAll, beforeAll, expect, it } from 'vitest';
import { readUsage, USAGE_GROUPS, type UsageFilter, type UsageGroup } from '../../src/stores/usage.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { ANSWER, createBookedCalls, NOTHING } from '../support/booked-calls.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { addRows, makeMonth } from './old-months.ts';

let test: TestStores;
const { started, charged } = createBookedCalls(() => test);

const ada = { tenantId: 'report', userId: 'ada', sessionId: 'talk', taskId: 'ada-1' };
const bob = { tenantId: 'report', userId: 'bob', taskId: 'bob-1' };
const day = (text: string) => new Date(`${text}Z`);
const today = new Date().toISOString().slice(0, 10);

beforeAll(async () => {
  test = await openTestStores();
  const { ledger } = test.stores;
  await charged(ada, 100n);
  await charged(ada, 40n, { model: 'openai/big', provider: 'openai' });
  const failed = await started(ada);
  await ledger.settle(
    failed,
    { outcome: 'failed', charge: { usage: NO_USAGE, nanoUsd: 5n, source: 'measured' } },
    undefined,
  );
  const again = await started(ada, { callKey: failed.callKey, attemptKey: `${failed.callKey}#0.1.2.0` });
  await ledger.settle(
    again,
    { outcome: 'ok', charge: { usage: NO_USAGE, nanoUsd: 6n, source: 'measured' }, result: ANSWER },
    undefined,
  );
  await ledger.resolve(await started(ada), { to: 'voided', outcome: 'lost', charge: NOTHING });
  const lost = await started(bob);
  await ledger.resolve(lost, {
    to: 'estimated',
    outcome: 'lost',
    charge: { usage: NO_USAGE, nanoUsd: 30n, source: 'estimated' },
  });
  await ledger.adjustLate(lost, { usage: NO_USAGE, nanoUsd: 10n, source: 'measured' });
});

afterAll(() => test[Symbol.asyncDispose]());

it('groups by task: calls, attempts that may have reached a provider, cost, and what users pay', async () => {
  expect((await test.stores.accounts.usage(['task'], { tenant: 'report' }, 100)).groups).toEqual([
    {
      keys: ['ada-1'],
      calls: 3,
      attempts: 4,
      usage: {
        inputTokens: 2_222n,
        cachedInputTokens: 20n,
        cacheWriteTokens: 2_200n,
        outputTokens: 20_000n,
        reasoningTokens: 8_000n,
      },
      nanoUsd: 151n,
      billableNanoUsd: 146n,
    },
    {
      keys: ['bob-1'],
      calls: 1,
      attempts: 1,
      usage: {
        inputTokens: 0n,
        cachedInputTokens: 0n,
        cacheWriteTokens: 0n,
        outputTokens: 0n,
        reasoningTokens: 0n,
      },
      nanoUsd: 10n,
      billableNanoUsd: 0n,
    },
  ]);
});

it.each<[readonly UsageGroup[], (string | null)[][]]>([
  [['user'], [['ada'], ['bob']]],
  [
    ['session', 'user'],
    [
      ['talk', 'ada'],
      [null, 'bob'],
    ],
  ],
  [['model'], [['simulated/small'], ['openai/big']]],
  [
    ['provider', 'tenant'],
    [
      ['simulated', 'report'],
      ['openai', 'report'],
    ],
  ],
  [['day'], [[today]]],
  [[], []],
])('groups by %j, the dearest first', async (groups, keys) => {
  const rows = await test.stores.accounts.usage(groups, { tenant: 'report' }, 100);
  expect(rows.groups.map((row) => row.keys)).toEqual(keys);
  expect(rows.total).toMatchObject({ keys: [], calls: 4, attempts: 5, nanoUsd: 161n, billableNanoUsd: 146n });
  if (keys.length === 0) return;
  expect(rows.groups.reduce((sum, row) => sum + row.calls, 0)).toBe(4);
  expect(rows.groups.reduce((sum, row) => sum + row.nanoUsd, 0n)).toBe(161n);
});

it('knows every group of the report', () => {
  expect([...USAGE_GROUPS].sort()).toEqual(['day', 'model', 'provider', 'session', 'task', 'tenant', 'user']);
});

it.each<[string, UsageFilter, bigint]>([
  ['user', { user: 'ada' }, 151n],
  ['session', { session: 'talk' }, 151n],
  ['task', { task: 'bob-1' }, 10n],
  ['model', { model: 'openai/big' }, 40n],
  ['provider', { provider: 'simulated' }, 121n],
  ['time', { from: day('2000-01-01'), to: new Date(Date.now() + 60_000) }, 161n],
])('filters by %s', async (_title, filter, nanoUsd) => {
  const { total } = await test.stores.accounts.usage([], { tenant: 'report', ...filter }, 100);
  expect(total.nanoUsd).toBe(nanoUsd);
});

it.each<[string, UsageFilter]>([
  ['another tenant', { tenant: 'nobody' }],
  ['a time before', { tenant: 'report', to: day('2000-01-01') }],
  ['a time after', { tenant: 'report', from: new Date(Date.now() + 86_400_000) }],
  ['SQL in a filter', { tenant: "report' or '1'='1" }],
])('answers nothing for %s', async (_title, filter) => {
  const { groups, total } = await test.stores.accounts.usage(['user'], filter, 100);
  expect(groups).toEqual([]);
  expect(total).toMatchObject({ calls: 0, attempts: 0, nanoUsd: 0n });
});

it('takes a moment into the time from it and not into the time up to it', async () => {
  const heldAt = new Date();
  await charged({ tenantId: 'edge', userId: 'u' }, 1n, { heldAt });
  const callsIn = async (filter: UsageFilter) =>
    (await test.stores.accounts.usage([], { tenant: 'edge', ...filter }, 1)).total.calls;
  expect(await callsIn({ from: heldAt })).toBe(1);
  expect(await callsIn({ to: heldAt })).toBe(0);
});

it('stops at the limit, says so, and counts all in the total', async () => {
  const cut = await test.stores.accounts.usage(['user'], { tenant: 'report' }, 1);
  expect(cut).toMatchObject({ groups: [{ keys: ['ada'] }], isCut: true, total: { nanoUsd: 161n } });
  expect((await test.stores.accounts.usage(['user'], { tenant: 'report' }, 2)).isCut).toBe(false);
});

it('counts a call that went over to another model once, where its last attempt is', async () => {
  const payer = { tenantId: 'fallback', userId: 'u' };
  const first = await started(payer, { model: 'a/one', provider: 'a' });
  await test.stores.ledger.settle(
    first,
    { outcome: 'failed', charge: { usage: NO_USAGE, nanoUsd: 5n, source: 'measured' } },
    undefined,
  );
  await charged(payer, 2n, {
    callKey: first.callKey,
    attemptKey: `${first.callKey}#1.2.1.0`,
    heldAt: new Date(first.heldAt.getTime() + 1),
    model: 'b/two',
    provider: 'b',
  });
  const { groups, total } = await test.stores.accounts.usage(['model'], { tenant: 'fallback' }, 10);
  expect(groups.map(({ keys, calls, attempts }) => [keys[0], calls, attempts])).toEqual([
    ['a/one', 0, 1],
    ['b/two', 1, 1],
  ]);
  expect(total).toMatchObject({ calls: 1, attempts: 2 });
});

it('sums tokens and money beyond what a double or an eight-byte integer counts', async () => {
  const most = 9_223_372_036_854_775_807n;
  await makeMonth(test, '2025-01');
  for (const [index, nano] of [most, most, 1n].entries())
    await addRows(test, [
      { at: `2025-01-0${index + 1}T00:00:00Z`, attemptKey: `big#${index}`, tenantId: 'big', nano },
    ]);
  await test.postgres.query(
    "update ledger set output_tokens = $1 where tenant_id = 'big' and attempt_key <> 'big#1'",
    [2n ** 53n],
  );
  const { total } = await test.stores.accounts.usage([], { tenant: 'big' }, 1);
  expect(total.nanoUsd).toBe(2n * most + 1n);
  expect(total.usage.outputTokens).toBe(2n ** 54n + 5n);
});

it('keeps a day from midnight to midnight in UTC, whatever the zone of the session', async () => {
  await makeMonth(test, '2025-02');
  await addRows(
    test,
    [
      '2025-02-03T23:59:59.999Z',
      '2025-02-04T00:00:00Z',
      '2025-02-04T23:59:59.999Z',
      '2025-02-05T00:00:00Z',
    ].map((at, index) => ({ at, attemptKey: `day${index}#1`, tenantId: 'day', nano: BigInt(10 ** index) })),
  );
  const zoned = async (zone: string) =>
    test.postgres.transaction(async (sql) => {
      await sql.query(`set local time zone '${zone}'`);
      return readUsage(sql, ['day'], { tenant: 'day', day: '2025-02-04' }, 10);
    });
  for (const zone of ['UTC', 'Pacific/Kiritimati', 'America/Los_Angeles'])
    expect((await zoned(zone)).groups).toMatchObject([{ keys: ['2025-02-04'], calls: 2, nanoUsd: 110n }]);
});
