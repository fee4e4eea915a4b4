// A task that asks somebody to let it pass a budget, on fake activities.

import { CancelledFailure, type WorkflowFailedError, type WorkflowHandle } from '@temporalio/client';
import { describe, expect, it } from 'vitest';
import type { Activities } from '../../src/activities/index.ts';
import type { ApprovalPolicy } from '../../src/task/input.ts';
import {
  BUDGET_CHANGED_SIGNAL,
  DECIDE_APPROVAL_UPDATE,
  RAISE_BUDGET_UPDATE,
} from '../../src/workflows/messages.ts';
import { eventually } from '../support/eventually.ts';
import {
  answer,
  failureOf,
  fakeActivities,
  INPUT,
  REFUSAL,
  type Recorded,
  refusalOf,
  start,
  statusOf,
  timersOf,
} from '../support/fake-activities.ts';
import { SETTINGS, startWorkflowWorker } from '../support/workflow-worker.ts';

const ASK = { kind: 'ask', failure: REFUSAL } as const;

/** A task whose first `asks` visits have to ask. */
function asking(
  asks: number,
  change: Partial<ApprovalPolicy> = {},
  overrides: Partial<Activities> = {},
): Recorded {
  return fakeActivities({
    begin: async () => ({
      kind: 'go',
      settings: { ...SETTINGS, onExceeded: 'ask', approval: { ...SETTINGS.approval, ...change } },
    }),
    callModel: async (input) => (input.visit <= asks ? ASK : answer(input)),
    ...overrides,
  });
}

/** Waits until a task asks, and answers the id of what it asks. */
function asked(handle: WorkflowHandle, after?: string): Promise<string> {
  return eventually(async () => {
    const { pendingApproval } = await statusOf(handle);
    if (pendingApproval === null || pendingApproval.approvalId === after)
      throw new Error('the task asks nothing new');
    return pendingApproval.approvalId;
  });
}

const decide = (handle: WorkflowHandle, decision: Record<string, unknown>) =>
  handle.executeUpdate(DECIDE_APPROVAL_UPDATE, { args: [{ by: 'ada', decision: 'approve', ...decision }] });

