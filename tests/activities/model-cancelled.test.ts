// `callModel` under a real Temporal server: a call that outlives its cancellation stays alive there, and is not made a second time.

import { expect, it } from 'vitest';
import { createModelActivities } from '../../src/activities/model.ts';
import type { CallOutcome } from '../../src/task/decision.ts';
import { eventually } from '../support/eventually.ts';
import { answer, fakeActivities, INPUT, start } from '../support/fake-activities.ts';
import { QUIET } from '../support/stores.ts';
import { SETTINGS, startWorkflowWorker } from '../support/workflow-worker.ts';

const HEARTBEAT_TIMEOUT_MS = 2_000;

it('a detached call is kept alive beyond its heartbeat timeout, and its answer is taken', async () => {
  const cancelled = Promise.withResolvers<number>();
  const whole = Promise.withResolvers<void>();
  let visits = 0;
  const { callModel } = createModelActivities({
    calls: {
      visit: async (_request, context): Promise<CallOutcome> => {
        visits += 1;
        context.signal.addEventListener('abort', () => cancelled.resolve(Date.now()), { once: true });
        await whole.promise;
        return { kind: 'unavailable', reason: 'auth', model: SETTINGS.model };
      },
    },
    tasks: { findMessages: async () => ({ messages: [] }), note: async () => undefined },
    events: { append: async () => undefined },
    log: QUIET,
  });
  const activities = fakeActivities({
    begin: async () => ({
      kind: 'go',
      settings: { ...SETTINGS, abort: 'detach', heartbeatTimeoutMs: HEARTBEAT_TIMEOUT_MS },
    }),
    callModel: async (input) => {
      await callModel(input);
      return answer(input);
    },
  });
  await using worker = await startWorkflowWorker(activities);
  const handle = await start(worker, { ...INPUT, abort: 'detach' });
  await eventually(() => {
    if (visits === 0) throw new Error('the call is not under way');
  });
  await handle.cancel();
  const cancelledAtMs = await cancelled.promise;
  await eventually(async () => {
    const { raw } = await handle.describe();
    const seconds = Number(raw.pendingActivities?.[0]?.lastHeartbeatTime?.seconds ?? 0);
    if (seconds * 1_000 < cancelledAtMs + HEARTBEAT_TIMEOUT_MS + 1_000)
      throw new Error('no heartbeat came long after the cancellation');
  });
  whole.resolve();
  await handle.result().catch(() => undefined);
  expect(visits).toBe(1);
  const { events } = await handle.fetchHistory();
  const completed = (events ?? []).filter((event) => event.activityTaskCompletedEventAttributes);
  expect(completed).toHaveLength(1);
  expect((events ?? []).some((event) => event.activityTaskCanceledEventAttributes)).toBe(false);
  expect((await handle.describe()).status.name).toBe('CANCELLED');
});
