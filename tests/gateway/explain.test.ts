// What binds a scope or a task, told from real rows: sums of each limit's own window, grants, parking, refusals.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ExplainedLimit } from '../../src/client/wire.ts';
import type { BudgetExceededDetails } from '../../src/task/failure.ts';
import { parseTaskInput } from '../../src/task/input.ts';
import type { Interval } from '../../src/task/window.ts';
import { hardLimit } from '../support/stores.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

let gateway: TestGateway;

beforeAll(async () => {
  const user = [
    hardLimit('usd', 20_000_000_000n),
    { ...hardLimit('usd', 1n), window: 'day' as const, hard: false },
  ];
  gateway = await openTestGateway({ stores: { defaultLimits: { tenant: [], user, session: [], task: [] } } });
});
afterAll(() => gateway[Symbol.asyncDispose]());

const put = (url: string, limits: unknown) =>
  gateway.app.inject({ method: 'PUT', url: `/api/v1/budgets/${url}`, payload: { limits } as object });
const explain = (url: string) => gateway.app.inject({ method: 'GET', url: `/api/v1/${url}/explain` });

type Charge = {
  userId: string;
  nanoUsd?: bigint;
  tokens?: number;
  at?: string;
  taskId?: string;
  sessionId?: string;
};

async function charge({
  userId,
  nanoUsd = 0n,
  tokens = 0,
  at,
  taskId = 't1',
  sessionId,
}: Charge): Promise<void> {
  await gateway.test.postgres.query(
    `insert into ledger (held_at, attempt_key, kind, call_key, tenant_id, user_id, session_id, task_id, provider, model, input_tokens,
       cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, billable,
       usage_source, price_hash)
     values (coalesce($4::timestamptz, now()), gen_random_uuid()::text, 'charge', 'c', 'default', $1, $6, $5, 'p', 'p/m', $3, 0, 0, 0, 0, 0,
       $2, true, 'measured', '')`,
    [userId, nanoUsd, tokens, at ?? null, taskId, sessionId ?? null],
  );
}

async function hold(userId: string, nanoUsd: bigint, tokens: number, taskId?: string): Promise<void> {
  await gateway.test.postgres.query(
    `insert into attempts (held_at, attempt_key, call_key, tenant_id, user_id, task_id, step_id, provider, model, candidate, state, generation,
       owner, estimate_nano_usd, estimate_tokens, estimate_input_tokens, max_output_tokens, price_hash)
     values (now(), gen_random_uuid()::text, 'c', 'default', $1, $4, 's', 'p', 'p/m', 0, 'started', 1, 'o', $2, $3, 1, 1, '')`,
    [userId, nanoUsd, tokens, taskId ?? null],
  );
}

const refusalOf = (scope: string, id: string): BudgetExceededDetails => ({
  ...{ type: 'BudgetExceeded', scope, id, unit: 'usd', window: 'total' },
  ...{ limit: '20.00', settled: '19.00', held: '0.00', needed: '2.00' },
});

