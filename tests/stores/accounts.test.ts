import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { USAGE_GROUPS } from '../../src/stores/accounts.ts';
import type { Attempt, Charge } from '../../src/stores/ledger.ts';
import type { Payer } from '../../src/task/budget.ts';
import { NO_USAGE, type Usage } from '../../src/task/usage.ts';
import { attemptOf, estimateOf } from '../support/holds.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const USAGE: Usage = {
  inputTokens: 1,
  cacheReadTokens: 10,
  cacheWrite5mTokens: 100,
  cacheWrite1hTokens: 1_000,
  outputTokens: 10_000,
  reasoningTokens: 4_000,
};
const TOTALS = {
  inputTokens: 1_111,
  cachedInputTokens: 10,
  cacheWriteTokens: 1_100,
  outputTokens: 10_000,
  reasoningTokens: 4_000,
};
const ANSWER = { status: 'completed', text: 'x', finishReason: 'stop' } as const;
const NOTHING: Charge = { usage: NO_USAGE, nanoUsd: 0n, source: 'none' };

let test: TestStores;
let calls = 0;

async function started(payer: Payer, change: Partial<Attempt> = {}): Promise<Attempt> {
  calls += 1;
  const held = {
    attemptKey: `c${calls}:run:answer:1#0.1.1.0`,
    payer,
    estimate: estimateOf(500n, 40),
    limits: [],
  };
  const attempt = { ...attemptOf(held, Date.now()), ...change };
  await test.stores.ledger.gate(payer.tenantId);
  await test.stores.ledger.intent(attempt, undefined);
  return attempt;
}

async function charged(
  payer: Payer,
  nanoUsd: bigint,
  change: Partial<Attempt> = {},
  usage = USAGE,
): Promise<Attempt> {
  const attempt = await started(payer, change);
  await test.stores.ledger.settle(
    attempt,
    { outcome: 'ok', charge: { usage, nanoUsd, source: 'measured' }, result: ANSWER },
    undefined,
  );
  return attempt;
}

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

describe('settled and held', () => {
  const payer = { tenantId: 'sums', userId: 'ada', sessionId: 'talk', taskId: 'task' };
  const other = { tenantId: 'sums', userId: 'bob' };

  it('are zero where nothing was', async () => {
    const { accounts } = test.stores;
    expect(await accounts.settled('sums', { kind: 'user', id: 'nobody' })).toEqual({
      nanoUsd: 0n,
      tokens: 0n,
    });
    expect(await accounts.held('sums', { kind: 'user', id: 'nobody' })).toEqual({ nanoUsd: 0n, tokens: 0n });
  });

  it('sum every kind of row of a scope, and what is under way, never both', async () => {
    const { accounts, ledger } = test.stores;
    await charged(payer, 100n);
    const lost = await started(payer);
    await ledger.resolve(lost, {
      to: 'estimated',
      outcome: 'lost',
      charge: { usage: USAGE, nanoUsd: 50n, source: 'estimated' },
    });
    await ledger.adjustLate(lost, { usage: NO_USAGE, nanoUsd: 20n, source: 'measured' });
    await ledger.resolve(await started(payer), { to: 'voided', outcome: 'lost', charge: NOTHING });
    await started(payer);
    await started(payer);
    await charged(other, 7n);
    for (const kind of ['user', 'session', 'task'] as const) {
      const id = { user: 'ada', session: 'talk', task: 'task' }[kind];
      expect(await accounts.settled('sums', { kind, id })).toEqual({ nanoUsd: 120n, tokens: 11_111n });
      expect(await accounts.held('sums', { kind, id })).toEqual({ nanoUsd: 1_000n, tokens: 80n });
    }
    expect((await accounts.settled('sums', { kind: 'tenant', id: 'sums' })).nanoUsd).toBe(127n);
  });

  it('keep tenants apart that have the same users', async () => {
    await charged({ ...payer, tenantId: 'sums2' }, 3n);
    expect((await test.stores.accounts.settled('sums2', { kind: 'user', id: 'ada' })).nanoUsd).toBe(3n);
  });

  it('count beyond what a double counts exactly', async () => {
    const rich = { tenantId: 'sums', userId: 'rich' };
    await charged(rich, 9_007_199_254_740_992n);
    await charged(rich, 1n);
    expect((await test.stores.accounts.settled('sums', { kind: 'user', id: 'rich' })).nanoUsd).toBe(
      9_007_199_254_740_993n,
    );
  });
});

