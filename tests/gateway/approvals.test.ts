// Routes of approvals and raises: real stores, a task that answers what the test wrote down.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  TaskNotRunningError,
  UpdateRefusedError,
  UpdateUnansweredError,
} from '../../src/client/task-update.ts';
import { notifyBudgetChanged } from '../../src/gateway/budget-changed.ts';
import { beginTask } from '../support/calls.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

const EXCEEDED = {
  type: 'BudgetExceeded',
  scope: 'user',
  id: 'user',
  unit: 'usd',
  window: 'day',
  limit: '1.00',
  settled: '0.95',
  held: '0.00',
  needed: '0.10',
  resetsAt: '2030-01-02T00:00:00.000Z',
} as const;

let gateway: TestGateway;
let ids = 0;

beforeAll(async () => {
  gateway = await openTestGateway();
});

afterAll(() => gateway[Symbol.asyncDispose]());

beforeEach(() => {
  gateway.temporal.told.splice(0);
  gateway.temporal.takesCancel = true;
});

/** A parked task and the id of what it asks. */
async function asking(unit: 'usd' | 'tokens' = 'usd'): Promise<{ taskId: string; approvalId: string }> {
  ids += 1;
  const taskId = `task-${ids}`;
  const approvalId = `run.${taskId}.1`;
  await beginTask(gateway.test, taskId);
  await gateway.test.stores.approvals.request({
    approvalId,
    task: { taskId, runId: 'run', tenantId: 'tenant' },
    userId: 'user',
    stepId: 'answer',
    callKey: `${taskId}:run:answer:1`,
    exceeded: { ...EXCEEDED, unit },
    onTimeout: 'reject',
    expiresAt: new Date('2030-01-01T00:00:00Z'),
  });
  return { taskId, approvalId };
}

/** As a task does that takes the decision. */
function takeDecisions(): void {
  gateway.temporal.answerUpdate = async (_, argument) => {
    const { approvalId, by } = argument as { approvalId: string; by: string };
    await gateway.test.stores.approvals.decide({ approvalId, status: 'approved', raiseNanoUsd: 5n, by });
    return { approvalId, status: 'approved', limits: [] };
  };
}

const post = (url: string, payload: object) => gateway.app.inject({ method: 'POST', url, payload });

describe('approvals', () => {
  it('are listed while they wait, and shown one by one', async () => {
    const { taskId, approvalId } = await asking();
    const shown = {
      ...{ approvalId, taskId, tenantId: 'tenant', userId: 'user', status: 'pending' },
      ...{ exceeded: EXCEEDED, onTimeout: 'reject', expiresAt: '2030-01-01T00:00:00.000Z' },
    };
    const list = await gateway.app.inject(`/api/v1/approvals?taskId=${taskId}`);
    expect(list.json()).toMatchObject({ approvals: [shown] });
    expect((await gateway.app.inject(`/api/v1/approvals/${approvalId}`)).json()).toMatchObject(shown);
    const others = await gateway.app.inject(`/api/v1/approvals?taskId=${taskId}&status=rejected`);
    expect(others.json()).toEqual({ approvals: [] });
    expect((await gateway.app.inject('/api/v1/approvals?status=perhaps')).statusCode).toBe(400);
  });

  it('are decided by their task, which is told who decides', async () => {
    const { taskId, approvalId } = await asking();
    takeDecisions();
    const answer = await post(`/api/v1/approvals/${approvalId}`, { decision: 'approve', raiseUsd: 0.5 });
    expect(answer.statusCode).toBe(200);
    expect(answer.json()).toMatchObject({ approvalId, status: 'approved', decidedBy: 'api' });
    expect(gateway.temporal.told).toEqual([
      {
        taskId,
        what: 'decideApproval',
        argument: { approvalId, decision: 'approve', raiseUsd: 0.5, by: 'api' },
      },
    ]);
  });

  it('are decided once: the second decision is a conflict and reaches no task', async () => {
    const { approvalId } = await asking();
    takeDecisions();
    await post(`/api/v1/approvals/${approvalId}`, { decision: 'approve' });
    gateway.temporal.told.splice(0);
    const second = await post(`/api/v1/approvals/${approvalId}`, { decision: 'reject', by: 'ada' });
    expect(second.statusCode).toBe(409);
    expect(second.json()).toMatchObject({
      type: 'AlreadyDecided',
      detail: `approval ${approvalId} is approved`,
    });
    expect(gateway.temporal.told).toEqual([]);
  });

  it.each([
    [
      new UpdateRefusedError({ type: 'AlreadyDecided', message: 'is decided', faults: [] }, undefined),
      409,
      'AlreadyDecided',
    ],
    [
      new UpdateRefusedError({ type: 'NotPending', message: 'asks nothing', faults: [] }, undefined),
      409,
      'NotPending',
    ],
    [new TaskNotRunningError('task-1', undefined), 409, 'NotRunning'],
    [new UpdateUnansweredError('task-1', new Error('too late')), 503, 'Unanswered'],
  ])('tell what became of a decision: %s', async (error, status, type) => {
    const { approvalId } = await asking();
    gateway.temporal.answerUpdate = () => Promise.reject(error);
    const answer = await post(`/api/v1/approvals/${approvalId}`, { decision: 'approve' });
    expect(answer.statusCode).toBe(status);
    expect(answer.json()).toMatchObject({ type });
  });

  it.each([
    [{}, 'decision'],
    [{ decision: 'maybe' }, 'decision'],
    [{ decision: 'approve', raiseUsd: '-1' }, 'raiseUsd'],
    [{ decision: 'approve', raiseUsd: 0 }, 'raiseUsd'],
    [{ decision: 'reject', raiseUsd: 1 }, 'raiseUsd'],
    [{ decision: 'approve', by: ' ' }, 'by'],
    [{ decision: 'approve', approvalId: 'x' }, ''],
  ])('refuse %j without asking the task', async (body, path) => {
    const { approvalId } = await asking();
    const answer = await post(`/api/v1/approvals/${approvalId}`, body);
    expect(answer.statusCode).toBe(400);
    expect(answer.json()).toMatchObject({ faults: [{ path }] });
    expect(gateway.temporal.told).toEqual([]);
  });

  it('refuse to raise a limit in tokens by USD', async () => {
    const { approvalId } = await asking('tokens');
    const answer = await post(`/api/v1/approvals/${approvalId}`, { decision: 'approve', raiseUsd: 1 });
    expect(answer.statusCode).toBe(400);
    expect(answer.json()).toMatchObject({ faults: [{ path: 'raiseUsd' }] });
  });

  it('are not found where there are none', async () => {
    expect((await gateway.app.inject('/api/v1/approvals/none')).statusCode).toBe(404);
    expect((await post('/api/v1/approvals/none', { decision: 'approve' })).statusCode).toBe(404);
  });
});

