// A task that asks to pass a budget, through real workers, stores and Temporal.

import { type ApplicationFailure, WorkflowFailedError } from '@temporalio/client';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TaskNotRunningError, UpdateRefusedError } from '../../src/client/task-update.ts';
import type { ApprovalRow } from '../../src/stores/approvals.ts';
import type { BudgetExceededDetails } from '../../src/task/failure.ts';
import { parseUsd } from '../../src/task/money.ts';
import { eventually } from '../support/eventually.ts';
import { type Fleet, type FleetWorker, openFleet } from '../support/fleet.ts';
import { hardLimit } from '../support/stores.ts';

const QUERY = 'What is a weir? A weir is a low dam across a river.';

let fleet: Fleet;
let worker: FleetWorker;

beforeAll(async () => {
  fleet = await openFleet();
  worker = await fleet.startWorker();
}, 60_000);

afterAll(() => fleet[Symbol.asyncDispose]());

/** What a task asks, once it does. */
function asked(taskId: string): Promise<ApprovalRow> {
  return eventually(async () => {
    const [pending] = await fleet.test.stores.approvals.list({ taskId, status: 'pending' });
    if (pending === undefined) throw new Error(`${taskId} asks nothing yet`);
    return pending;
  });
}

const eventsOf = async (taskId: string) =>
  (await fleet.test.stores.events.stored(taskId, 0, 100)).map(({ type }) => type);

const requestsOf = (taskId: string) =>
  fleet.provider.requests().filter(({ attemptKey }) => attemptKey?.startsWith(`${taskId}:`));

it('stays parked through the death of every worker, and goes on from its step once it is approved with a raise', async () => {
  await fleet.test.stores.limits.set('default', { kind: 'user', id: 'ada' }, [hardLimit('usd', 1_000n)], {
    by: 'test',
  });
  const { taskId, runId } = await fleet.tasks.start({
    userId: 'ada',
    query: QUERY,
    budget: { usd: '1.00', onExceeded: 'ask' },
  });
  const { approvalId, exceeded } = await asked(taskId);
  expect(exceeded).toMatchObject({ scope: 'user', id: 'ada', limit: '0.000001' });
  expect(await fleet.tasks.status(taskId)).toMatchObject({ pendingApproval: { approvalId } });
  await worker.kill();
  expect(await fleet.test.stores.tasks.get(taskId)).toMatchObject({ status: 'waiting' });
  worker = await fleet.startWorker();
  const decision = { approvalId, decision: 'approve', raiseUsd: '0.10', by: 'grace' } as const;
  expect(await fleet.tasks.decideApproval(taskId, decision)).toEqual({
    approvalId,
    status: 'approved',
    raiseUsd: '0.10',
  });
  // Refused whether the task is still at its call or has ended meanwhile.
  const second = await fleet.tasks
    .decideApproval(taskId, { approvalId, decision: 'reject', by: 'mallory' })
    .catch((error: unknown) => error);
  if (!(second instanceof TaskNotRunningError)) {
    expect(second).toBeInstanceOf(UpdateRefusedError);
    expect(second).toMatchObject({ type: 'AlreadyDecided' });
  }
  expect(await fleet.tasks.result(taskId)).toMatchObject({
    status: 'completed',
    steps: [{ stepId: 'answer' }],
  });
  expect(requestsOf(taskId).map(({ attemptKey }) => attemptKey)).toEqual([
    expect.stringContaining(`${taskId}:${runId}:answer:1#0.2.`),
  ]);
  expect(await fleet.test.stores.approvals.get(approvalId)).toMatchObject({
    status: 'approved',
    decidedBy: 'grace',
  });
  const others = await eventsOf(taskId);
  expect(others.filter((type) => type.startsWith('approval'))).toEqual([
    'approval_requested',
    'approval_decided',
  ]);
  // The raise was for that task alone.
  const refused: unknown = await fleet.tasks
    .start({ userId: 'ada', query: QUERY })
    .then((next) => fleet.tasks.result(next.taskId))
    .catch((error: unknown) => error);
  expect((refused as WorkflowFailedError).cause).toMatchObject({ type: 'BudgetExceeded' });
}, 60_000);

it('times out as its policy says, when nobody decides', async () => {
  const { taskId } = await fleet.tasks.start({
    userId: 'bob',
    query: QUERY,
    budget: { usd: '0.000001', onExceeded: 'ask' },
    approval: { timeoutSeconds: 1, onTimeout: 'reject' },
  });
  const error: unknown = await fleet.tasks.result(taskId).catch((cause: unknown) => cause);
  expect(error).toBeInstanceOf(WorkflowFailedError);
  expect((error as WorkflowFailedError).cause as ApplicationFailure).toMatchObject({
    type: 'ApprovalTimedOut',
    details: [{ exceeded: { scope: 'task', limit: '0.000001' } }],
  });
  const approvals = await fleet.test.stores.approvals.list({ taskId });
  expect(approvals).toMatchObject([{ status: 'timed_out', decidedBy: 'weir' }]);
  expect(await fleet.test.stores.tasks.get(taskId)).toMatchObject({ status: 'failed' });
  expect(requestsOf(taskId)).toEqual([]);
}, 60_000);

