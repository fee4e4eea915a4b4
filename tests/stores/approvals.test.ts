// Approvals on a real Postgres: asked once, decided once, granted to one task, closed with it.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ApprovalRow, NewApproval } from '../../src/stores/approvals.ts';
import type { Limit } from '../../src/task/budget.ts';
import type { BudgetExceededDetails } from '../../src/task/failure.ts';
import { MAX_LIMIT_NANO_USD } from '../../src/task/money.ts';
import { beginTask } from '../support/calls.ts';
import { hardLimit, openTestStores, type TestStores } from '../support/stores.ts';

const DOLLAR = 1_000_000_000n;

let test: TestStores;
let ids = 0;

beforeAll(async () => {
  test = await openTestStores({
    defaultLimits: {
      tenant: [],
      user: [hardLimit('usd', DOLLAR)],
      session: [],
      task: [hardLimit('usd', 7n)],
    },
  });
});

afterAll(() => test[Symbol.asyncDispose]());

function exceededOf(change: Partial<BudgetExceededDetails> = {}): BudgetExceededDetails {
  return {
    type: 'BudgetExceeded',
    scope: 'user',
    id: 'user',
    unit: 'usd',
    window: 'total',
    limit: '1.00',
    settled: '1.00',
    held: '0.00',
    needed: '0.10',
    ...change,
  };
}

/** A task that has begun, and what it asks. */
async function asking(
  limits: readonly Limit[] = [],
  change: Partial<NewApproval> = {},
): Promise<NewApproval> {
  ids += 1;
  const taskId = `task-${ids}`;
  await beginTask(test, taskId, limits);
  return {
    approvalId: `run.${taskId}.1`,
    task: { taskId, runId: 'run', tenantId: 'tenant' },
    userId: 'user',
    stepId: 'answer',
    callKey: `${taskId}:run:answer:1`,
    exceeded: exceededOf(),
    onTimeout: 'reject',
    expiresAt: new Date('2030-01-01T00:00:00Z'),
    ...change,
  };
}

async function eventsOf(taskId: string): Promise<readonly string[]> {
  const { rows } = await test.postgres.query<{ type: string }>(
    'select type from events where task_id = $1 order by ordinal',
    [taskId],
  );
  return rows.map(({ type }) => type);
}

async function changesOf(scopeId: string) {
  const { rows } = await test.postgres.query<{
    change: string;
    by: string;
    details: Record<string, unknown>;
  }>('select change, changed_by as by, details from budget_changes where scope_id = $1 order by id', [
    scopeId,
  ]);
  return rows;
}

const userLimitOf = async (taskId: string) =>
  (await test.stores.limits.binding({ tenantId: 'tenant', userId: 'user', taskId })).find(
    ({ scope }) => scope.kind === 'user',
  )?.amount;

describe('asking', () => {
  it('parks the task in the open, once', async () => {
    const approval = await asking();
    const { taskId } = approval.task;
    await test.stores.approvals.request(approval);
    await test.stores.approvals.request(approval);
    expect(await test.stores.approvals.get(approval.approvalId)).toMatchObject({
      status: 'pending',
      taskId,
      exceeded: exceededOf(),
      expiresAt: approval.expiresAt,
    });
    expect(await test.stores.tasks.get(taskId)).toMatchObject({
      status: 'waiting',
      waiting: { reason: 'approval to pass the budget of user user', until: '2030-01-01T00:00:00.000Z' },
    });
    expect(await eventsOf(taskId)).toEqual(['task_started', 'approval_requested']);
  });

  it('does not park a task again that was decided about', async () => {
    const approval = await asking();
    const { taskId } = approval.task;
    const { approvals, tasks } = test.stores;
    await approvals.request(approval);
    await approvals.decide({ approvalId: approval.approvalId, status: 'approved', by: 'ada' });
    await tasks.note(taskId, 'run', { status: 'running', phase: 'running' });
    await approvals.request(approval);
    expect(await tasks.get(taskId)).toMatchObject({ status: 'running' });
    expect(await approvals.get(approval.approvalId)).toMatchObject({ status: 'approved' });
  });

  it('is not possible for a task that has ended', async () => {
    const approval = await asking();
    await test.stores.tasks.end(approval.task, { status: 'failed' }, []);
    await expect(test.stores.approvals.request(approval)).rejects.toThrow('has ended');
    expect(await test.stores.approvals.get(approval.approvalId)).toBeUndefined();
  });
});

