// Budgets over HTTP: set, shown, explained with exact sums, and refused where nothing would enforce them.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hardLimit } from '../support/stores.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

let gateway: TestGateway;

beforeAll(async () => {
  const user = [hardLimit('usd', 20_000_000_000n), { ...hardLimit('usd', 1n), window: 'day' as const }];
  gateway = await openTestGateway({ stores: { defaultLimits: { tenant: [], user, session: [], task: [] } } });
});
afterAll(() => gateway[Symbol.asyncDispose]());

const get = (url: string) => gateway.app.inject({ method: 'GET', url: `/api/v1/budgets/${url}` });
const put = (url: string, limits: unknown) =>
  gateway.app.inject({ method: 'PUT', url: `/api/v1/budgets/${url}`, payload: { limits } as object });

async function charge(userId: string, nanoUsd: bigint, tokens: number): Promise<void> {
  await gateway.test.postgres.query(
    `insert into ledger (held_at, attempt_key, kind, call_key, tenant_id, user_id, task_id, provider, model, input_tokens, cache_read_tokens,
       cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, billable, usage_source, price_hash)
     values (now(), gen_random_uuid()::text, 'charge', 'c', 'default', $1, 't1', 'p', 'p/m', $3, 0, 0, 0, 0, 0, $2, true, 'measured', '')`,
    [userId, nanoUsd, tokens],
  );
}

describe('limits of a scope', () => {
  test('are the configured ones until somebody sets others, and again once those are removed', async () => {
    const shipped = (await get('user/u1')).json();
    expect(shipped).toMatchObject({ scope: 'user', id: 'u1', tenantId: 'default', isDefault: true });
    expect(shipped.limits).toHaveLength(2);
    const limits = [
      { unit: 'usd', amount: 1.5 },
      { unit: 'tokens', window: 'total', amount: '1000', hard: true, warnAt: 0.5 },
    ];
    const set = await put('user/u1', limits);
    expect(set.statusCode).toBe(200);
    expect(set.json()).toEqual({
      scope: 'user',
      id: 'u1',
      tenantId: 'default',
      isDefault: false,
      limits: [
        { unit: 'usd', window: 'total', amount: '1.50', hard: true, warnAt: 0.8 },
        { unit: 'tokens', window: 'total', amount: '1000', hard: true, warnAt: 0.5 },
      ],
    });
    expect((await get('user/u1')).json()).toEqual(set.json());
    expect((await get('user/u1?tenantId=acme')).json()).toMatchObject({ tenantId: 'acme', isDefault: true });
    const remove = () => gateway.app.inject({ method: 'DELETE', url: '/api/v1/budgets/user/u1' });
    expect((await remove()).statusCode).toBe(204);
    expect((await remove()).statusCode).toBe(404);
    expect((await get('user/u1')).json()).toEqual(shipped);
  });

  test('bind what the stores enforce: the limits that were put are those of the next call', async () => {
    await put('task/t9?tenantId=acme', [{ unit: 'usd', amount: '0.000000001' }]);
    const binding = await gateway.test.stores.limits.binding({ tenantId: 'acme', userId: 'x', taskId: 't9' });
    expect(binding.filter((limit) => limit.scope.kind === 'task')).toMatchObject([
      { unit: 'usd', amount: 1n, hard: true },
    ]);
    await put('user/free', []);
    expect(await gateway.test.stores.limits.get('default', { kind: 'user', id: 'free' })).toEqual([]);
  });

  const REFUSED: [string, unknown, string][] = [
    ['another window', [{ unit: 'usd', window: 'day', amount: 1 }], 'limits.0.window'],
    ['an unknown window', [{ unit: 'usd', window: 'year', amount: 1 }], 'limits.0.window'],
    ['a soft limit', [{ unit: 'usd', amount: 1, hard: false }], 'limits.0.hard'],
    ['an unknown unit', [{ unit: 'eur', amount: 1 }], 'limits.0.unit'],
    ['a negative amount', [{ unit: 'usd', amount: -1 }], 'limits.0.amount'],
    ['an amount that is too large', [{ unit: 'usd', amount: '9000000.01' }], 'limits.0.amount'],
    ['half a token', [{ unit: 'tokens', amount: 0.5 }], 'limits.0.amount'],
    ['no amount', [{ unit: 'usd' }], 'limits.0.amount'],
    [
      'two limits of one unit',
      [
        { unit: 'usd', amount: 1 },
        { unit: 'usd', amount: 2 },
      ],
      'limits',
    ],
    ['an unknown field', [{ unit: 'usd', amount: 1, name: 'x' }], 'limits.0'],
    ['no list', 'all', 'limits'],
  ];
  test.each(REFUSED)('are refused with %s', async (_, limits, path) => {
    const answer = await put('user/refused', limits);
    expect(answer.statusCode).toBe(400);
    expect(answer.json().faults).toMatchObject([{ path }]);
    expect((await get('user/refused')).json()).toMatchObject({ isDefault: true });
  });

  test.each(['tenant', 'session'])('of a %s cannot be set yet', async (scope) => {
    const answer = await put(`${scope}/x`, []);
    expect(answer.statusCode).toBe(400);
    expect(answer.json().detail).toContain('not available yet');
    expect((await get(`${scope}/x`)).json()).toMatchObject({ limits: [], isDefault: true });
  });

  test('of an unknown scope or a bad id are no limits at all', async () => {
    expect((await get('team/x')).statusCode).toBe(400);
    expect((await get('user/a%20b')).statusCode).toBe(400);
    expect((await get('user/x?tenant=y')).statusCode).toBe(400);
  });
});

describe('an explanation', () => {
  test('gives settled, held and remaining of every limit that binds, to the nano-dollar', async () => {
    await charge('u2', 1_234_567_891n, 700);
    await put('user/u2', [
      { unit: 'usd', amount: '5' },
      { unit: 'tokens', amount: 1_000 },
    ]);
    await gateway.test.postgres.query(
      `insert into attempts (held_at, attempt_key, call_key, tenant_id, user_id, step_id, provider, model, candidate, state, generation, owner,
         estimate_nano_usd, estimate_tokens, estimate_input_tokens, max_output_tokens, price_hash)
       values (now(), 'a', 'c', 'default', 'u2', 's', 'p', 'p/m', 0, 'started', 1, 'o', 100, 500, 1, 1, '')`,
    );
    expect((await get('user/u2/explain')).json()).toEqual({
      scope: 'user',
      id: 'u2',
      limits: [
        {
          unit: 'usd',
          window: 'total',
          amount: '5.00',
          hard: true,
          settled: '1.234567891',
          held: '0.0000001',
          remaining: '3.765432009',
        },
        {
          unit: 'tokens',
          window: 'total',
          amount: '1000',
          hard: true,
          settled: '700',
          held: '500',
          remaining: '0',
        },
      ],
    });
  });

  test('names the last refusal, and only limits that are enforced', async () => {
    await gateway.test.stores.limits.noteRefusal('default', {
      type: 'BudgetExceeded',
      scope: 'user',
      id: 'u3',
      unit: 'usd',
      window: 'total',
      limit: '20.00',
      settled: '19.00',
      held: '0.00',
      needed: '2.00',
    });
    const explained = (await get('user/u3/explain')).json();
    expect(explained.limits).toMatchObject([
      { window: 'total', amount: '20.00', settled: '0.00', remaining: '20.00' },
    ]);
    expect(explained.lastRefusal).toMatchObject({ type: 'BudgetExceeded', needed: '2.00' });
    expect(Number.isNaN(Date.parse(explained.lastRefusal.at))).toBe(false);
  });
});
