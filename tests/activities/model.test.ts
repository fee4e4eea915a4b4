// `callModel` in Temporal's own context; the governed call behind it is played by the test.

import { CancelledFailure } from '@temporalio/activity';
import { ActivityCancellationDetails, ApplicationFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  type CallModelInput,
  createModelActivities,
  type ModelActivityDependencies,
} from '../../src/activities/model.ts';
import type { CallContext, CallRequest } from '../../src/calls/call.ts';
import { AttemptFailed, CallAborted } from '../../src/calls/govern.ts';
import type { MilestoneTask } from '../../src/stores/milestones.ts';
import type { CallOutcome } from '../../src/task/decision.ts';
import type { EventDraft } from '../../src/task/event.ts';
import type { BudgetExceededDetails } from '../../src/task/failure.ts';
import type { Message } from '../../src/task/message.ts';
import { QUIET } from '../support/stores.ts';

const INPUT: CallModelInput = {
  taskId: 'task',
  runId: 'run',
  tenantId: 'acme',
  userId: 'ada',
  sessionId: 'talk',
  callKey: 'task:run:answer:1',
  stepId: 'answer',
  model: 'openai/a',
  candidate: 1,
  visit: 1,
  maxOutputTokens: 100,
  heldWaits: 2,
  heldWaitOver: false,
  onExceeded: 'refuse',
  backpressureMs: 0,
  abort: 'cancel',
  endsAt: new Date(Date.now() + 60_000).toISOString(),
};
const MESSAGES: readonly Message[] = [{ role: 'user', content: 'why' }];
const CONVERSATION = {
  messages: MESSAGES,
  temperature: 0.5,
  reasoningEffort: 'low',
  responseFormat: { type: 'json' },
} as const;
const REFUSAL: BudgetExceededDetails = {
  type: 'BudgetExceeded',
  scope: 'user',
  id: 'ada',
  unit: 'usd',
  window: 'total',
  limit: '1.00',
  settled: '0.99',
  held: '0.00',
  needed: '0.02',
};
const COMPLETED: CallOutcome = {
  kind: 'completed',
  callKey: INPUT.callKey,
  model: 'openai/a',
  usage: { inputTokens: 1, cachedInputTokens: 0, cacheWriteTokens: 0, outputTokens: 2, reasoningTokens: 0 },
  costUsd: '0.01',
  finishReason: 'stop',
};

type Visit = (request: CallRequest, context: CallContext) => Promise<CallOutcome>;
type Stores = Pick<ModelActivityDependencies, 'tasks' | 'events'>;

/** An activity with its surroundings, which note what they are told. */
function stage(
  visit: Visit,
  stores: { readonly tasks?: Partial<Stores['tasks']>; readonly events?: Partial<Stores['events']> } = {},
  attempt = 1,
) {
  const environment = new MockActivityEnvironment({ attempt, activityId: 'answer:1:1' });
  const notes: unknown[] = [];
  const events: { task: MilestoneTask; drafts: readonly EventDraft[] }[] = [];
  const beats: unknown[] = [];
  environment.on('heartbeat', (details: unknown) => beats.push(details));
  const { callModel } = createModelActivities({
    calls: { visit },
    tasks: {
      findMessages: async () => CONVERSATION,
      note: async (_task, _run, state) => void notes.push(state),
      ...stores.tasks,
    },
    events: { append: async (task, drafts) => void events.push({ task, drafts }), ...stores.events },
    log: { ...QUIET, warn: () => undefined },
  });
  const run = (input: Partial<CallModelInput> = {}): Promise<CallOutcome> =>
    environment.run(callModel, { ...INPUT, ...input });
  return { environment, run, notes, events, beats };
}

/** Waits for the signal as a request in flight does. */
const untilAborted: Visit = (_request, context) =>
  new Promise((_resolve, reject) => {
    context.signal.addEventListener('abort', () => reject(new CallAborted(context.abortReason())), {
      once: true,
    });
  });

afterEach(() => {
  vi.useRealTimers();
});