it('goes on when its own budget is raised instead, and takes back what it asked', async () => {
  const { taskId } = await fleet.tasks.start({
    userId: 'carol',
    query: QUERY,
    budget: { usd: '0.000001', onExceeded: 'ask' },
  });
  const { approvalId } = await asked(taskId);
  expect(await fleet.tasks.raiseBudget(taskId, { usd: '0.50', by: 'grace' })).toEqual({
    limits: [{ unit: 'usd', window: 'total', amount: '0.500001' }],
  });
  expect(await fleet.tasks.result(taskId)).toMatchObject({ status: 'completed' });
  expect(await fleet.test.stores.approvals.get(approvalId)).toMatchObject({ status: 'withdrawn' });
}, 60_000);

it('takes back what it asked when it is cancelled', async () => {
  const { taskId } = await fleet.tasks.start({
    userId: 'dave',
    query: QUERY,
    budget: { usd: '0.000001', onExceeded: 'ask' },
  });
  const { approvalId } = await asked(taskId);
  await eventually(async () => expect((await fleet.tasks.status(taskId)).pendingApproval).not.toBeNull());
  await fleet.tasks.cancel(taskId);
  await fleet.tasks.result(taskId).catch(() => undefined /* cancelled, as asked */);
  expect(await fleet.test.stores.approvals.get(approvalId)).toMatchObject({ status: 'withdrawn' });
  expect((await eventsOf(taskId)).slice(-3)).toEqual(['step_failed', 'task_cancelled', 'stream_end']);
  await expect(
    fleet.tasks.decideApproval(taskId, { approvalId, decision: 'approve', by: 'grace' }),
  ).rejects.toBeInstanceOf(TaskNotRunningError);
  await expect(fleet.tasks.raiseBudget('never-started', { usd: 1, by: 'grace' })).rejects.toBeInstanceOf(
    TaskNotRunningError,
  );
  expect(await fleet.tasks.budgetChanged(taskId)).toBe(false);
}, 60_000);

it('takes a cheaper model where the budget has no room for the one that was asked for', async () => {
  const { taskId } = await fleet.tasks.start({
    userId: 'erin',
    query: QUERY,
    model: 'simulated/large',
    maxOutputTokens: 1_000,
    budget: { usd: '0.005', onExceeded: 'degrade' },
  });
  expect(await fleet.tasks.result(taskId)).toMatchObject({
    model: 'simulated/medium',
    degradedTo: 'simulated/medium',
  });
  expect(await eventsOf(taskId)).toContain('degraded');
}, 60_000);

it('waits for the window of a limit to turn, and goes on at once when somebody raises the limit', async () => {
  const limit = { ...hardLimit('usd', 1_000n), window: 'month' } as const;
  const user = { kind: 'user', id: 'frank' } as const;
  await fleet.test.stores.limits.set('default', user, [limit], { by: 'test' });
  const small = { userId: 'frank', query: QUERY, maxOutputTokens: 10, budget: { onExceeded: 'wait' } };
  const hopeless = await fleet.tasks.start(small);
  // Larger than the whole limit: no window will ever have room.
  const error: unknown = await fleet.tasks.result(hopeless.taskId).catch((cause: unknown) => cause);
  const cause = (error as WorkflowFailedError).cause as ApplicationFailure;
  expect(cause).toMatchObject({ type: 'BudgetExceeded' });
  // Room for exactly one such call.
  const [details] = cause.details as [BudgetExceededDetails];
  const amount = parseUsd(details.needed) ?? 0n;
  await fleet.test.stores.limits.set('default', user, [{ ...limit, amount }], { by: 'test' });
  const first = await fleet.tasks.start(small);
  await fleet.tasks.result(first.taskId);
  const { taskId } = await fleet.tasks.start(small);
  await eventually(async () =>
    expect(await fleet.test.stores.tasks.waitingOn('default', user)).toEqual([taskId]),
  );
  await fleet.test.stores.limits.set('default', user, [{ ...limit, amount: 1_000_000n }], { by: 'test' });
  expect(await fleet.tasks.budgetChanged(taskId)).toBe(true);
  expect(await fleet.tasks.result(taskId)).toMatchObject({ status: 'completed' });
}, 60_000);
