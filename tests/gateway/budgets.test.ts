// Budgets over HTTP: set, listed, shown and removed, for every scope and window. What explain says of them is in explain.test.ts.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hardLimit } from '../support/stores.ts';
import { createStoredTask } from './events.ts';
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

const remove = (url: string) => gateway.app.inject({ method: 'DELETE', url: `/api/v1/budgets/${url}` });

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
    expect((await remove('user/u1')).statusCode).toBe(204);
    expect((await remove('user/u1')).statusCode).toBe(404);
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

  const WINDOWS = ['total', 'hour', 'day', 'week', 'month'];
  test.each(['tenant', 'user', 'session', 'task'])(
    'of a %s may be of every window, hard and soft, in a zone',
    async (scope) => {
      const limits = WINDOWS.flatMap((window) =>
        [true, false].map((hard, index) => ({
          ...{ unit: 'tokens', window, amount: String(10 + index), hard, warnAt: 0 },
          ...(window === 'total' ? {} : { zone: 'Asia/Kathmandu' }),
        })),
      );
      const set = await put(`${scope}/all`, limits);
      expect([set.statusCode, set.json().limits]).toEqual([200, limits]);
      expect((await get(`${scope}/all`)).json()).toMatchObject({ isDefault: false, limits });
    },
  );

  test('of a tenant are kept under itself, where its calls look for them', async () => {
    const set = await put('tenant/umbrella', [{ unit: 'usd', window: 'month', amount: '100' }]);
    expect(set.json()).toMatchObject({ scope: 'tenant', id: 'umbrella', tenantId: 'umbrella' });
    const binding = await gateway.test.stores.limits.binding({ tenantId: 'umbrella', userId: 'x' });
    expect(binding.filter(({ scope }) => scope.kind === 'tenant')).toMatchObject([
      { window: 'month', amount: 100_000_000_000n },
    ]);
    expect((await get('tenant/umbrella?tenantId=umbrella')).json()).toMatchObject({ isDefault: false });
    const other = await put('tenant/umbrella?tenantId=default', []);
    expect(other.statusCode).toBe(400);
    expect(other.json().faults).toEqual([
      { path: 'tenantId', expected: '"umbrella", or nothing', got: '"default"' },
    ]);
  });

  test('may be of one unit and window where zone or hardness tells them apart', async () => {
    const limits = [
      { unit: 'usd', window: 'day', amount: '1.00', hard: true, warnAt: 0.8 },
      { unit: 'usd', window: 'day', amount: '1.00', hard: false, warnAt: 0.8 },
      { unit: 'usd', window: 'day', zone: 'Asia/Tokyo', amount: '1.00', hard: true, warnAt: 0.8 },
      { unit: 'usd', window: 'day', zone: 'America/Havana', amount: '1.00', hard: true, warnAt: 0.8 },
    ];
    expect((await put('session/s1', limits)).json().limits).toEqual(limits);
  });

  test('leave a record of who changed them, after they are gone too', async () => {
    await put('user/audited', [{ unit: 'usd', amount: 1 }]);
    await remove('user/audited');
    const { rows } = await gateway.test.postgres.query(
      "select change, changed_by, details from budget_changes where scope = 'user' and scope_id = 'audited' order by id",
      [],
    );
    expect(rows).toMatchObject([
      { change: 'set', changed_by: 'api', details: { limits: [{ amount: '1000000000' }] } },
      { change: 'removed', changed_by: 'api' },
    ]);
  });

  const usd = (more: object) => [{ unit: 'usd', amount: 1, ...more }];
  const REFUSED: [string, unknown, string, string][] = [
    ['an unknown window', usd({ window: 'year' }), 'limits.0.window', 'one of total, hour, day, week, month'],
    [
      'an unknown zone',
      usd({ window: 'day', zone: 'Europe/Atlantis' }),
      'limits.0.zone',
      'an IANA time zone',
    ],
    ['an offset for a zone', usd({ window: 'day', zone: '+02:00' }), 'limits.0.zone', 'an IANA time zone'],
    ['a zone that is no text', usd({ window: 'day', zone: 1 }), 'limits.0.zone', 'an IANA time zone'],
    ['a zone of all time', usd({ zone: 'UTC' }), 'limits.0.zone', 'no zone: total never resets'],
    ['a word for hard', usd({ hard: 'no' }), 'limits.0.hard', 'true or false'],
    ['a warning above the limit', usd({ warnAt: 1.1 }), 'limits.0.warnAt', 'a number from 0 to 1'],
    ['an unknown unit', [{ unit: 'eur', amount: 1 }], 'limits.0.unit', 'one of usd, tokens'],
    ['a negative amount', usd({ amount: -1 }), 'limits.0.amount', 'for usd an amount from 0 to 9000000'],
    ['an amount that is too large', usd({ amount: '9000000.01' }), 'limits.0.amount', 'for usd an amount'],
    ['half a token', [{ unit: 'tokens', amount: 0.5 }], 'limits.0.amount', 'for tokens a whole number'],
    [
      'too many tokens',
      [{ unit: 'tokens', amount: '9000000000000001' }],
      'limits.0.amount',
      'up to 9000000000000000',
    ],
    ['no amount', [{ unit: 'usd' }], 'limits.0.amount', 'for usd an amount'],
    [
      'a limit twice',
      [...usd({}), ...usd({ window: 'total', amount: 2 })],
      'limits',
      'one limit for each unit, window',
    ],
    [
      'a zone in other letters',
      ['Asia/Tokyo', 'asia/tokyo'].flatMap((zone) => usd({ window: 'day', zone })),
      'limits',
      'one limit for each unit, window, zone and hardness',
    ],
    ['twenty-one limits', Array.from({ length: 21 }, () => usd({})[0]), 'limits', 'at most 20 limits'],
    ['an unknown field', usd({ name: 'x' }), 'limits.0', ''],
    ['no list', 'all', 'limits', ''],
  ];
  test.each(REFUSED)('are refused with %s', async (_, limits, path, expected) => {
    const answer = await put('user/refused', limits);
    expect(answer.statusCode).toBe(400);
    expect(answer.json().faults[0]).toMatchObject({ path, expected: expect.stringContaining(expected) });
    expect((await get('user/refused')).json()).toMatchObject({ isDefault: true });
  });

  test('of an unknown scope or a bad id are no limits at all', async () => {
    expect((await get('team/x')).statusCode).toBe(400);
    expect((await get('share/x')).statusCode).toBe(400);
    expect((await get('user/a%20b')).statusCode).toBe(400);
    expect((await get('user/x?tenant=y')).statusCode).toBe(400);
  });
});

