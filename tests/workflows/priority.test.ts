import { expect, it } from 'vitest';
import { failureOf, fakeActivities, INPUT, start } from '../support/fake-activities.ts';
import { SETTINGS, startWorkflowWorker, type WorkflowWorker } from '../support/workflow-worker.ts';

/** What the history says of the activity `callModel`. */
async function scheduledCall(worker: WorkflowWorker, input: Record<string, unknown>) {
  const handle = await start(worker, { ...INPUT, ...input });
  await handle.result();
  const { events } = await handle.fetchHistory();
  const scheduled = (events ?? []).map((event) => event.activityTaskScheduledEventAttributes);
  return scheduled.find((attributes) => attributes?.activityType?.name === 'callModel');
}

it("queues a call with the key of its priority and its tenant's share, whoever started the task", async () => {
  const settings = { ...SETTINGS, fairnessWeight: 2.5 };
  await using worker = await startWorkflowWorker(
    fakeActivities({ begin: async () => ({ kind: 'go', settings }) }),
  );
  const call = await scheduledCall(worker, { tenantId: 'acme', priority: 'critical' });
  expect(call?.priority).toMatchObject({ priorityKey: 1, fairnessKey: 'acme', fairnessWeight: 2.5 });
});

it('queues the call of a tenant with a long id under a key that Temporal takes', async () => {
  await using worker = await startWorkflowWorker(fakeActivities());
  const call = await scheduledCall(worker, { tenantId: 't'.repeat(128), priority: 'low' });
  expect(call?.priority?.priorityKey).toBe(4);
  expect(call?.priority?.fairnessKey).toHaveLength(64);
});

it('refuses a priority that is none before any activity', async () => {
  const activities = fakeActivities();
  await using worker = await startWorkflowWorker(activities);
  const failure = await failureOf(await start(worker, { ...INPUT, priority: 'urgent' }));
  expect(failure.details?.[0]).toMatchObject({
    type: 'InvalidTask',
    faults: [{ path: 'priority', got: '"urgent"' }],
  });
  expect(activities.calls).toEqual([]);
});