describe('a task that asks', () => {
  it('parks, is approved with a raise, and goes on from its step', async () => {
    const activities = asking(1);
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const approvalId = await asked(handle);
    const runId = activities.calls[0]?.runId;
    expect(approvalId).toBe(`${runId}.answer.1.1`);
    expect(await statusOf(handle)).toMatchObject({
      phase: 'waiting',
      waiting: { reason: 'approval to pass the budget of task t' },
      pendingApproval: { approvalId, exceeded: REFUSAL },
    });
    expect(await decide(handle, { approvalId, raiseUsd: 0.25, comment: 'fine' })).toEqual({
      approvalId,
      status: 'approved',
      raiseUsd: '0.25',
    });
    expect(await handle.result()).toMatchObject({ status: 'completed' });
    expect(activities.calls.map(({ visit, callKey }) => [visit, callKey])).toEqual([
      [1, activities.calls[0]?.callKey],
      [2, activities.calls[0]?.callKey],
    ]);
    expect(activities.requested).toMatchObject([{ approvalId, exceeded: REFUSAL, onTimeout: 'reject' }]);
    expect(activities.decided).toMatchObject([
      { approvalId, status: 'approved', raiseUsd: '0.25', comment: 'fine', by: 'ada' },
    ]);
    expect((await statusOf(handle)).pendingApproval).toBeNull();
    expect(await timersOf(handle)).toEqual(['waits for approval to pass the budget of task t']);
  });

  it('fails typed when it is rejected, with who said so and why', async () => {
    const activities = asking(1);
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const approvalId = await asked(handle);
    await decide(handle, { approvalId, decision: 'reject', comment: 'too dear' });
    const details = {
      type: 'ApprovalRejected',
      approvalId,
      reason: 'approval to pass the budget of task t',
      by: 'ada',
      comment: 'too dear',
      exceeded: REFUSAL,
    };
    expect(await failureOf(handle)).toMatchObject({ type: 'ApprovalRejected', details: [details] });
    expect(activities.finished).toMatchObject([{ status: 'failed', error: { type: 'ApprovalRejected' } }]);
  });

  it('times out as rejected', async () => {
    const activities = asking(1, { timeoutSeconds: 1 });
    await using worker = await startWorkflowWorker(activities);
    expect(await failureOf(await start(worker, INPUT))).toMatchObject({
      type: 'ApprovalTimedOut',
      details: [{ exceeded: REFUSAL }],
    });
    expect(activities.decided).toMatchObject([{ status: 'timed_out' }]);
  });

  it('times out as approved without a raise, and fails with the budget when that is not enough', async () => {
    const enough = asking(1, { timeoutSeconds: 1, onTimeout: 'approve' });
    await using one = await startWorkflowWorker(enough);
    expect(await (await start(one, INPUT)).result()).toMatchObject({ status: 'completed' });
    const never = asking(99, { timeoutSeconds: 1, onTimeout: 'approve' });
    await using other = await startWorkflowWorker(never);
    expect(await failureOf(await start(other, INPUT))).toMatchObject({ type: 'BudgetExceeded' });
    expect(never.requested).toHaveLength(1);
    expect(never.calls).toHaveLength(2);
  });

  it('waits for an answer no longer than its deadline', async () => {
    const activities = asking(1);
    await using worker = await startWorkflowWorker(activities);
    const deadline = new Date(Date.now() + 1_500).toISOString();
    expect(await failureOf(await start(worker, { ...INPUT, deadline }))).toMatchObject({
      type: 'ApprovalTimedOut',
    });
    expect(activities.requested[0]?.expiresAt).toBe(deadline);
  });

  it('does not count the time of asking as the time of its call', async () => {
    const activities = asking(1, {}, {});
    const begin = async () =>
      ({
        kind: 'go',
        settings: { ...SETTINGS, callMaxDurationMs: 1_500, onExceeded: 'ask' },
      }) as const;
    await using worker = await startWorkflowWorker({ ...activities, begin });
    const handle = await start(worker, INPUT);
    const approvalId = await asked(handle);
    await eventually(async () => {
      const { historyLength } = await handle.describe();
      expect(historyLength).toBeGreaterThan(0);
      const startedAt = (await handle.describe()).startTime.getTime();
      expect(Date.now() - startedAt).toBeGreaterThan(2_000);
    });
    await decide(handle, { approvalId });
    expect(await handle.result()).toMatchObject({ status: 'completed' });
  });

  it('asks anew after each raise that was too small, and not without one', async () => {
    const activities = asking(99);
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const first = await asked(handle);
    await decide(handle, { approvalId: first, raiseUsd: '0.01' });
    const second = await asked(handle, first);
    expect(second).toBe(first.replace(/1$/, '2'));
    await decide(handle, { approvalId: second });
    expect(await failureOf(handle)).toMatchObject({ type: 'BudgetExceeded', details: [REFUSAL] });
    expect(activities.requested).toHaveLength(2);
    expect(activities.calls).toHaveLength(3);
  });

  it('looks again when a budget changes, with the approval still open, and takes it back once it goes on', async () => {
    const activities = asking(2);
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const approvalId = await asked(handle);
    await handle.signal(BUDGET_CHANGED_SIGNAL);
    await eventually(() => expect(activities.calls).toHaveLength(2));
    expect(await asked(handle)).toBe(approvalId);
    await handle.executeUpdate(RAISE_BUDGET_UPDATE, { args: [{ usd: 1, by: 'ada' }] });
    expect(await handle.result()).toMatchObject({ status: 'completed' });
    expect(activities.requested).toHaveLength(1);
    expect(activities.decided).toMatchObject([{ approvalId, status: 'withdrawn' }]);
  });

  it('takes one approval back before it asks to pass another limit', async () => {
    const other = { ...REFUSAL, scope: 'user', id: 'user' } as const;
    const activities = asking(
      0,
      {},
      {
        callModel: async (input) => {
          if (input.visit > 2) return answer(input);
          return input.visit === 1 ? ASK : { kind: 'ask', failure: other };
        },
      },
    );
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const first = await asked(handle);
    await handle.signal(BUDGET_CHANGED_SIGNAL);
    const second = await asked(handle, first);
    await decide(handle, { approvalId: second });
    await handle.result();
    expect(activities.decided.map(({ approvalId, status }) => [approvalId, status])).toEqual([
      [first, 'withdrawn'],
      [second, 'approved'],
    ]);
  });

  it('ends as cancelled while it is parked, and takes no decision then', async () => {
    const activities = asking(1);
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    await asked(handle);
    await handle.cancel();
    const error: unknown = await handle.result().catch((cause: unknown) => cause);
    expect((error as WorkflowFailedError).cause).toBeInstanceOf(CancelledFailure);
    expect(activities.finished).toMatchObject([{ status: 'cancelled' }]);
    expect(activities.decided).toEqual([]);
  });

  it('acts on what was recorded, where a decision was recorded before', async () => {
    const activities = asking(1, {}, { recordDecision: async () => ({ status: 'rejected', by: 'grace' }) });
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const approvalId = await asked(handle);
    expect(await decide(handle, { approvalId })).toEqual({ approvalId, status: 'rejected' });
    expect(await failureOf(handle)).toMatchObject({ type: 'ApprovalRejected', details: [{ by: 'grace' }] });
  });

  it('survives a worker: the next one takes the decision', async () => {
    const activities = asking(1);
    const first = await startWorkflowWorker(activities);
    const handle = await start(first, INPUT);
    const approvalId = await asked(handle);
    await first[Symbol.asyncDispose]();
    await using second = await startWorkflowWorker(activities, first.taskQueue);
    const again = second.temporal.workflow.getHandle(handle.workflowId);
    await decide(again, { approvalId, raiseUsd: 1 });
    expect(await again.result()).toMatchObject({ status: 'completed' });
    expect(activities.requested).toHaveLength(1);
  });
});

