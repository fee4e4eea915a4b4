// What a parked task writes down, on real stores, through Temporal's own environment for activities.

import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createApprovalActivities } from '../../src/activities/approvals.ts';
import { beginTask } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { hardLimit, openTestStores, type TestStores } from '../support/stores.ts';

let test: TestStores;
let ids = 0;

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

async function stage() {
  ids += 1;
  const task = { taskId: `task-${ids}`, runId: 'run', tenantId: 'tenant' };
  await beginTask(test, task.taskId, [hardLimit('usd', 1_000_000_000n), hardLimit('tokens', 10n)]);
  const warnings: string[] = [];
  const activities = createApprovalActivities({
    approvals: test.stores.approvals,
    events: test.stores.events,
    log: { ...test.log, warn: (message) => void warnings.push(message) },
  });
  const environment = new MockActivityEnvironment({}, { logger: new DefaultLogger('ERROR') });
  const request = {
    ...task,
    userId: 'user',
    approvalId: `run.${task.taskId}`,
    stepId: 'answer',
    callKey: `${task.taskId}:run:answer:1`,
    exceeded: {
      type: 'BudgetExceeded',
      scope: 'task',
      id: task.taskId,
      unit: 'usd',
      window: 'total',
      limit: '1.00',
      settled: '0.95',
      held: '0.00',
      needed: '0.10',
    },
    onTimeout: 'reject',
    expiresAt: '2030-01-01T00:00:00.000Z',
  } as const;
  return { activities, environment, task, request, warnings };
}

it('asks in the open: a row, and an event that readers have at once', async () => {
  const { activities, environment, request, task } = await stage();
  await environment.run(activities.requestApproval, request);
  await environment.run(activities.requestApproval, request);
  // Numbers reach their rows a moment after readers.
  const stored = await eventually(async () => {
    const events = await test.stores.events.stored(task.taskId, 0, 10);
    expect(events.map(({ type }) => type)).toEqual(['task_started', 'approval_requested']);
    return events;
  });
  expect(stored[1]?.data).toMatchObject({ approvalId: request.approvalId, onTimeout: 'reject' });
});

it('answers a repeated decision with what was recorded first', async () => {
  const { activities, environment, request, task } = await stage();
  const { approvalId } = request;
  await environment.run(activities.requestApproval, request);
  const decide = { ...task, approvalId, status: 'approved', raiseUsd: '0.50', by: 'ada' } as const;
  const first = await environment.run(activities.recordDecision, decide);
  expect(first).toEqual({ status: 'approved', raiseUsd: '0.50', by: 'ada' });
  expect(await environment.run(activities.recordDecision, decide)).toEqual(first);
  expect(
    await environment.run(activities.recordDecision, { ...task, approvalId, status: 'timed_out' as const }),
  ).toEqual(first);
  const [limit] = await test.stores.limits.binding({
    tenantId: 'tenant',
    userId: 'user',
    taskId: task.taskId,
  });
  expect(limit?.amount).toBe(1_500_000_000n);
});

it('names time itself where nobody decided', async () => {
  const { activities, environment, request, task } = await stage();
  const { approvalId } = request;
  await environment.run(activities.requestApproval, request);
  expect(
    await environment.run(activities.recordDecision, { ...task, approvalId, status: 'timed_out' as const }),
  ).toEqual({ status: 'timed_out', by: 'weir' });
});

it('fails where there is nothing to decide, so that Temporal tries again', async () => {
  const { activities, environment, task } = await stage();
  const decide = { ...task, approvalId: 'none', status: 'rejected', by: 'ada' } as const;
  await expect(environment.run(activities.recordDecision, decide)).rejects.toThrow(
    'approval none has no row',
  );
});

it('raises the limits of the task and answers them in their own units', async () => {
  const { activities, environment, task } = await stage();
  const raise = { ...task, usd: '0.25', tokens: 5, by: 'ada', changeKey: `raise:${task.taskId}` };
  const expected = {
    kind: 'raised',
    limits: [
      { unit: 'usd', window: 'total', amount: '1.25' },
      { unit: 'tokens', window: 'total', amount: '15' },
    ],
  };
  expect(await environment.run(activities.raiseBudget, raise)).toEqual(expected);
  expect(await environment.run(activities.raiseBudget, raise)).toEqual(expected);
});

it('leaves events to the sweeper where they cannot be published now', async () => {
  const { request, warnings, task } = await stage();
  const activities = createApprovalActivities({
    approvals: test.stores.approvals,
    events: { publishPending: () => Promise.reject(new Error('redis is away')) },
    log: { ...test.log, warn: (message) => void warnings.push(message) },
  });
  await activities.requestApproval(request);
  expect(warnings).toEqual(['events left to the sweeper']);
  expect(await test.stores.approvals.list({ taskId: task.taskId })).toHaveLength(1);
});