describe('a change of limits', () => {
  test('wakes the tasks that wait for a budget of the scope', async () => {
    await createStoredTask(gateway.test, 'parked').begin();
    await gateway.test.postgres.query(
      `update tasks set status = 'waiting', waiting = '{"reason": "budget of user u1"}' where task_id = 'parked'`,
      [],
    );
    await put('user/frank', []);
    await put('tenant/acme', []);
    expect(gateway.temporal.told).toEqual([]);
    await put('user/u1', [{ unit: 'usd', amount: 100 }]);
    await remove('user/u1');
    const woken = { taskId: 'parked', what: 'budgetChanged' };
    expect(gateway.temporal.told).toMatchObject([woken, woken]);
  });
});

describe('the list of budgets', () => {
  const list = async (query: string) =>
    (await gateway.app.inject({ method: 'GET', url: `/api/v1/budgets${query}` })).json();

  test('has the scopes that somebody set, changed last first, tasks only where asked for', async () => {
    const limits = [{ unit: 'usd', window: 'day', amount: '1.00', hard: true, warnAt: 0.8 }];
    for (const scope of ['user/a', 'session/b', 'task/c', 'user/d', 'user/a'])
      await put(`${scope}?tenantId=globex`, limits);
    await put('tenant/globex', []);
    await put('user/other?tenantId=initech', limits);
    const { budgets, truncated } = await list('?tenantId=globex');
    expect(budgets.map((row: { scope: string; id: string }) => `${row.scope} ${row.id}`)).toEqual([
      'tenant globex',
      'user a',
      'user d',
      'session b',
    ]);
    expect(truncated).toBeUndefined();
    expect(budgets[1]).toEqual({ scope: 'user', id: 'a', tenantId: 'globex', isDefault: false, limits });
    expect((await list('?tenantId=globex&scope=task')).budgets).toMatchObject([{ scope: 'task', id: 'c' }]);
    expect(await list('?tenantId=globex&scope=user&limit=1')).toMatchObject({
      budgets: [{ id: 'a' }],
      truncated: true,
    });
    expect(await list('?tenantId=nobody')).toEqual({ budgets: [] });
  });

  test.each(['?scope=team', '?limit=0', '?limit=1001', '?tenantId=a%20b', '?user=x'])(
    'is refused for %s',
    async (query) => {
      expect(await list(query)).toMatchObject({ status: 400 });
    },
  );
});