describe('a decision', () => {
  it('with a raise becomes a grant for its task alone, on the limit that bound it, with a record of who made it', async () => {
    const approval = await asking();
    const { approvalId } = approval;
    const other = await asking();
    await test.stores.approvals.request(approval);
    const row = await test.stores.approvals.decide({
      approvalId,
      status: 'approved',
      raiseNanoUsd: DOLLAR / 4n,
      comment: 'fine',
      by: 'ada',
    });
    expect(row).toMatchObject({ status: 'approved', raiseNanoUsd: DOLLAR / 4n, decidedBy: 'ada' });
    expect(await userLimitOf(approval.task.taskId)).toBe((DOLLAR * 5n) / 4n);
    expect(await userLimitOf(other.task.taskId)).toBe(DOLLAR);
    expect(await changesOf('user')).toEqual([
      {
        change: 'granted',
        by: 'ada',
        details: {
          approvalId,
          taskId: approval.task.taskId,
          unit: 'usd',
          window: 'total',
          raiseUsd: '0.25',
        },
      },
    ]);
    expect(await eventsOf(approval.task.taskId)).toEqual([
      'task_started',
      'approval_requested',
      'approval_decided',
    ]);
  });

  it('is single use, also when ten come at once', async () => {
    const approval = await asking();
    const { approvalId } = approval;
    await test.stores.approvals.request(approval);
    const rows = await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        test.stores.approvals.decide(
          n % 2 === 0
            ? { approvalId, status: 'approved', raiseNanoUsd: 1n, by: `person-${n}` }
            : { approvalId, status: 'rejected', by: `person-${n}` },
        ),
      ),
    );
    const outcome = (row: ApprovalRow | undefined) => `${row?.status} by ${row?.decidedBy}`;
    expect(new Set(rows.map(outcome)).size).toBe(1);
    const { rows: grants } = await test.postgres.query('select 1 from budget_grants where approval_id = $1', [
      approvalId,
    ]);
    expect(grants).toHaveLength(rows[0]?.status === 'approved' ? 1 : 0);
    expect(await eventsOf(approval.task.taskId)).toHaveLength(3);
  });

  it('about an approval that nobody asked for is undefined', async () => {
    expect(
      await test.stores.approvals.decide({ approvalId: 'none', status: 'approved', by: 'ada' }),
    ).toBeUndefined();
  });
});

describe('the end of a task', () => {
  it('takes back what is still pending, before the last event', async () => {
    const approval = await asking();
    const { taskId } = approval.task;
    await test.stores.approvals.request(approval);
    await test.stores.tasks.end(approval.task, { status: 'cancelled' }, [
      { id: 'run:stream_end', type: 'stream_end' },
    ]);
    expect(await test.stores.approvals.get(approval.approvalId)).toMatchObject({
      status: 'withdrawn',
      decidedBy: 'weir',
    });
    expect(await eventsOf(taskId)).toEqual([
      'task_started',
      'approval_requested',
      'approval_decided',
      'stream_end',
    ]);
  });

  it('ends what was granted: the next run of its id starts without it', async () => {
    const approval = await asking();
    const { taskId } = approval.task;
    await test.stores.approvals.request(approval);
    const { approvalId } = approval;
    await test.stores.approvals.decide({ approvalId, status: 'approved', raiseNanoUsd: 5n, by: 'ada' });
    expect(await userLimitOf(taskId)).toBe(DOLLAR + 5n);
    await test.stores.tasks.end(approval.task, { status: 'failed' }, []);
    await beginTask(test, taskId, [], 'run-2');
    expect(await userLimitOf(taskId)).toBe(DOLLAR);
  });
});

