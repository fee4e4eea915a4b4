import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DefaultLimits } from '../../src/stores/limits.ts';
import type { Limit } from '../../src/task/budget.ts';
import type { BudgetExceededDetails } from '../../src/task/failure.ts';
import { MAX_LIMIT_NANO_USD } from '../../src/task/money.ts';
import { hardLimit, openTestStores, type TestStores } from '../support/stores.ts';

const DEFAULTS: DefaultLimits = {
  tenant: [],
  user: [hardLimit('usd', 20n)],
  session: [],
  task: [hardLimit('usd', 2n), hardLimit('tokens', 1_000n)],
};

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores({ defaultLimits: DEFAULTS });
});

afterAll(() => test[Symbol.asyncDispose]());

describe('limits of a scope', () => {
  it('come back as they were set, also amounts that no JSON number holds', async () => {
    const { limits } = test.stores;
    const scope = { kind: 'user', id: 'exact' } as const;
    const set: Limit[] = [
      { unit: 'usd', window: 'total', amount: MAX_LIMIT_NANO_USD, hard: true, warnAt: 0.8 },
      { unit: 'usd', window: 'day', amount: 9_007_199_254_740_993n, hard: false, warnAt: 0.5 },
      { unit: 'tokens', window: 'month', amount: 0n, hard: true, warnAt: 1 },
    ];
    await limits.set('acme', scope, set, { by: 'test' });
    expect(await limits.get('acme', scope)).toEqual(set);
  });

  it('are replaced as a whole, and an empty list means that nothing binds', async () => {
    const { limits } = test.stores;
    const scope = { kind: 'user', id: 'replaced' } as const;
    await limits.set('acme', scope, [hardLimit('usd', 1n), hardLimit('tokens', 1n)], { by: 'test' });
    await limits.set('acme', scope, [hardLimit('usd', 5n)], { by: 'test' });
    expect(await limits.get('acme', scope)).toEqual([hardLimit('usd', 5n)]);
    await limits.set('acme', scope, [], { by: 'test' });
    expect(await limits.get('acme', scope)).toEqual([]);
    expect(await limits.binding({ tenantId: 'acme', userId: 'replaced' })).toEqual([]);
  });

  it('are those of the defaults before they are set and after they were removed', async () => {
    const { limits } = test.stores;
    const scope = { kind: 'user', id: 'removed' } as const;
    expect(await limits.get('acme', scope)).toBeUndefined();
    expect(await limits.remove('acme', scope, { by: 'test' })).toBe(false);
    await limits.set('acme', scope, [], { by: 'test' });
    expect(await limits.remove('acme', scope, { by: 'test' })).toBe(true);
    expect(await limits.binding({ tenantId: 'acme', userId: 'removed' })).toEqual([
      { ...hardLimit('usd', 20n), scope },
    ]);
    expect(limits.defaultsOf('task')).toBe(DEFAULTS.task);
  });

  it('settle on one of two that are set at once', async () => {
    const { limits } = test.stores;
    const scope = { kind: 'user', id: 'raced' } as const;
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        limits.set('acme', scope, [hardLimit('usd', BigInt(n))], { by: 'test' }),
      ),
    );
    expect(await limits.get('acme', scope)).toHaveLength(1);
  });
});

describe('binding', () => {
  it('lists the limits of every scope in the order of the scopes, defaults where none is set', async () => {
    const { limits } = test.stores;
    await limits.set('acme', { kind: 'tenant', id: 'acme' }, [hardLimit('usd', 100n)], { by: 'test' });
    await limits.set('acme', { kind: 'session', id: 's' }, [hardLimit('tokens', 7n)], { by: 'test' });
    const binding = await limits.binding({ tenantId: 'acme', userId: 'u', sessionId: 's', taskId: 't' });
    expect(binding.map((limit) => [limit.scope.kind, limit.scope.id, limit.unit, limit.amount])).toEqual([
      ['tenant', 'acme', 'usd', 100n],
      ['user', 'u', 'usd', 20n],
      ['session', 's', 'tokens', 7n],
      ['task', 't', 'usd', 2n],
      ['task', 't', 'tokens', 1_000n],
    ]);
  });

  it('takes neither the limits of another tenant nor those of another kind with the same id', async () => {
    const { limits } = test.stores;
    await limits.set('other', { kind: 'user', id: 'same' }, [hardLimit('usd', 1n)], { by: 'test' });
    await limits.set('acme', { kind: 'session', id: 'same' }, [hardLimit('usd', 2n)], { by: 'test' });
    expect(await limits.binding({ tenantId: 'acme2', userId: 'same' })).toEqual([
      { ...hardLimit('usd', 20n), scope: { kind: 'user', id: 'same' } },
    ]);
  });
});

