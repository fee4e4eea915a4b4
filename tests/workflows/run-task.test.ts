import { setTimeout as sleep } from 'node:timers/promises';
import { Context } from '@temporalio/activity';
import { CancelledFailure, type WorkflowFailedError } from '@temporalio/client';
import { describe, expect, it } from 'vitest';
import type { TaskResult } from '../../src/workflows/messages.ts';
import { eventually } from '../support/eventually.ts';
import {
  answer,
  failureOf,
  fakeActivities,
  INPUT,
  REFUSAL,
  start,
  statusOf,
  USAGE,
} from '../support/fake-activities.ts';
import { SETTINGS, startWorkflowWorker } from '../support/workflow-worker.ts';

describe('runTask', () => {
  it('answers with the result of its one call', async () => {
    const activities = fakeActivities();
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    const result: TaskResult = await handle.result();
    expect(result).toMatchObject({
      status: 'completed',
      text: 'the answer',
      costUsd: '0.01',
      model: 'simulated/small',
      strategy: 'simple',
    });
    expect(activities.calls).toMatchObject([
      { visit: 1, candidate: 0, stepId: 'answer', maxOutputTokens: 100 },
    ]);
    expect(activities.calls[0]?.callKey).toBe(`${handle.workflowId}:${activities.calls[0]?.runId}:answer:1`);
    const described = await handle.describe();
    expect(described.searchAttributes).toMatchObject({
      WeirStatus: ['completed'],
      WeirUser: ['user'],
      WeirTokens: [5],
      WeirCostUsd: [0.01],
    });
  });

  it('says in its result how degraded it ran', async () => {
    const degradation = {
      level: 'moderate',
      down: ['llm:b', 'redis'],
      tier: { asked: 'large', given: 'medium' },
    } as const;
    const activities = fakeActivities({
      begin: async () => ({ kind: 'go', settings: { ...SETTINGS, degradation } }),
    });
    await using worker = await startWorkflowWorker(activities);
    const result: TaskResult = await (await start(worker, INPUT)).result();
    expect(result).toMatchObject({ status: 'completed', degradation });
    expect(activities.finished).toMatchObject([{ status: 'completed' }]);
  });

  it('fails at once with every path when the input is bad, before any activity', async () => {
    const activities = fakeActivities();
    await using worker = await startWorkflowWorker(activities);
    for (const [n, input] of [
      { query: 'x', extra: 1 },
      { userId: 'u', query: 'x'.repeat(1_200_000) },
      { userId: 'u', query: 'a NUL \u0000 and a lone surrogate \ud800' },
      null,
      [],
      'text',
      { userId: 'u', query: ' ' },
    ].entries()) {
      const handle = await start(worker, input, `task-${worker.taskQueue}-${n}`);
      const failure = await failureOf(handle);
      expect(failure.type).toBe('InvalidTask');
      expect(failure.details?.[0]).toMatchObject({ type: 'InvalidTask' });
    }
    expect(activities.calls).toEqual([]);
    expect(activities.finished).toEqual([]);
  });

  it('fails with InvalidTask when its own id is none', async () => {
    await using worker = await startWorkflowWorker(fakeActivities());
    const failure = await failureOf(await start(worker, INPUT, `task {${worker.taskQueue}}`));
    expect(failure.details?.[0]).toMatchObject({ faults: [{ path: 'taskId' }] });
  });

  it('throws what begin found wrong as InvalidTask', async () => {
    const faults = [{ path: 'model', expected: 'a model', got: '"x/y"' }];
    await using worker = await startWorkflowWorker(
      fakeActivities({ begin: async () => ({ kind: 'invalid', faults }) }),
    );
    const failure = await failureOf(await start(worker, { ...INPUT, model: 'x/y' }));
    expect(failure.details).toEqual([{ type: 'InvalidTask', faults }]);
  });

  it('finishes and fails typed when a budget refuses, in begin or in the call', async () => {
    for (const overrides of [
      { begin: async () => ({ kind: 'refuse', settings: SETTINGS, failure: REFUSAL }) as const },
      { callModel: async () => ({ kind: 'refuse', failure: REFUSAL }) as const },
    ]) {
      const activities = fakeActivities(overrides);
      await using worker = await startWorkflowWorker(activities);
      const failure = await failureOf(await start(worker, INPUT));
      expect(failure).toMatchObject({ type: 'BudgetExceeded', details: [REFUSAL], nonRetryable: true });
      expect(activities.finished).toMatchObject([{ status: 'failed', error: { type: 'BudgetExceeded' } }]);
    }
  });

  it('waits in a timer named after the limit and visits again', async () => {
    let visits = 0;
    const activities = fakeActivities({
      callModel: async (input) => {
        visits += 1;
        return visits === 1
          ? { kind: 'wait', reason: 'rate', ms: 1_200, limit: 'simulated rpm' }
          : answer(input);
      },
    });
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    await eventually(async () => {
      expect(await statusOf(handle)).toMatchObject({
        phase: 'waiting',
        waiting: { reason: 'simulated rpm' },
      });
    });
    await handle.result();
    expect(activities.calls.map((call) => call.visit)).toEqual([1, 2]);
    expect(new Set(activities.calls.map((call) => call.callKey)).size).toBe(1);
  });

  it('gives up on the holds of others after the time for it, and one more look', async () => {
    const held = { kind: 'held', ms: 600, limit: 'budget of user user', failure: REFUSAL } as const;
    const activities = fakeActivities({
      callModel: async ({ heldWaitOver }) => (heldWaitOver ? { kind: 'refuse', failure: REFUSAL } : held),
    });
    await using worker = await startWorkflowWorker(activities);
    const failure = await failureOf(await start(worker, INPUT));
    expect(failure.type).toBe('BudgetExceeded');
    expect(activities.calls.map((call) => [call.heldWaits, call.heldWaitOver])).toEqual([
      [0, false],
      [1, false],
      [2, false],
      [3, false],
      [3, true],
    ]);
  });

  it('keeps the answer of a call that finished although the task was cancelled, and ends as cancelled', async () => {
    const activities = fakeActivities({
      begin: async () => ({ kind: 'go', settings: { ...SETTINGS, abort: 'detach' } }),
      callModel: async (input) => {
        const beating = setInterval(() => Context.current().heartbeat(), 100);
        await Context.current().cancelled.catch(() => undefined);
        clearInterval(beating);
        return answer(input);
      },
    });
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    await eventually(() => expect(activities.calls).toHaveLength(1));
    await handle.cancel();
    const error: unknown = await handle.result().catch((cause: unknown) => cause);
    expect((error as WorkflowFailedError).cause).toBeInstanceOf(CancelledFailure);
    expect(activities.calls[0]?.abort).toBe('detach');
    const callKey = activities.calls[0]?.callKey;
    expect(activities.finished).toMatchObject([{ status: 'cancelled', answer: { callKey } }]);
  });

  it('fails with NoModelAvailable when its only candidate is gone', async () => {
    await using worker = await startWorkflowWorker(
      fakeActivities({
        callModel: async (input) => ({ kind: 'unavailable', reason: 'auth', model: input.model }),
      }),
    );
    const failure = await failureOf(await start(worker, INPUT));
    expect(failure).toMatchObject({
      type: 'NoModelAvailable',
      details: [{ reason: 'auth', model: 'simulated/small' }],
    });
  });

  it('fails with DeadlineExceeded when the deadline has passed or passes in the call', async () => {
    const activities = fakeActivities({
      callModel: async (input) => {
        await Context.current().cancelled.catch(() => undefined);
        return answer(input);
      },
    });
    await using worker = await startWorkflowWorker(activities);
    const late = await failureOf(
      await start(worker, { ...INPUT, deadline: '2020-01-01T00:00:00Z' }, `${worker.taskQueue}-1`),
    );
    expect(late.type).toBe('DeadlineExceeded');
    expect(activities.calls).toEqual([]);
    const deadline = new Date(Date.now() + 1_500).toISOString();
    const slow = await failureOf(await start(worker, { ...INPUT, deadline }, `${worker.taskQueue}-2`));
    expect(slow.type).toBe('DeadlineExceeded');
  });

  it('lets a cancelled call settle, finishes as cancelled, and ends as cancelled', async () => {
    let settled = false;
    const activities = fakeActivities({
      callModel: async () => {
        const beating = setInterval(() => Context.current().heartbeat(), 100);
        try {
          await Context.current().cancelled;
          throw new Error('not reached');
        } catch (error) {
          await sleep(100);
          settled = true;
          throw error;
        } finally {
          clearInterval(beating);
        }
      },
    });
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    await eventually(() => expect(activities.calls).toHaveLength(1));
    await handle.cancel();
    const error: unknown = await handle.result().catch((cause: unknown) => cause);
    expect((error as WorkflowFailedError).cause).toBeInstanceOf(CancelledFailure);
    expect(settled).toBe(true);
    expect(activities.finished).toMatchObject([{ status: 'cancelled' }]);
  });

  it('begins and finishes as normal activities when a store is away', async () => {
    let begins = 0;
    let finishes = 0;
    const activities = fakeActivities({
      begin: async () => {
        begins += 1;
        if (begins < 3) throw new Error('postgres is away');
        return { kind: 'go', settings: SETTINGS };
      },
      finish: async () => {
        finishes += 1;
        if (finishes < 2) throw new Error('postgres is away');
        return { text: 'late', usage: USAGE, costUsd: '0.01' };
      },
    });
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    expect(await handle.result()).toMatchObject({ text: 'late' });
    const { events } = await handle.fetchHistory();
    const scheduled = events?.flatMap(
      (event) => event.activityTaskScheduledEventAttributes?.activityType?.name ?? [],
    );
    expect(scheduled).toEqual(['begin', 'callModel', 'finish']);
  });
});