describe('usage', () => {
  const ada = { tenantId: 'report', userId: 'ada', sessionId: 'talk', taskId: 'ada-1' };
  const bob = { tenantId: 'report', userId: 'bob', taskId: 'bob-1' };
  const day = (text: string) => new Date(`${text}Z`);
  const today = new Date().toISOString().slice(0, 10);

  beforeAll(async () => {
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

  it('groups by task: calls, attempts that may have reached a provider, cost, and what users pay', async () => {
    expect(await test.stores.accounts.usage(['task'], { tenant: 'report' }, 100)).toEqual([
      {
        keys: ['ada-1'],
        calls: 3,
        attempts: 4,
        usage: {
          inputTokens: 2_222,
          cachedInputTokens: 20,
          cacheWriteTokens: 2_200,
          outputTokens: 20_000,
          reasoningTokens: 8_000,
        },
        nanoUsd: 151n,
        billableNanoUsd: 146n,
      },
      {
        keys: ['bob-1'],
        calls: 1,
        attempts: 1,
        usage: {
          ...TOTALS,
          inputTokens: 0,
          cachedInputTokens: 0,
          cacheWriteTokens: 0,
          outputTokens: 0,
          reasoningTokens: 0,
        },
        nanoUsd: 10n,
        billableNanoUsd: 0n,
      },
    ]);
  });

  it.each<[Parameters<TestStores['stores']['accounts']['usage']>[0], (string | null)[][]]>([
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
    [[], [[]]],
  ])('groups by %j, the dearest first', async (groups, keys) => {
    const rows = await test.stores.accounts.usage(groups, { tenant: 'report' }, 100);
    expect(rows.map((row) => row.keys)).toEqual(keys);
    expect(rows.reduce((sum, row) => sum + row.nanoUsd, 0n)).toBe(161n);
  });

  it('knows every group of the report', () => {
    expect([...USAGE_GROUPS].sort()).toEqual([
      'day',
      'model',
      'provider',
      'session',
      'task',
      'tenant',
      'user',
    ]);
  });

  it.each<[string, Parameters<TestStores['stores']['accounts']['usage']>[1], bigint]>([
    ['user', { user: 'ada' }, 151n],
    ['session', { session: 'talk' }, 151n],
    ['task', { task: 'bob-1' }, 10n],
    ['model', { model: 'openai/big' }, 40n],
    ['provider', { provider: 'simulated' }, 121n],
    ['time', { from: day('2000-01-01'), to: new Date(Date.now() + 60_000) }, 161n],
  ])('filters by %s', async (_title, filter, nanoUsd) => {
    const rows = await test.stores.accounts.usage([], { tenant: 'report', ...filter }, 100);
    expect(rows.map((row) => row.nanoUsd)).toEqual([nanoUsd]);
  });

  it.each<[string, Parameters<TestStores['stores']['accounts']['usage']>[1]]>([
    ['another tenant', { tenant: 'nobody' }],
    ['a time before', { tenant: 'report', to: day('2000-01-01') }],
    ['a time after', { tenant: 'report', from: new Date(Date.now() + 86_400_000) }],
    ['SQL in a filter', { tenant: "report' or '1'='1" }],
  ])('answers nothing for %s', async (_title, filter) => {
    expect(await test.stores.accounts.usage(['user'], filter, 100)).toEqual([]);
  });

  it('takes a moment into the time from it and not into the time up to it', async () => {
    const heldAt = new Date();
    await charged({ tenantId: 'edge', userId: 'u' }, 1n, { heldAt });
    expect(await test.stores.accounts.usage([], { tenant: 'edge', from: heldAt }, 1)).toHaveLength(1);
    expect(await test.stores.accounts.usage([], { tenant: 'edge', to: heldAt }, 1)).toEqual([]);
  });

  it('stops at the limit', async () => {
    expect(
      (await test.stores.accounts.usage(['user'], { tenant: 'report' }, 1)).map((row) => row.keys),
    ).toEqual([['ada']]);
  });
});

describe('rows', () => {
  it('lists what the ledger has for some tasks, oldest first', async () => {
    const payer = { tenantId: 'rows', userId: 'u', taskId: 'rows-1' };
    const late = await charged(payer, 2n, { heldAt: new Date(Date.now() + 60_000) });
    const early = await charged(payer, 1n, { heldAt: new Date(Date.now() - 60_000) });
    await charged({ ...payer, taskId: 'rows-2' }, 3n);
    expect(await test.stores.accounts.rows({ taskIds: ['rows-1', 'rows-3'] })).toEqual(
      [early, late].map((attempt, index) => ({
        attemptKey: attempt.attemptKey,
        kind: 'charge',
        adjustKey: '',
        taskId: 'rows-1',
        model: 'simulated/small',
        billable: true,
        usageSource: 'measured',
        nanoUsd: BigInt(index + 1),
        inputTokens: 1_111n,
        outputTokens: 10_000n,
      })),
    );
    expect(await test.stores.accounts.rows({ taskIds: [] })).toEqual([]);
  });
});
