import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NO_USAGE } from '../../src/task/usage.ts';
import { createBookedCalls, NOTHING, USAGE } from '../support/booked-calls.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

let test: TestStores;
const { started, charged } = createBookedCalls(() => test);

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