describe('a decision', () => {
  it('is refused a second time, and by a task that asks nothing', async () => {
    const recording = Promise.withResolvers<void>();
    const activities = asking(
      2,
      {},
      {
        recordDecision: async ({ status, raiseUsd = '' }) => {
          if (status === 'approved') await recording.promise;
          return { status, raiseUsd, by: 'ada' };
        },
      },
    );
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const approvalId = await asked(handle);
    const first = decide(handle, { approvalId, raiseUsd: 1 });
    await eventually(() => expect(activities.decided).toHaveLength(1));
    expect((await refusalOf(decide(handle, { approvalId, decision: 'reject' }))).type).toBe('AlreadyDecided');
    recording.resolve();
    await first;
    const next = await asked(handle, approvalId);
    expect((await refusalOf(decide(handle, { approvalId }))).type).toBe('AlreadyDecided');
    expect(await refusalOf(decide(handle, { approvalId: 'another' }))).toMatchObject({
      type: 'NotPending',
      message: `the task asks for approval ${next}, not for another`,
    });
    await decide(handle, { approvalId: next });
    await handle.result();
    // A recording that took long was begun again; nobody else's was begun.
    expect(new Set(activities.decided.map(({ status }) => status))).toEqual(new Set(['approved']));
  });

  it('is refused where it is not valid, and the task goes on asking', async () => {
    const activities = asking(1);
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const approvalId = await asked(handle);
    const refusal = await refusalOf(decide(handle, { approvalId, raiseUsd: '-1' }));
    expect(refusal).toMatchObject({ type: 'InvalidUpdate', details: [{ faults: [{ path: 'raiseUsd' }] }] });
    expect((await refusalOf(handle.executeUpdate(DECIDE_APPROVAL_UPDATE))).type).toBe('InvalidUpdate');
    expect(activities.decided).toEqual([]);
    expect(await asked(handle)).toBe(approvalId);
    await handle.cancel();
  });

  it('cannot raise a limit in tokens by USD', async () => {
    const tokens = { ...REFUSAL, unit: 'tokens', limit: '10', settled: '9', held: '0', needed: '2' } as const;
    const activities = asking(
      0,
      {},
      { callModel: async (input) => (input.visit === 1 ? { kind: 'ask', failure: tokens } : answer(input)) },
    );
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const approvalId = await asked(handle);
    const refusal = await refusalOf(decide(handle, { approvalId, raiseUsd: 1 }));
    expect(refusal.message).toContain('the limit counts tokens, USD cannot raise it');
    await decide(handle, { approvalId });
    expect(await handle.result()).toMatchObject({ status: 'completed' });
  });
});