describe('an explanation of a scope', () => {
  test('gives settled, held and remaining of every limit, to the nano-dollar', async () => {
    await charge({ userId: 'u2', nanoUsd: 1_234_567_891n, tokens: 700 });
    await hold('u2', 100n, 500);
    await put('user/u2', [
      { unit: 'usd', amount: '5' },
      { unit: 'tokens', amount: 1_000 },
      { unit: 'tokens', amount: 0, hard: false },
    ]);
    const total = { window: 'total' };
    expect((await explain('budgets/user/u2')).json()).toEqual({
      scope: 'user',
      id: 'u2',
      limits: [
        {
          ...{ ...total, unit: 'usd', amount: '5.00', hard: true, pressure: 'low' },
          ...{ settled: '1.234567891', held: '0.0000001', remaining: '3.765432009' },
        },
        {
          ...{ ...total, unit: 'tokens', amount: '1000', hard: true, pressure: 'critical' },
          ...{ settled: '700', held: '500', remaining: '0' },
        },
        {
          ...{ ...total, unit: 'tokens', amount: '0', hard: false, pressure: 'critical' },
          ...{ settled: '700', held: '500', remaining: '0' },
        },
      ],
    });
  });

  test('counts for each limit what lies in its own window, to the millisecond', async () => {
    const { postgres, stores } = gateway.test;
    // Edges of windows lie in months that have no partition yet, or any more.
    await postgres.query('create table ledger_of_any_time partition of ledger default', []);
    const zone = 'Pacific/Auckland';
    const windows = ['hour', 'day', 'week', 'month'] as const;
    const limit = { unit: 'tokens', amount: 1_000_000_000 };
    await put('user/u4', [limit, ...windows.map((window) => ({ ...limit, window, zone }))]);
    const intervals = windows.map((window) => stores.limits.intervalOf({ window, zone }, Date.now()));
    const edges = intervals.flatMap(({ startMs, endMs }) => [startMs - 1, startMs, endMs - 1, endMs]);
    for (const [index, edge] of edges.entries())
      await charge({ userId: 'u4', tokens: 2 ** index, at: new Date(edge).toISOString() });
    const settledIn = ({ startMs, endMs }: Interval) =>
      edges.reduce((sum, at, index) => sum + (startMs <= at && at < endMs ? 2 ** index : 0), 0);
    const { limits } = (await explain('budgets/user/u4')).json();
    expect(
      limits.map((told: ExplainedLimit) => [told.window, told.zone, told.settled, told.resetsAt]),
    ).toEqual([
      ['total', undefined, String(2 ** edges.length - 1), undefined],
      ...intervals.map((interval, index) => [
        windows[index],
        zone,
        String(settledIn(interval)),
        new Date(interval.endMs).toISOString(),
      ]),
    ]);
  });

  test('has the configured limits, soft ones too, and the last refusal', async () => {
    await gateway.test.stores.limits.noteRefusal('default', refusalOf('user', 'u3'));
    const explained = (await explain('budgets/user/u3')).json();
    expect(explained.limits).toMatchObject([
      { window: 'total', amount: '20.00', settled: '0.00', remaining: '20.00', pressure: 'low', hard: true },
      { window: 'day', amount: '0.000000001', hard: false, resetsAt: expect.any(String) },
    ]);
    expect(explained.lastRefusal).toMatchObject({ type: 'BudgetExceeded', needed: '2.00' });
    expect(Number.isNaN(Date.parse(explained.lastRefusal.at))).toBe(false);
  });

  test('of a task has in its amounts what was granted to it', async () => {
    await put('task/g1', [{ unit: 'usd', amount: '1' }]);
    await grant('g1', 'task', 'g1', 500_000_000n);
    expect((await explain('budgets/task/g1')).json()).toMatchObject({
      scope: 'task',
      limits: [{ amount: '1.50', remaining: '1.50' }],
    });
  });
});