describe('the visit', () => {
  it('gets the conversation, who pays, and which attempt this is', async () => {
    const visit = vi.fn<Visit>(async () => COMPLETED);
    const { run } = stage(visit, {}, 3);
    expect(await run()).toEqual(COMPLETED);
    const [request, context] = visit.mock.calls[0] ?? [];
    expect(request).toEqual({
      callKey: INPUT.callKey,
      stepId: 'answer',
      payer: { tenantId: 'acme', userId: 'ada', sessionId: 'talk', taskId: 'task' },
      task: { taskId: 'task', runId: 'run', tenantId: 'acme' },
      model: 'openai/a',
      number: { candidate: 1, visit: 1, attempt: 3 },
      ...CONVERSATION,
      maxOutputTokens: 100,
      heldWaits: 2,
      heldWaitOver: false,
      onExceeded: 'refuse',
      backpressureMs: 0,
      remainingMs: expect.any(Number),
    });
    expect(request?.remainingMs).toBeGreaterThan(50_000);
    expect(request?.remainingMs).toBeLessThanOrEqual(60_000);
    expect(context?.owner).toBe('activity task/run/answer:1:1/3');
    expect(context?.signal.aborted).toBe(false);
  });

  it('gets what was asked for, how many models are left, and why it is not at the first', async () => {
    const visit = vi.fn<Visit>(async () => COMPLETED);
    const fallback = { model: 'openai/b', reason: 'auth', cause: 'away', since: 2 } as const;
    await stage(visit).run({ visit: 2, tier: 'small', candidatesLeft: 3, fallback });
    expect(visit.mock.calls[0]?.[0]).toMatchObject({ tier: 'small', candidatesLeft: 3, fallback });
  });

  it.each(['cancel', 'drain', 'detach'] as const)('is told that a cancellation means %s', async (abort) => {
    const visit = vi.fn<Visit>(async () => COMPLETED);
    await stage(visit).run({ abort });
    expect(visit.mock.calls[0]?.[1].abort).toBe(abort);
  });

  it.each<[string, CallOutcome]>([
    ['an answer', COMPLETED],
    ['a wait', { kind: 'wait', reason: 'rate', ms: 900, limit: 'openai rpm' }],
    ['a crowded budget', { kind: 'held', ms: 900, limit: 'budget of user ada', failure: REFUSAL }],
    ['a model that is away', { kind: 'unavailable', reason: 'auth', model: 'openai/a' }],
    ['a refusal', { kind: 'refuse', failure: REFUSAL }],
  ])('hands %s through as it is', async (_title, outcome) => {
    expect(await stage(async () => outcome).run()).toEqual(outcome);
  });

  it('makes no visit for a task without a row, and lets Temporal try again', async () => {
    const visit = vi.fn<Visit>();
    const { run } = stage(visit, { tasks: { findMessages: async () => undefined } });
    await expect(run()).rejects.toMatchObject({
      type: 'Unknown',
      message: 'task task has no row',
      nonRetryable: false,
    });
    expect(visit).not.toHaveBeenCalled();
  });
});

