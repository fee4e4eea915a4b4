// `weir budget` as a process against a stand-in of the gateway: what it asks for, what it prints, what it refuses itself.

import { describe, expect, it } from 'vitest';
import { type BudgetAction, runBudget } from '../../src/cli/budget.ts';
import { sendJson, startTinyGateway, type TinyGateway } from '../client/tiny-gateway.ts';
import { openShell } from './run-weir.ts';

const DAY = { unit: 'usd', window: 'day', amount: '20.00', hard: true, warnAt: 0.8 };
const view = (limits: unknown, more: object = {}) => ({
  ...{ scope: 'user', id: 'ada', tenantId: 'default', limits, isDefault: false },
  ...more,
});
const explained = (more: object) => ({
  ...{ unit: 'usd', window: 'total', amount: '5.00', hard: true, settled: '1.00', held: '0.25' },
  ...{ remaining: '3.75', pressure: 'low' },
  ...more,
});
const REFUSAL = {
  ...{ type: 'BudgetExceeded', at: '2026-01-02T03:04:05.678Z', scope: 'user', id: 'ada', unit: 'usd' },
  ...{ window: 'day', limit: '5.00', settled: '4.90', held: '0.05', needed: '0.10', resetsAt: 'then' },
};

/** Answers a PUT with what it was sent, everything else with this. */
const gatewayWith = (answer: unknown) =>
  startTinyGateway((response, { method, body }) =>
    sendJson(response, 200, method === 'PUT' ? view(JSON.parse(body).limits.map(filled)) : answer),
  );
const filled = (limit: object) => ({ window: 'total', hard: true, warnAt: 0.8, ...limit });
const putTo = (server: TinyGateway) =>
  JSON.parse(server.asked.find(({ method }) => method === 'PUT')?.body ?? 'null');

describe('weir budget', () => {
  it('sets limits with window, zone, softness and warning', async () => {
    await using server = await gatewayWith({});
    await using shell = await openShell();
    const { stdout, code } = await shell.weir([
      ...['budget', 'set', 'user', 'ada', '--url', server.url, '--tenant', 'acme'],
      ...['--usd', '5.00', '--tokens', '1000', '--window', 'day', '--zone', 'Europe/Berlin'],
      ...['--soft', '--warn-at', '0.905'],
    ]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/usd +day \(Europe\/Berlin\) +5\.00 +soft, warns at 90\.5 %/);
    expect(server.asked).toMatchObject([{ method: 'PUT', path: '/api/v1/budgets/user/ada?tenantId=acme' }]);
    const common = { window: 'day', zone: 'Europe/Berlin', hard: false, warnAt: 0.905 };
    expect(putTo(server)).toEqual({
      limits: [
        { unit: 'usd', amount: '5.00', ...common },
        { unit: 'tokens', amount: '1000', ...common },
      ],
    });
  });

  it('sets a hard limit over all time where nothing else is said', async () => {
    await using server = await gatewayWith({});
    await using shell = await openShell();
    await shell.weir(['budget', 'set', 'tenant', 'acme', '--usd', '5', '--url', server.url]);
    expect(putTo(server)).toEqual({ limits: [{ unit: 'usd', amount: '5', window: 'total' }] });
  });

  it('adds a limit beside the others, and in the place of the one it replaces', async () => {
    const known = [DAY, { ...DAY, hard: false, amount: '10.00' }, { ...DAY, zone: 'Asia/Tokyo' }];
    await using server = await gatewayWith(view(known));
    await using shell = await openShell();
    const args = ['budget', 'add', 'user', 'ada', '--url', server.url];
    await shell.weir([...args, '--usd', '30', '--tokens', '7', '--window', 'day', '--zone', 'asia/tokyo']);
    expect(server.asked.map(({ method }) => method)).toEqual(['GET', 'PUT']);
    expect(putTo(server)).toEqual({
      limits: [
        known[0],
        known[1],
        { unit: 'usd', amount: '30', window: 'day', zone: 'asia/tokyo' },
        { unit: 'tokens', amount: '7', window: 'day', zone: 'asia/tokyo' },
      ],
    });
  });

  it('adds to the configured limits where the scope has none of its own', async () => {
    await using server = await gatewayWith(view([DAY], { isDefault: true }));
    await using shell = await openShell();
    await shell.weir(['budget', 'add', 'user', 'ada', '--tokens', '7', '--url', server.url]);
    expect(putTo(server).limits).toEqual([DAY, { unit: 'tokens', amount: '7', window: 'total' }]);
  });

  it('explains a scope with a bar of what is settled and held', async () => {
    await using server = await gatewayWith({
      ...{ scope: 'user', id: 'ada', lastRefusal: REFUSAL },
      limits: [
        explained({}),
        explained({ window: 'day', zone: 'Asia/Tokyo', resetsAt: '2026-01-03T15:00:00.000Z', hard: false }),
        explained({ settled: '9.00', held: '1.00', remaining: '0.00', pressure: 'critical' }),
        explained({ amount: '0.00', settled: '0.00', held: '0.00', pressure: 'critical' }),
        explained({ settled: '0.000001', held: '0.00' }),
      ],
    });
    await using shell = await openShell();
    const { stdout } = await shell.weir(['budget', 'explain', 'user', 'ada', '--url', server.url]);
    const lines = stdout.split('\n');
    expect(lines[0]).toBe('user ada');
    expect(lines[2]).toMatch(/^usd +total +5\.00 +1\.00 +0\.25 +3\.75 +hard +low +██▒·········$/);
    expect(lines[3]).toMatch(/^usd +day \(Asia\/Tokyo\) .* soft +low +██▒········· +2026-01-03T15:00:00Z$/);
    expect(lines[4]).toMatch(/ critical +████████████$/);
    expect(lines[5]).toMatch(/ critical +············$/);
    expect(lines[6]).toMatch(/ █···········$/);
    expect(lines[7]).toBe(
      'last refusal 2026-01-02T03:04:05.678Z: user ada, usd per day: limit 5.00, settled 4.90, held 0.05, needed 0.10, resets at then',
    );
    expect(server.asked[0]?.path).toBe('/api/v1/budgets/user/ada/explain');
  });

  it('explains a task over all its scopes, and says where it is parked', async () => {
    await using server = await gatewayWith({
      ...{ taskId: 'task-1', status: 'waiting' },
      waiting: { reason: 'budget of user ada', until: '2026-01-03T00:00:00.000Z' },
      limits: [
        { scope: 'user', id: 'ada', ...explained({ window: 'day' }) },
        { scope: 'task', id: 'task-1', ...explained({ unit: 'tokens' }) },
      ],
    });
    await using shell = await openShell();
    const args = ['budget', 'explain', 'task', 'task-1', '--url', server.url];
    const { stdout } = await shell.weir(args);
    expect(stdout).toContain('task task-1: waiting for budget of user ada until 2026-01-03T00:00:00.000Z\n');
    expect(stdout).toMatch(/\nuser +ada +usd +day /);
    expect(stdout).toMatch(/\ntask +task-1 +tokens +total /);
    expect(stdout).not.toContain('last refusal');
    expect(server.asked[0]?.path).toBe('/api/v1/tasks/task-1/explain');
    expect(JSON.parse((await shell.weir([...args, '--json'])).stdout)).toMatchObject({ taskId: 'task-1' });
  });

  it('lists the scopes that have limits, also those that nothing binds', async () => {
    await using server = await gatewayWith({
      budgets: [
        view([DAY, { ...DAY, unit: 'tokens', amount: '7' }]),
        view([], { scope: 'session', id: 's1' }),
      ],
      truncated: true,
    });
    await using shell = await openShell();
    const args = ['budget', 'list', '--url', server.url];
    const { stdout } = await shell.weir([...args, '--scope', 'user', '--tenant', 'acme', '--limit', '2']);
    expect(server.asked[0]?.path).toBe('/api/v1/budgets?tenantId=acme&scope=user&limit=2');
    expect(stdout).toMatch(/^scope +id +unit +window +amount\n/);
    expect(stdout).toMatch(/\nuser +ada +usd +day +20\.00 +hard, warns at 80 %\nuser +ada +tokens +day +7 /);
    expect(stdout).toMatch(/\nsession +s1 +– +– +– +nothing binds it\n/);
    expect(stdout).toContain('there are more than these');
  });

  it('takes the limits of a scope away', async () => {
    await using server = await startTinyGateway((response) => {
      response.writeHead(204).end();
    });
    await using shell = await openShell();
    const { stdout } = await shell.weir(['budget', 'remove', 'user', 'ada', '--url', server.url]);
    expect(stdout).toBe('user ada has no limits of its own any more\n');
    expect(server.asked).toMatchObject([{ method: 'DELETE', path: '/api/v1/budgets/user/ada' }]);
  });
});