describe('an explanation of a task', () => {
  test('has every limit that binds it, over all its scopes, with its grants and its own sums', async () => {
    await beginTask('x1', { userId: 'ann', sessionId: 'chat' });
    await put('tenant/default', [{ unit: 'usd', window: 'month', amount: '100' }]);
    await put('user/ann', [{ unit: 'usd', amount: '10' }]);
    await put('session/chat', [{ unit: 'tokens', window: 'week', amount: 50, hard: false }]);
    await put('task/x1', [{ unit: 'usd', amount: '1' }]);
    await grant('x1', 'user', 'ann', 2_000_000_000n);
    await charge({ userId: 'ann', nanoUsd: 500_000_000n, tokens: 5, taskId: 'x1', sessionId: 'chat' });
    await charge({ userId: 'ann', nanoUsd: 8_000_000_000n, tokens: 40, taskId: 'x0' });
    await hold('ann', 250_000_000n, 7, 'x1');
    const explained = (await explain('tasks/x1')).json();
    expect(explained).toMatchObject({ taskId: 'x1', status: 'running' });
    expect(explained.waiting).toBeUndefined();
    expect(explained.lastRefusal).toBeUndefined();
    expect(explained.limits).toMatchObject([
      { scope: 'tenant', id: 'default', window: 'month', amount: '100.00', resetsAt: expect.any(String) },
      { scope: 'user', id: 'ann', amount: '12.00', settled: '8.50', held: '0.25', pressure: 'medium' },
      { scope: 'session', id: 'chat', unit: 'tokens', hard: false, settled: '5', held: '0', remaining: '45' },
      { scope: 'task', id: 'x1', settled: '0.50', held: '0.25', remaining: '0.25', pressure: 'high' },
    ]);
    await gateway.app.inject({ method: 'DELETE', url: '/api/v1/budgets/tenant/default' });
  });

  test('tells where it is parked, and the newest refusal since it began by what binds it', async () => {
    const { limits } = gateway.test.stores;
    await limits.noteRefusal('default', refusalOf('user', 'bob'));
    await beginTask('x2', { userId: 'bob' });
    await put('task/x2', [{ unit: 'usd', amount: '1' }]);
    expect((await explain('tasks/x2')).json().lastRefusal).toBeUndefined();
    await limits.noteRefusal('default', refusalOf('task', 'x2'));
    await limits.noteRefusal('default', refusalOf('user', 'somebody'));
    expect((await explain('tasks/x2')).json().lastRefusal).toMatchObject({ scope: 'task', id: 'x2' });
    await limits.noteRefusal('default', refusalOf('user', 'bob'));
    const waiting = { reason: 'budget of user bob', until: '2030-01-01T00:00:00.000Z' };
    await gateway.test.postgres.query(
      "update tasks set status = 'waiting', waiting = $1 where task_id = 'x2'",
      [JSON.stringify(waiting)],
    );
    expect((await explain('tasks/x2')).json()).toMatchObject({
      ...{ status: 'waiting', waiting },
      lastRefusal: { scope: 'user', id: 'bob', at: expect.any(String) },
    });
  });

  test('that was ended by a budget tells by which, and of no later refusal', async () => {
    await beginTask('x3', { userId: 'cid' });
    const details = refusalOf('user', 'cid');
    const error = { type: 'BudgetExceeded', message: 'budget exceeded', details };
    await gateway.test.stores.tasks.end({ taskId: 'x3', runId: 'run-1' }, { status: 'failed', error }, []);
    await gateway.test.stores.limits.noteRefusal('default', { ...details, needed: '9.00' });
    const { endedAt } = (await gateway.app.inject({ method: 'GET', url: '/api/v1/tasks/x3' })).json();
    expect((await explain('tasks/x3')).json()).toMatchObject({
      status: 'failed',
      lastRefusal: { ...details, at: endedAt },
    });
    await beginTask('x4', { userId: 'cid' });
    await gateway.test.stores.tasks.end({ taskId: 'x4', runId: 'run-1' }, { status: 'completed' }, []);
    expect((await explain('tasks/x4')).json().lastRefusal).toBeUndefined();
  });

  test('that nobody knows is none', async () => {
    const answer = await explain('tasks/nobody');
    expect(answer.statusCode).toBe(404);
    expect(answer.json()).toMatchObject({ detail: 'there is no task nobody' });
  });

  test('that has not begun, and was started past the gateway, has the limits of who pays where that is known', async () => {
    gateway.temporal.executions.set('past-1', { given: {} });
    gateway.temporal.executions.set('past-2', { given: { tenantId: 'default', userId: 'dan' } });
    expect((await explain('tasks/past-1')).json()).toEqual({
      taskId: 'past-1',
      status: 'queued',
      limits: [],
    });
    expect((await explain('tasks/past-2')).json().limits).toMatchObject([
      { scope: 'user', id: 'dan', window: 'total', amount: '20.00' },
      { scope: 'user', id: 'dan', window: 'day', hard: false },
    ]);
  });
});

async function beginTask(taskId: string, input: object): Promise<void> {
  const parsed = parseTaskInput({ query: 'hello', ...input });
  if (parsed.kind === 'invalid') throw new Error('the sample input is invalid');
  const task = { taskId, runId: 'run-1', input: parsed.input, strategy: 'simple', model: 'p/m', limits: [] };
  await gateway.test.stores.tasks.begin(task, []);
}

async function grant(taskId: string, scope: string, id: string, nanoUsd: bigint): Promise<void> {
  await gateway.test.postgres.query(
    `insert into budget_grants (tenant_id, task_id, scope, scope_id, unit, limit_window, approval_id, amount)
     values ('default', $1, $2, $3, 'usd', 'total', gen_random_uuid()::text, $4)`,
    [taskId, scope, id, nanoUsd],
  );
}