describe('what readers are told', () => {
  it('is nothing of a first visit that is answered', async () => {
    const { run, notes, events } = stage(async () => COMPLETED);
    await run();
    expect([notes, events]).toEqual([[], []]);
  });

  it.each<[string, CallOutcome, string, string]>([
    [
      'a wait',
      { kind: 'wait', reason: 'provider_limit', ms: 5_000, limit: 'openai throttled the request' },
      'openai throttled the request',
      'provider_limit',
    ],
    [
      'a crowded budget',
      { kind: 'held', ms: 5_000, limit: 'budget of user ada', failure: REFUSAL },
      'budget of user ada',
      'held',
    ],
    [
      'a used up budget',
      { kind: 'budget_wait', ms: 5_000, limit: 'budget of user ada', failure: REFUSAL },
      'budget of user ada',
      'budget',
    ],
    [
      'back-pressure',
      { kind: 'wait', reason: 'backpressure', ms: 5_000, limit: 'back-pressure of user ada' },
      'back-pressure of user ada',
      'backpressure',
    ],
  ])('is %s: what for, until when, as a state and as an event', async (_title, outcome, limit, reason) => {
    const { run, notes, events } = stage(async () => outcome);
    await run({ visit: 3 });
    expect(notes).toEqual([
      { status: 'running', phase: 'running' },
      {
        status: 'waiting',
        phase: 'waiting',
        waiting: { reason: limit, until: expect.stringMatching(/^\d{4}-.*Z$/), kind: reason },
      },
    ]);
    expect(events).toEqual([
      {
        task: { taskId: 'task', runId: 'run', tenantId: 'acme' },
        drafts: [
          {
            id: `task:run:answer:1#1.3:${outcome.kind}`,
            type: reason === 'backpressure' ? 'backpressure' : 'rate_wait',
            stepId: 'answer',
            callKey: INPUT.callKey,
            message: limit,
            data: { ms: 5_000, reason },
          },
        ],
      },
    ]);
  });

  it('is the move to another model, once', async () => {
    const fallback = { model: 'openai/b', reason: 'auth', cause: 'away', since: 2 } as const;
    const first = stage(async () => COMPLETED);
    await first.run({ visit: 2, fallback });
    expect(first.events.flatMap(({ drafts }) => drafts)).toEqual([
      {
        id: `${INPUT.callKey}#1.2:fallback`,
        type: 'fallback',
        stepId: 'answer',
        callKey: INPUT.callKey,
        message: 'openai/a instead of openai/b: auth',
        data: { from: 'openai/b', to: 'openai/a', reason: 'auth' },
      },
    ]);
    const later = stage(async () => COMPLETED);
    await later.run({ visit: 3, fallback });
    expect(later.events).toEqual([]);
  });

  it('is the last model that is away, and until when; nothing where another one is left', async () => {
    const gone: CallOutcome = {
      kind: 'unavailable',
      reason: 'overloaded',
      model: 'openai/a',
      retryAfterMs: 900,
    };
    const last = stage(async () => gone);
    await last.run();
    expect(last.notes).toEqual([
      {
        status: 'waiting',
        phase: 'waiting',
        waiting: { reason: 'openai/a (overloaded)', until: expect.any(String), kind: 'unavailable' },
      },
    ]);
    const left = stage(async () => gone);
    await left.run({ candidatesLeft: 1 });
    expect(left.notes).toEqual([]);
    const dead = stage(async () => ({ kind: 'unavailable', reason: 'auth', model: 'openai/a' }));
    await dead.run();
    expect(dead.notes).toEqual([]);
  });

  it('is the limit of a budget that refused', async () => {
    const { run, events } = stage(async () => ({ kind: 'refuse', failure: REFUSAL }));
    await run();
    expect(events[0]?.drafts).toMatchObject([
      { id: 'task:run:answer:1#1.1:refuse', type: 'budget_refused', data: REFUSAL },
    ]);
  });

  it('is the model that a budget has no room for', async () => {
    const { run, events } = stage(async () => ({ kind: 'degrade', failure: REFUSAL }));
    await run();
    expect(events[0]?.drafts).toMatchObject([
      {
        id: 'task:run:answer:1#1.1:degrade',
        type: 'degraded',
        data: { model: INPUT.model, reason: REFUSAL },
      },
    ]);
  });

  it('is the breaker that keeps the call from its model, and no other reason that it is away', async () => {
    const closed = { kind: 'unavailable', model: 'openai/a', retryAfterMs: 900 } as const;
    const open = stage(async () => ({ ...closed, reason: 'breaker_open' }));
    await open.run();
    expect(open.events[0]?.drafts).toMatchObject([
      {
        id: 'task:run:answer:1#1.1:unavailable',
        type: 'degraded',
        data: { model: 'openai/a', reason: 'breaker_open', breaker: 'llm:openai/a', retryAfterMs: 900 },
      },
    ]);
    const other = stage(async () => ({ ...closed, reason: 'overloaded' }));
    await other.run();
    expect(other.events).toEqual([]);
  });

  it('is nothing of another refusal, which ends the task anyway', async () => {
    const { run, events } = stage(async () => ({
      kind: 'refuse',
      failure: { type: 'ContentRefused', reason: 'filtered' },
    }));
    await run();
    expect(events).toEqual([]);
  });

  it('costs no outcome when it cannot be said', async () => {
    const outcome: CallOutcome = { kind: 'wait', reason: 'rate', ms: 1, limit: 'openai rpm' };
    const broken = {
      tasks: { note: () => Promise.reject(new Error('away')) },
      events: { append: () => Promise.reject(new Error('away')) },
    };
    expect(await stage(async () => outcome, broken).run({ visit: 2 })).toEqual(outcome);
    expect(await stage(async () => COMPLETED, broken).run({ visit: 2 })).toEqual(COMPLETED);
  });
});

describe('heartbeats', () => {
  it('come every second of the whole visit, with the tokens so far, and end with it', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const gate = Promise.withResolvers<CallOutcome>();
    const begun = Promise.withResolvers<CallContext>();
    const { run, beats } = stage((_request, context) => {
      begun.resolve(context);
      return gate.promise;
    });
    const outcome = run();
    const context = await begun.promise;
    vi.advanceTimersByTime(2_000);
    context.beat(42);
    vi.advanceTimersByTime(1_000);
    expect(beats).toEqual([{ outputTokens: 0 }, { outputTokens: 0 }, { outputTokens: 42 }]);
    gate.resolve(COMPLETED);
    await outcome;
    vi.advanceTimersByTime(10_000);
    expect(beats).toHaveLength(3);
  });

  it('come also while a store lets the visit wait, and end when it fails', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const gate = Promise.withResolvers<never>();
    const { run, beats } = stage(async () => COMPLETED, { tasks: { findMessages: () => gate.promise } });
    const outcome = run().catch((error: unknown) => error);
    vi.advanceTimersByTime(1_000);
    expect(beats).toHaveLength(1);
    gate.reject(new Error('postgres is away'));
    expect(await outcome).toMatchObject({ type: 'Unknown', message: 'postgres is away' });
    vi.advanceTimersByTime(10_000);
    expect(beats).toHaveLength(1);
  });
});