describe('the list', () => {
  it('has those that wait oldest first, by tenant and task', async () => {
    const [first, second] = [await asking(), await asking()];
    const list = (taskId?: string) => test.stores.approvals.list({ status: 'pending', taskId });
    for (const approval of [first, second]) await test.stores.approvals.request(approval);
    const ours = (await list()).map((row) => row.approvalId).filter((id) => /^run/.test(id));
    expect(ours.indexOf(first.approvalId)).toBeLessThan(ours.indexOf(second.approvalId));
    expect((await list(second.task.taskId)).map((row) => row.approvalId)).toEqual([second.approvalId]);
    expect(await test.stores.approvals.list({ tenantId: 'stranger' })).toEqual([]);
    await test.stores.approvals.decide({ approvalId: second.approvalId, status: 'rejected', by: 'ada' });
    expect(await list(second.task.taskId)).toEqual([]);
  });
});

describe('a raise', () => {
  it('adds to every limit of the unit, once per key', async () => {
    const limits = [hardLimit('usd', 10n), { ...hardLimit('usd', 20n), window: 'day' } as const];
    const { task } = await asking([...limits, hardLimit('tokens', 5n)]);
    const raise = { task, nanoUsd: 3n, by: 'ada', changeKey: `raise:${task.taskId}` };
    const once = await test.stores.approvals.raise(raise);
    expect(await test.stores.approvals.raise(raise)).toEqual(once);
    expect(once.kind === 'raised' ? once.limits.map(({ amount }) => amount) : once).toEqual([13n, 23n, 5n]);
    expect(await test.stores.limits.get('tenant', { kind: 'task', id: task.taskId })).toMatchObject([
      { amount: 13n },
      { amount: 23n },
      { amount: 5n },
    ]);
    expect(await changesOf(task.taskId)).toMatchObject([{ change: 'raised', by: 'ada' }]);
  });

  it('adds up when several come at once, also where the configured limits hold', async () => {
    const { task } = await asking([hardLimit('usd', 10n)]);
    await test.stores.limits.remove('tenant', { kind: 'task', id: task.taskId }, { by: 'test' });
    await Promise.all(
      [1, 2, 3, 4, 5].map((n) =>
        test.stores.approvals.raise({ task, nanoUsd: 2n, by: 'ada', changeKey: `${task.taskId}:${n}` }),
      ),
    );
    expect(await test.stores.limits.get('tenant', { kind: 'task', id: task.taskId })).toMatchObject([
      { unit: 'usd', amount: 17n },
    ]);
  });

  it('makes no limit where there was none, and none that cannot be counted', async () => {
    const { task } = await asking([hardLimit('usd', 10n)]);
    const raise = { task, by: 'ada', changeKey: `raise:${task.taskId}` };
    expect(await test.stores.approvals.raise({ ...raise, tokens: 5 })).toEqual({
      kind: 'nothing',
      unit: 'tokens',
    });
    expect(await test.stores.approvals.raise({ ...raise, nanoUsd: MAX_LIMIT_NANO_USD })).toEqual({
      kind: 'too_much',
      unit: 'usd',
    });
    expect(await changesOf(task.taskId)).toEqual([]);
  });
});

describe('tasks that wait for a budget', () => {
  it('are found by every scope they pay with, and by no other', async () => {
    const approval = await asking();
    const { taskId } = approval.task;
    const waitingOn = (kind: 'tenant' | 'user' | 'session' | 'task', id: string, tenantId = 'tenant') =>
      test.stores.tasks.waitingOn(tenantId, { kind, id });
    await test.stores.tasks.note(taskId, 'run', {
      status: 'waiting',
      phase: 'waiting',
      waiting: { reason: 'budget of user user' },
    });
    expect(await waitingOn('tenant', 'tenant')).toContain(taskId);
    expect(await waitingOn('user', 'user')).toContain(taskId);
    expect(await waitingOn('task', taskId)).toEqual([taskId]);
    expect(await waitingOn('user', 'somebody')).toEqual([]);
    expect(await waitingOn('session', 'user')).toEqual([]);
    expect(await waitingOn('user', 'user', 'stranger')).toEqual([]);
    expect(await waitingOn('task', taskId)).toEqual([taskId]);
    await test.stores.tasks.note(taskId, 'run', {
      status: 'waiting',
      phase: 'waiting',
      waiting: { reason: 'simulated rpm' },
    });
    expect(await waitingOn('task', taskId)).toEqual([]);
    await test.stores.approvals.request(approval);
    expect(await waitingOn('task', taskId)).toEqual([taskId]);
  });
});