describe('runBudget', () => {
  const REFUSED: [BudgetAction, [string?, string?], object, string][] = [
    ['set', ['user', 'ada'], {}, 'give --usd, --tokens or both'],
    ['set', ['user', 'ada'], { usd: '-1' }, '--usd is an amount such as 5.00, got "-1"'],
    ['set', ['user', 'ada'], { tokens: 'many' }, '--tokens is a whole number, got "many"'],
    [
      'set',
      ['user', 'ada'],
      { usd: '1', window: 'year' },
      '--window is one of total, hour, day, week, month',
    ],
    ['add', ['user', 'ada'], { usd: '1', zone: 'UTC' }, '--zone needs a --window that resets'],
    ['add', ['user', 'ada'], { usd: '1', warnAt: '90%' }, '--warn-at is a share from 0 to 1'],
    ['add', ['user', 'ada'], { usd: '1', warnAt: '1.1' }, '--warn-at is a share from 0 to 1'],
    ['set', ['team', 'x'], { usd: '1' }, 'a scope is one of tenant, user, session, task, got "team"'],
    ['get', ['user'], {}, 'give a scope and an id, such as: weir budget get user ada'],
    ['get', ['user', 'ada'], { soft: true, warnAt: '1' }, '--soft, --warn-at: for set and add, not for get'],
    ['list', ['user'], {}, 'list takes no scope of its own: give --scope'],
    ['list', [], { scope: 'team' }, 'a scope is one of tenant'],
    ['get', ['user', 'ada'], { limit: 5 }, '--scope and --limit belong to list'],
  ];
  it.each(REFUSED)('refuses %s %j %j before the gateway is asked', async (action, target, flags, message) => {
    const [scope, id] = target;
    const nowhere = { variables: { WEIR_URL: 'http://127.0.0.1:9' } };
    await expect(runBudget(action, { scope, id }, flags, nowhere)).rejects.toThrow(message);
  });
});