describe('a cancellation', () => {
  it("reaches the call's signal and ends the activity as cancelled", async () => {
    let reason: string | undefined;
    const { environment, run } = stage((request, context) => {
      queueMicrotask(() => environment.cancel());
      return untilAborted(request, context).catch((error: unknown) => {
        reason = context.abortReason();
        throw error;
      });
    });
    await expect(run()).rejects.toBeInstanceOf(CancelledFailure);
    expect(reason).toBe('cancelled');
  });

  it('ends the activity as cancelled also where the call failed of something else meanwhile', async () => {
    const { environment, run } = stage(async () => {
      environment.cancel();
      throw new Error('socket hang up');
    });
    await expect(run()).rejects.toBeInstanceOf(CancelledFailure);
  });

  it('lets a call go on that outlives it: it shows life, and its answer is no cancellation', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const answer = Promise.withResolvers<CallOutcome>();
    const cancelled = Promise.withResolvers<void>();
    const { environment, run, beats } = stage((_request, context) => {
      context.signal.addEventListener('abort', () => cancelled.resolve(), { once: true });
      queueMicrotask(() => environment.cancel());
      return answer.promise;
    });
    const outcome = run({ abort: 'detach' });
    await cancelled.promise;
    vi.advanceTimersByTime(3_000);
    expect(beats).toHaveLength(3);
    answer.resolve(COMPLETED);
    expect(await outcome).toEqual(COMPLETED);
  });

  it('remains one when the worker stops after it', async () => {
    const reasons: string[] = [];
    const { environment, run } = stage(async (_request, context) => {
      environment.cancel();
      reasons.push(context.abortReason());
      environment.cancel('WORKER_SHUTDOWN', new ActivityCancellationDetails({ workerShutdown: true }));
      reasons.push(context.abortReason());
      throw new CallAborted(context.abortReason());
    });
    await expect(run({ abort: 'drain' })).rejects.toBeInstanceOf(CancelledFailure);
    expect(reasons).toEqual(['cancelled', 'cancelled']);
  });

  it('comes too late for a call that has its outcome', async () => {
    const { environment, run } = stage(async () => {
      environment.cancel();
      return COMPLETED;
    });
    expect(await run()).toEqual(COMPLETED);
  });

  it.each([
    ['a worker that stops', 'WORKER_SHUTDOWN', new ActivityCancellationDetails({ workerShutdown: true })],
    ['a heartbeat that was missed', 'TIMED_OUT', new ActivityCancellationDetails({ timedOut: true })],
  ] as const)('by %s hands the call over: Temporal tries again', async (_title, cause, details) => {
    let reason: string | undefined;
    const { environment, run } = stage((request, context) => {
      queueMicrotask(() => environment.cancel(cause, details));
      return untilAborted(request, context).catch((error: unknown) => {
        reason = context.abortReason();
        throw error;
      });
    });
    await expect(run()).rejects.toMatchObject({ type: 'Handover', nonRetryable: false });
    expect(reason).toBe('handover');
  });
});

describe('an error', () => {
  it.each<[string, Error, string]>([
    [
      'of the provider',
      new AttemptFailed('the attempt at openai/a failed: cut', { cause: new Error('cut') }),
      'AttemptFailed',
    ],
    ['that nobody knows', new RangeError('out of nowhere'), 'Unknown'],
  ])('%s becomes a retryable failure with its cause', async (_title, error, type) => {
    const failure: unknown = await stage(() => Promise.reject(error))
      .run()
      .catch((thrown: unknown) => thrown);
    expect(failure).toBeInstanceOf(ApplicationFailure);
    expect(failure).toMatchObject({ type, message: error.message, nonRetryable: false, cause: error });
  });

  it('is logged from the second attempt on, without the conversation', async () => {
    const warned: unknown[] = [];
    const fail = async (attempt: number) => {
      const environment = new MockActivityEnvironment({ attempt });
      const { callModel } = createModelActivities({
        calls: { visit: () => Promise.reject(new Error('down')) },
        tasks: { findMessages: async () => CONVERSATION, note: async () => undefined },
        events: { append: async () => undefined },
        log: { ...QUIET, warn: (message, fields) => void warned.push([message, fields]) },
      });
      await environment.run(callModel, INPUT).catch(() => undefined);
    };
    await fail(1);
    expect(warned).toEqual([]);
    await fail(2);
    expect(warned).toEqual([
      [
        'model call failed again',
        { taskId: 'task', attempt: 2, model: 'openai/a', error: expect.any(Error) },
      ],
    ]);
  });
});