describe('a raise', () => {
  it('is made by the task and answers its limits', async () => {
    const { taskId } = await asking();
    const limits = [{ unit: 'usd', window: 'total', amount: '1.50' }] as const;
    gateway.temporal.answerUpdate = async () => ({ approvalId: '', status: 'approved', limits });
    const answer = await post(`/api/v1/tasks/${taskId}/budget`, { usd: '0.50', by: 'ada' });
    expect(answer.statusCode).toBe(200);
    expect(answer.json()).toEqual({ taskId, limits });
    expect(gateway.temporal.told).toEqual([
      { taskId, what: 'raiseBudget', argument: { usd: '0.50', by: 'ada' } },
    ]);
  });

  it('tells what was wrong with it, as the task says', async () => {
    const { taskId } = await asking();
    const faults = [{ path: 'usd', expected: 'more', got: '0' }];
    gateway.temporal.answerUpdate = () =>
      Promise.reject(
        new UpdateRefusedError({ type: 'InvalidUpdate', message: 'invalid', faults }, undefined),
      );
    const answer = await post(`/api/v1/tasks/${taskId}/budget`, { usd: 0 });
    expect(answer.statusCode).toBe(400);
    expect(answer.json()).toMatchObject({ faults });
  });

  it('is a conflict for a task that has ended, and not found for one that never was', async () => {
    const { taskId } = await asking();
    await gateway.test.stores.tasks.end({ taskId, runId: 'run' }, { status: 'failed' }, []);
    const late = await post(`/api/v1/tasks/${taskId}/budget`, { usd: 1 });
    expect(late.statusCode).toBe(409);
    expect(late.json()).toMatchObject({ type: 'NotRunning' });
    expect((await post('/api/v1/tasks/none/budget', { usd: 1 })).statusCode).toBe(404);
    expect(gateway.temporal.told).toEqual([]);
  });
});

describe('a changed budget', () => {
  it('wakes every task that waits for it, whatever becomes of the others', async () => {
    const [one, other] = [await asking(), await asking()];
    const warnings: string[] = [];
    const parts = {
      ...gateway.parts,
      log: { ...gateway.parts.log, warn: (message: string) => void warnings.push(message) },
      client: {
        budgetChanged: async (taskId: string) => {
          if (taskId === one.taskId) throw new Error('temporal is away');
          return gateway.temporal.budgetChanged(taskId);
        },
      },
    };
    const reached = await notifyBudgetChanged(parts, 'tenant', { kind: 'user', id: 'user' });
    expect(gateway.temporal.told).toContainEqual({
      taskId: other.taskId,
      what: 'budgetChanged',
      argument: undefined,
    });
    expect(reached).toBe(gateway.temporal.told.length);
    expect(warnings).toEqual(['a task parked on a budget could not be woken']);
  });

  it('never fails the change itself', async () => {
    const stores = { tasks: { waitingOn: () => Promise.reject(new Error('postgres is away')) } };
    const log = { ...gateway.parts.log, warn: () => undefined };
    const parts = { ...gateway.parts, stores, log };
    expect(await notifyBudgetChanged(parts, 'tenant', { kind: 'user', id: 'user' })).toBe(0);
  });
});