describe('grants', () => {
  const grant = (id: string, task: string, scope: string, of: string, more: Record<string, unknown> = {}) => {
    const row = { unit: 'usd', limit_window: 'day', amount: 5, ...more };
    return test.postgres.query(
      `insert into budget_grants (tenant_id, task_id, scope, scope_id, unit, limit_window, approval_id, amount)
       values ('grants', $1, $2, $3, $4, $5, $6, $7)`,
      [task, scope, of, row.unit, row.limit_window, id, row.amount],
    );
  };

  it('add to the limit that they were given on, for their own task, however many there are', async () => {
    const { limits } = test.stores;
    const day = { ...hardLimit('usd', 10n), window: 'day' } as const;
    const all = [day, hardLimit('usd', 100n), { ...day, unit: 'tokens' } as const];
    await limits.set('grants', { kind: 'user', id: 'ada' }, all, { by: 'test' });
    await grant('one', 'a', 'user', 'ada');
    await grant('two', 'a', 'user', 'ada');
    await grant('other-window', 'a', 'user', 'ada', { limit_window: 'week' });
    await grant('other-task', 'b', 'user', 'ada');
    await grant('other-user', 'a', 'user', 'bob');
    const amounts = async (taskId?: string) => {
      const binding = await limits.binding({ tenantId: 'grants', userId: 'ada', taskId });
      return binding.filter(({ scope }) => scope.kind === 'user').map(({ amount }) => amount);
    };
    expect(await amounts('a')).toEqual([20n, 100n, 10n]);
    expect(await amounts('b')).toEqual([15n, 100n, 10n]);
    expect(await amounts()).toEqual([10n, 100n, 10n]);
  });

  it('add to a configured default as well', async () => {
    const { limits } = test.stores;
    await grant('default', 'd', 'user', 'nobody', { limit_window: 'total', amount: 7 });
    const [user] = await limits.binding({ tenantId: 'grants', userId: 'nobody', taskId: 'd' });
    expect(user).toEqual({ ...hardLimit('usd', 27n), scope: { kind: 'user', id: 'nobody' } });
  });
});

describe('a list of limits', () => {
  it('holds what somebody set, changed last first, tasks only where they are asked for', async () => {
    const { limits } = test.stores;
    const scopes = [
      { kind: 'user', id: 'a' },
      { kind: 'tenant', id: 'listed' },
      { kind: 'task', id: 't' },
    ] as const;
    for (const scope of scopes) await limits.set('listed', scope, [hardLimit('usd', 1n)], { by: 'test' });
    const named = async (filter: Parameters<typeof limits.list>[1]) =>
      (await limits.list('listed', filter)).map(({ scope }) => `${scope.kind} ${scope.id}`);
    expect(await named({ limit: 10 })).toEqual(['tenant listed', 'user a']);
    expect(await named({ limit: 1 })).toEqual(['tenant listed']);
    expect(await named({ scope: 'task', limit: 10 })).toEqual(['task t']);
    expect(await limits.list('nobody', { limit: 10 })).toEqual([]);
  });
});

describe('the last refusal', () => {
  const refusal = (needed: string): BudgetExceededDetails => ({
    type: 'BudgetExceeded',
    scope: 'user',
    id: 'refused',
    unit: 'usd',
    window: 'total',
    limit: '1.00',
    settled: '0.99',
    held: '0.00',
    needed,
  });

  it('is kept per scope, the newest one', async () => {
    const { limits } = test.stores;
    const scope = { kind: 'user', id: 'refused' } as const;
    expect(await limits.lastRefusal('acme', scope)).toBeUndefined();
    await limits.noteRefusal('acme', refusal('0.02'));
    await limits.noteRefusal('acme', refusal('0.03'));
    expect((await limits.lastRefusal('acme', scope))?.details).toEqual(refusal('0.03'));
    expect(await limits.lastRefusal('other', scope)).toBeUndefined();
    expect(await limits.lastRefusal('acme', { kind: 'task', id: 'refused' })).toBeUndefined();
  });
});
