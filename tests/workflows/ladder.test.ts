// What a task does where a budget has no room, on fake activities: wait, look again, go on with less.

import { expect, it } from 'vitest';
import type { TaskSettings } from '../../src/task/decision.ts';
import { BUDGET_CHANGED_SIGNAL, RAISE_BUDGET_UPDATE, type TaskResult } from '../../src/workflows/messages.ts';
import { eventually } from '../support/eventually.ts';
import {
  answer,
  failureOf,
  fakeActivities,
  INPUT,
  REFUSAL,
  refusalOf,
  start,
  statusOf,
  timersOf,
} from '../support/fake-activities.ts';
import { SETTINGS, startWorkflowWorker } from '../support/workflow-worker.ts';

const HOUR_MS = 3_600_000;
const PARKED = { kind: 'budget_wait', ms: HOUR_MS, limit: 'budget of user user', failure: REFUSAL } as const;

const withSettings = (change: Partial<TaskSettings>) => async () =>
  ({ kind: 'go', settings: { ...SETTINGS, ...change } }) as const;

it('waits in a named timer until the window turns, longer than the call itself may take', async () => {
  const activities = fakeActivities({
    begin: withSettings({ callMaxDurationMs: 2_000 }),
    callModel: async (input) => (input.visit === 1 ? { ...PARKED, ms: 2_500 } : answer(input)),
  });
  await using worker = await startWorkflowWorker(activities);
  const handle = await start(worker, INPUT);
  await eventually(async () =>
    expect(await statusOf(handle)).toMatchObject({
      phase: 'waiting',
      waiting: { reason: 'budget of user user' },
      pressure: 'critical',
    }),
  );
  expect(await handle.result()).toMatchObject({ status: 'completed' });
  expect(activities.calls.map(({ visit }) => visit)).toEqual([1, 2]);
  expect(await timersOf(handle)).toEqual(['waits for budget of user user']);
});

it('refuses instead of waiting for a window that turns after the deadline', async () => {
  const activities = fakeActivities({ callModel: async () => PARKED });
  await using worker = await startWorkflowWorker(activities);
  const deadline = new Date(Date.now() + 60_000).toISOString();
  const failure = await failureOf(await start(worker, { ...INPUT, deadline }));
  expect(failure).toMatchObject({ type: 'BudgetExceeded', details: [REFUSAL] });
  expect(activities.calls).toHaveLength(1);
});

it('looks again as soon as a signal tells that a budget changed', async () => {
  const activities = fakeActivities({
    callModel: async (input) => (input.visit < 3 ? PARKED : answer(input)),
  });
  await using worker = await startWorkflowWorker(activities);
  const handle = await start(worker, INPUT);
  for (const visits of [1, 2]) {
    await eventually(async () => {
      expect(activities.calls).toHaveLength(visits);
      expect((await statusOf(handle)).phase).toBe('waiting');
    });
    await handle.signal(BUDGET_CHANGED_SIGNAL);
  }
  expect(await handle.result()).toMatchObject({ status: 'completed' });
});

it('does not miss a change that comes while the call is being looked at', async () => {
  const changed = Promise.withResolvers<void>();
  const activities = fakeActivities({
    callModel: async (input) => {
      if (input.visit > 1) return answer(input);
      await changed.promise;
      return PARKED;
    },
  });
  await using worker = await startWorkflowWorker(activities);
  const handle = await start(worker, INPUT);
  await eventually(() => expect(activities.calls).toHaveLength(1));
  await handle.signal(BUDGET_CHANGED_SIGNAL);
  changed.resolve();
  expect(await handle.result()).toMatchObject({ status: 'completed' });
});

it('looks again after a raise of its own budget, recorded once under a key of its own', async () => {
  const activities = fakeActivities({
    callModel: async (input) => (input.visit < 2 ? PARKED : answer(input)),
  });
  await using worker = await startWorkflowWorker(activities);
  const handle = await start(worker, INPUT);
  await eventually(async () => expect((await statusOf(handle)).phase).toBe('waiting'));
  const raised = await handle.executeUpdate(RAISE_BUDGET_UPDATE, { args: [{ usd: 0.5, by: 'ada' }] });
  expect(raised).toEqual({ limits: [{ unit: 'usd', window: 'total', amount: '2.00' }] });
  expect(await handle.result()).toMatchObject({ status: 'completed' });
  const runId = activities.calls[0]?.runId;
  expect(activities.raised).toMatchObject([
    { usd: '0.50', by: 'ada', changeKey: `raise:${handle.workflowId}:${runId}:1` },
  ]);
});

