// Waits for a place in rate control as the workflow spends them: before its first call, and what becomes of a place that nobody comes for.

import { describe, expect, it } from 'vitest';
import type { RateDelay } from '../../src/task/decision.ts';
import { eventually } from '../support/eventually.ts';
import { failureOf, fakeActivities, INPUT, start, statusOf } from '../support/fake-activities.ts';
import { SETTINGS, startWorkflowWorker } from '../support/workflow-worker.ts';

const delayed = (rateDelay: RateDelay) => ({
  begin: async () => ({ kind: 'go', settings: SETTINGS, rateDelay }) as const,
});
const booked = (ms: number): RateDelay => ({ ms, limit: 'simulated rpm', isBooked: true });

describe('a delay that begin was told', () => {
  it('is spent in a timer before the first call, which then comes for its place', async () => {
    const activities = fakeActivities(delayed(booked(1_200)));
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    await eventually(async () => {
      expect(await statusOf(handle)).toMatchObject({
        phase: 'waiting',
        waiting: { reason: 'simulated rpm' },
      });
    });
    expect(activities.calls).toEqual([]);
    await handle.result();
    expect(activities.calls).toMatchObject([{ visit: 2, isBooked: true, priority: 'normal' }]);
    expect(activities.finished[0]?.left).toBeUndefined();
    const { events } = await handle.fetchHistory();
    const timers = (events ?? []).filter((event) => event.timerStartedEventAttributes);
    expect(timers).toHaveLength(1);
  });

  it('without a booking is spent in the same way, and the call asks like any other', async () => {
    const activities = fakeActivities(delayed({ ms: 300, limit: 'simulated rpm', isBooked: false }));
    await using worker = await startWorkflowWorker(activities);
    await (await start(worker, INPUT)).result();
    expect(activities.calls).toMatchObject([{ visit: 2, isBooked: false }]);
  });

  it('that ends after the deadline fails the task, and gives the place up', async () => {
    const activities = fakeActivities(delayed(booked(600_000)));
    await using worker = await startWorkflowWorker(activities);
    const deadline = new Date(Date.now() + 60_000).toISOString();
    const handle = await start(worker, { ...INPUT, deadline });
    expect((await failureOf(handle)).type).toBe('RateLimited');
    expect(activities.calls).toEqual([]);
    expect(activities.finished[0]?.left).toEqual([
      { callKey: expect.stringContaining(handle.workflowId), model: 'simulated/small', candidate: 0 },
    ]);
  });

  it('that the user cancels gives the place up', async () => {
    const activities = fakeActivities(delayed(booked(30_000)));
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    await eventually(async () => expect((await statusOf(handle)).phase).toBe('waiting'));
    await handle.cancel();
    await handle.result().catch(() => undefined);
    expect(activities.finished).toMatchObject([{ status: 'cancelled', left: [{ candidate: 0 }] }]);
  });
});

describe('a place that a call has booked', () => {
  it('is come for after exactly the wait that was told, however often the call has waited', async () => {
    const activities = fakeActivities({
      callModel: async (input) =>
        input.visit <= 4
          ? { kind: 'wait', reason: 'rate', ms: 50, limit: 'simulated rpm', isBooked: true }
          : { kind: 'refuse', failure: { type: 'RequestRejected', reason: 'no', model: input.model } },
    });
    await using worker = await startWorkflowWorker(activities);
    const handle = await start(worker, INPUT);
    await failureOf(handle);
    expect(activities.calls.map(({ isBooked }) => isBooked)).toEqual([false, true, true, true, true]);
    const { events } = await handle.fetchHistory();
    const timers = (events ?? []).flatMap(
      (event) => event.timerStartedEventAttributes?.startToFireTimeout ?? [],
    );
    expect(timers.map(({ seconds, nanos }) => Number(seconds ?? 0) * 1_000 + (nanos ?? 0) / 1e6)).toEqual([
      50, 50, 50, 50,
    ]);
    // The refusal itself has given the place up.
    expect(activities.finished[0]?.left).toBeUndefined();
  });
});