it('refuses a raise that is not valid, and goes on', async () => {
  const activities = fakeActivities({ callModel: async () => PARKED });
  await using worker = await startWorkflowWorker(activities);
  const handle = await start(worker, INPUT);
  await eventually(async () => expect((await statusOf(handle)).phase).toBe('waiting'));
  const refusal = await refusalOf(
    handle.executeUpdate(RAISE_BUDGET_UPDATE, { args: [{ usd: '-1', by: 'ada' }] }),
  );
  expect(refusal).toMatchObject({ type: 'InvalidUpdate', details: [{ faults: [{ path: 'usd' }] }] });
  expect((await refusalOf(handle.executeUpdate(RAISE_BUDGET_UPDATE))).type).toBe('InvalidUpdate');
  expect(activities.raised).toEqual([]);
  expect((await statusOf(handle)).phase).toBe('waiting');
  await handle.cancel();
});

it('refuses a raise where there is no limit to raise', async () => {
  const activities = fakeActivities({
    callModel: async (input) => (input.visit < 2 ? PARKED : answer(input)),
    raiseBudget: async () => ({ kind: 'nothing', unit: 'tokens' }),
  });
  await using worker = await startWorkflowWorker(activities);
  const handle = await start(worker, INPUT);
  await eventually(async () => expect((await statusOf(handle)).phase).toBe('waiting'));
  const refusal = await refusalOf(
    handle.executeUpdate(RAISE_BUDGET_UPDATE, { args: [{ tokens: 5, by: 'ada' }] }),
  );
  expect(refusal).toMatchObject({
    type: 'NothingToRaise',
    message: 'the task has no limit in tokens that could be raised',
  });
  expect((await statusOf(handle)).phase).toBe('waiting');
  await handle.cancel();
});

it('serves back-pressure once, in a timer, and says so in later visits', async () => {
  const activities = fakeActivities({
    callModel: async (input) => {
      if (input.visit === 1)
        return { kind: 'wait', reason: 'backpressure', ms: 300, limit: 'back-pressure of user user' };
      if (input.visit === 2) return { kind: 'wait', reason: 'rate', ms: 300, limit: 'simulated rpm' };
      return answer(input);
    },
  });
  await using worker = await startWorkflowWorker(activities);
  const handle = await start(worker, INPUT);
  await handle.result();
  expect(activities.calls.map(({ backpressureMs }) => backpressureMs)).toEqual([0, 300, 300]);
  expect(await timersOf(handle)).toEqual(['waits for back-pressure of user user', 'waits for simulated rpm']);
});

it('goes down from model to model where a budget has no room, and names the one that answered', async () => {
  const activities = fakeActivities({
    begin: withSettings({ onExceeded: 'degrade', cheaper: ['simulated/b', 'simulated/c'] }),
    callModel: async (input) =>
      input.model === 'simulated/c' ? answer(input) : { kind: 'degrade', failure: REFUSAL },
  });
  await using worker = await startWorkflowWorker(activities);
  const result: TaskResult = await (await start(worker, INPUT)).result();
  expect(result).toMatchObject({ model: 'simulated/c', degradedTo: 'simulated/c' });
  expect(activities.calls.map(({ model, candidate, visit }) => [model, candidate, visit])).toEqual([
    ['simulated/small', 0, 1],
    ['simulated/b', 1, 2],
    ['simulated/c', 2, 3],
  ]);
});

it('fails with the budget when no model is cheap enough', async () => {
  const activities = fakeActivities({
    begin: withSettings({ onExceeded: 'degrade', cheaper: ['simulated/b'] }),
    callModel: async () => ({ kind: 'degrade', failure: REFUSAL }),
  });
  await using worker = await startWorkflowWorker(activities);
  expect(await failureOf(await start(worker, INPUT))).toMatchObject({ type: 'BudgetExceeded' });
  expect(activities.calls).toHaveLength(2);
});

it('tells in its result what output was left to it', async () => {
  const activities = fakeActivities({
    callModel: async (input) => ({ ...answer(input), clampedTo: 42, pressure: 'high' }),
  });
  await using worker = await startWorkflowWorker(activities);
  const handle = await start(worker, INPUT);
  expect(await handle.result()).toMatchObject({ clampedTo: 42 });
  expect(await statusOf(handle)).toMatchObject({ pressure: 'high' });
});

it('spends no more history on an answer at once than before there were ladders', async () => {
  await using worker = await startWorkflowWorker(fakeActivities());
  const handle = await start(worker, INPUT);
  await handle.result();
  const { events } = await handle.fetchHistory();
  // 14 when our client gives the search attributes at the start; here they are upserted.
  expect(events?.length).toBeLessThanOrEqual(15);
});
