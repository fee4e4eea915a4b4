// `begin` and `finish` on real stores.

import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  createTaskActivities,
  type FinishInput,
  type FinishOutcome,
  type TaskMeter,
} from '../../src/activities/task.ts';
import { estimateInputTokens } from '../../src/llm/count.ts';
import { createTaskPlan } from '../../src/llm/plan-task.ts';
import type { DefaultLimits } from '../../src/stores/limits.ts';
import type { BeginOutcome } from '../../src/task/decision.ts';
import { HEALTHY } from '../../src/task/degradation.ts';
import { parseTaskInput, type TaskInput } from '../../src/task/input.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { attemptOf, estimateOf } from '../support/holds.ts';
import { hardLimit, openTestStores, storesOn, type TestStores } from '../support/stores.ts';

const MODEL = 'simulated/small';
const TASK_LIMIT = 2_000_000_000n;
const DEFAULTS: DefaultLimits = { tenant: [], user: [], session: [], task: [hardLimit('usd', TASK_LIMIT)] };

let test: TestStores;
let ids = 0;

function inputOf(fields: Record<string, unknown> = {}): TaskInput {
  ids += 1;
  const parsed = parseTaskInput({
    tenantId: 'acme',
    userId: `user-${ids}`,
    query: 'why is\nthe sky blue',
    ...fields,
  });
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.faults));
  return parsed.input;
}

const ONLY = { strategy: 'priority', candidates: [MODEL] } as const;

let isFree = false;

const plan = createTaskPlan({
  costOf: () => (isFree ? 0n : 1n),
  models: { [MODEL]: { maxOutputTokens: 1_000 } },
  tiers: { small: ONLY, medium: ONLY, large: ONLY },
  shortHintMs: 5_000,
  isAvailable: () => true,
  taskLimits: DEFAULTS.task,
  callMaxDurationMs: 60_000,
  heartbeatTimeoutMs: 10_000,
  heldWaitMs: 30_000,
  maxTextBytes: 100,
  priorityQueues: true,
  searchAttributes: false,
});

function stage(change: { readonly publish?: () => Promise<number>; readonly maxQueued?: number } = {}) {
  const started: Parameters<TaskMeter['started']>[0][] = [];
  const ended: Parameters<TaskMeter['ended']>[0][] = [];
  const events =
    change.publish === undefined
      ? test.stores.events
      : { ...test.stores.events, publishPending: change.publish };
  const { tasks } = storesOn(test, { defaultLimits: DEFAULTS, maxQueued: change.maxQueued });
  const activities = createTaskActivities({
    ...test.stores,
    tasks,
    events,
    plan,
    health: () => HEALTHY,
    tokens: { upperBound: estimateInputTokens },
    meter: { started: (task) => void started.push(task), ended: (task) => void ended.push(task) },
    log: { ...test.log, warn: () => undefined },
  });
  const environment = new MockActivityEnvironment({ isLocal: true }, { logger: new DefaultLogger('ERROR') });
  return {
    started,
    ended,
    begin: (taskId: string, input: TaskInput, runId = 'run-1'): Promise<BeginOutcome> =>
      environment.run(activities.begin, { taskId, runId, input }),
    finish: (given: Partial<FinishInput> & { readonly taskId: string }): Promise<FinishOutcome> => {
      const whole: FinishInput = {
        runId: 'run-1',
        tenantId: 'acme',
        strategy: 'simple',
        priority: 'normal',
        maxTextBytes: 100,
        status: 'completed',
        ...given,
      };
      return environment.run(activities.finish, whole);
    },
  };
}

/** A call that was answered, with its charge. */
async function answered(
  taskId: string,
  userId: string,
  text: string,
  nanoUsd = 5_000_000n,
  heldAtMs = Date.now(),
): Promise<{ callKey: string; stepId: string; model: string }> {
  const callKey = `${taskId}:run-1:answer:1`;
  const payer = { tenantId: 'acme', userId, taskId };
  const attempt = attemptOf(
    { attemptKey: `${callKey}#0.1.1.0`, payer, estimate: estimateOf(nanoUsd), limits: [] },
    heldAtMs,
  );
  await test.stores.ledger.gate('acme');
  await test.stores.ledger.intent(attempt, undefined);
  const usage = { ...NO_USAGE, inputTokens: 30, outputTokens: 12 };
  const result = { status: 'completed', text, finishReason: 'stop' } as const;
  await test.stores.ledger.settle(
    attempt,
    { outcome: 'ok', charge: { usage, nanoUsd, source: 'measured' }, result },
    undefined,
  );
  return { callKey, stepId: 'answer', model: MODEL };
}

const eventsOf = async (taskId: string) =>
  (await test.stores.events.ring(taskId, undefined, 100)).map((event) => event.type);

beforeAll(async () => {
  test = await openTestStores({ defaultLimits: DEFAULTS });
});

afterAll(() => test[Symbol.asyncDispose]());

describe('begin', () => {
  it('accepts a task: its row, its limits, its first events, its settings', async () => {
    const { begin, started } = stage();
    const input = inputOf({ priority: 'high', budget: { tokens: 500 } });
    expect(await begin('accepted', input)).toEqual({
      kind: 'go',
      settings: expect.objectContaining({
        model: MODEL,
        strategy: 'simple',
        maxOutputTokens: 1_000,
        heldWaitMs: 30_000,
        maxTextBytes: 100,
      }),
    });
    expect(await test.stores.tasks.get('accepted')).toMatchObject({
      status: 'running',
      runId: 'run-1',
      userId: input.userId,
      priority: 'high',
      model: MODEL,
    });
    expect(await test.stores.limits.get('acme', { kind: 'task', id: 'accepted' })).toEqual([
      hardLimit('tokens', 500n),
    ]);
    const events = await test.stores.events.ring('accepted', undefined, 10);
    expect(events).toMatchObject([
      {
        seq: 1,
        type: 'task_started',
        message: 'why is the sky blue',
        data: { strategy: 'simple', model: MODEL, priority: 'high' },
      },
      { seq: 2, type: 'step_started', stepId: 'answer' },
    ]);
    expect(started).toEqual([{ strategy: 'simple', priority: 'high' }]);
    expect(await test.stores.ledger.tenants()).toContain('acme');
  });

  it.each<[string, Record<string, unknown>, readonly { path: string }[]]>([
    ['an unknown model', { model: 'nobody/knows' }, [{ path: 'model' }]],
    ['an unknown tool', { tools: ['search', 'browse'] }, [{ path: 'tools.0' }, { path: 'tools.1' }]],
    ['more output than the model has', { maxOutputTokens: 1_001 }, [{ path: 'maxOutputTokens' }]],
    [
      'all of that',
      { model: 'nobody/knows', tools: ['x'], maxOutputTokens: 1_001 },
      [{ path: 'model' }, { path: 'tools.0' }],
    ],
  ])('answers %s as invalid and leaves nothing behind', async (_title, fields, faults) => {
    const { begin, started } = stage();
    expect(await begin('invalid', inputOf(fields))).toMatchObject({ kind: 'invalid', faults });
    expect(await test.stores.tasks.get('invalid')).toBeUndefined();
    expect(await eventsOf('invalid')).toEqual([]);
    expect(started).toEqual([]);
  });

  it('changes nothing when it is repeated, at once or later', async () => {
    const { begin, started } = stage();
    const input = inputOf();
    const answers = await Promise.all([1, 2, 3].map(() => begin('twice', input)));
    expect(await begin('twice', input)).toEqual(answers[0]);
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(await eventsOf('twice')).toEqual(['task_started', 'step_started']);
    expect(started).toHaveLength(1);
  });

  it('refuses where settled spend alone fills a hard limit, naming the limit', async () => {
    const { begin } = stage();
    const input = inputOf();
    await test.stores.limits.set('acme', { kind: 'user', id: input.userId }, [hardLimit('usd', 5_000_000n)], {
      by: 'test',
    });
    await answered('earlier', input.userId, 'x');
    const failure = {
      type: 'BudgetExceeded',
      scope: 'user',
      id: input.userId,
      unit: 'usd',
      window: 'total',
      limit: '0.005',
      settled: '0.005',
      held: '0.00',
      needed: '0.00',
    };
    expect(await begin('exhausted', input)).toMatchObject({
      kind: 'refuse',
      failure,
      settings: { model: MODEL },
    });
    expect(
      (await test.stores.limits.lastRefusal('acme', { kind: 'user', id: input.userId }))?.details,
    ).toEqual(failure);
    // It was accepted, so it has a row and its first events; the workflow closes it.
    expect(await test.stores.tasks.get('exhausted')).toMatchObject({ status: 'running' });
    expect(await eventsOf('exhausted')).toEqual(['task_started', 'step_started']);
  });

  it('goes on at a limit that is used up to the last where the first candidate costs nothing, not at one of nothing', async () => {
    const { begin } = stage();
    const [input, passed] = [inputOf(), inputOf()];
    const limitTo = (userId: string, nanoUsd: bigint) =>
      test.stores.limits.set('acme', { kind: 'user', id: userId }, [hardLimit('usd', nanoUsd)], {
        by: 'test',
      });
    await limitTo(input.userId, 5_000_000n);
    await limitTo(passed.userId, 4_999_999n);
    await answered('used-up', input.userId, 'x');
    await answered('passed', passed.userId, 'x');
    isFree = true;
    try {
      expect((await begin('free', input)).kind).toBe('go');
      expect((await begin('free-passed', passed)).kind).toBe('refuse');
      expect((await begin('free-zero', inputOf({ budget: { usd: 0 } }))).kind).toBe('refuse');
      expect((await begin('free-tokens', inputOf({ budget: { tokens: 0 } }))).kind).toBe('refuse');
    } finally {
      isFree = false;
    }
    expect((await begin('paid', input)).kind).toBe('refuse');
  });

  it('goes on where one nano-USD is left, where only holds are in the way, and where the limit is soft', async () => {
    const { begin } = stage();
    const left = inputOf();
    await test.stores.limits.set('acme', { kind: 'user', id: left.userId }, [hardLimit('usd', 5_000_001n)], {
      by: 'test',
    });
    await answered('left-earlier', left.userId, 'x');
    expect((await begin('left', left)).kind).toBe('go');
    const held = inputOf();
    await test.stores.limits.set('acme', { kind: 'user', id: held.userId }, [hardLimit('usd', 10n)], {
      by: 'test',
    });
    const payer = { tenantId: 'acme', userId: held.userId };
    await test.stores.ledger.intent(
      attemptOf(
        { attemptKey: 'held:run:answer:1#0.1.1.0', payer, estimate: estimateOf(10n), limits: [] },
        Date.now(),
      ),
      undefined,
    );
    expect((await begin('held', held)).kind).toBe('go');
    const soft = inputOf();
    await test.stores.limits.set(
      'acme',
      { kind: 'user', id: soft.userId },
      [{ ...hardLimit('usd', 0n), hard: false }],
      { by: 'test' },
    );
    expect((await begin('soft', soft)).kind).toBe('go');
  });

  it.each([{ usd: '0' }, { tokens: 0 }])('refuses a task with a limit of nothing: %j', async (budget) => {
    const { begin } = stage();
    expect(await begin(`zero-${Object.keys(budget)[0]}`, inputOf({ budget }))).toMatchObject({
      kind: 'refuse',
      failure: { type: 'BudgetExceeded', scope: 'task', limit: 'usd' in budget ? '0.00' : '0' },
    });
  });

  it('refuses where the present window is full, and says when it turns', async () => {
    const { begin } = stage();
    const input = inputOf();
    const limit = { ...hardLimit('usd', 5_000_000n), window: 'month' } as const;
    await test.stores.limits.set('acme', { kind: 'user', id: input.userId }, [limit], { by: 'test' });
    const { startMs, endMs } = test.stores.limits.intervalOf(limit, Date.now());
    await answered('last-month', input.userId, 'x', 5_000_000n, startMs - 1);
    expect((await begin('next-window', input)).kind).toBe('go');
    await answered('this-month', input.userId, 'x');
    expect(await begin('full-window', input)).toMatchObject({
      kind: 'refuse',
      failure: { window: 'month', settled: '0.005', resetsAt: new Date(endMs).toISOString() },
    });
  });

  it.each(['clamp', 'degrade', 'wait', 'ask'])(
    'leaves a full limit to the call of a task that would %s',
    async (onExceeded) => {
      const { begin } = stage();
      expect(
        await begin(`policy-${onExceeded}`, inputOf({ budget: { usd: '0', onExceeded } })),
      ).toMatchObject({
        kind: 'go',
        settings: { onExceeded },
      });
    },
  );

  it('leaves events that cannot be published now to the sweeper', async () => {
    const { begin } = stage({ publish: () => Promise.reject(new Error('redis is away')) });
    expect((await begin('unpublished', inputOf())).kind).toBe('go');
    expect(await eventsOf('unpublished')).toEqual([]);
    await test.stores.events.sweep(0);
    expect(await eventsOf('unpublished')).toEqual(['task_started', 'step_started']);
  });

  it('cuts a long question to a line for its first event', async () => {
    const { begin } = stage();
    await begin('long', inputOf({ query: '😀 "quoted"\n'.repeat(1_000) }));
    const [event] = await test.stores.events.ring('long', undefined, 1);
    expect(Array.from(event?.message ?? '').length).toBeLessThanOrEqual(120);
    expect(event?.message?.endsWith('…')).toBe(true);
  });
});

describe('begin of a tenant with a cap', () => {
  const input = () => inputOf({ tenantId: 'capped' });

  it('refuses what a plain client started beyond it, each time it is asked, and leaves the row to finish', async () => {
    const { begin, finish } = stage({ maxQueued: 1 });
    expect(await begin('capped-1', input())).toMatchObject({ kind: 'go' });
    const refused = {
      kind: 'refuse',
      failure: { type: 'RateLimited', reason: expect.stringContaining('tenant capped has 1 tasks') },
    };
    expect(await begin('capped-2', input())).toMatchObject(refused);
    expect(await begin('capped-2', input())).toMatchObject(refused);
    await finish({ taskId: 'capped-2', tenantId: 'capped', status: 'failed' });
    expect(await test.stores.tasks.get('capped-2')).toMatchObject({ status: 'failed' });
  });

  it('lets the next one go when one has ended', async () => {
    const { begin, finish } = stage({ maxQueued: 1 });
    await finish({ taskId: 'capped-1', tenantId: 'capped', status: 'cancelled' });
    expect(await begin('capped-3', input())).toMatchObject({ kind: 'go' });
  });
});

describe('finish', () => {
  it('closes a task with its answer, its figures and its last events', async () => {
    const { begin, finish, ended } = stage();
    const input = inputOf();
    await begin('done', input);
    const answer = await answered('done', input.userId, 'because of Rayleigh');
    const usage = {
      inputTokens: 30,
      cachedInputTokens: 0,
      cacheWriteTokens: 0,
      outputTokens: 12,
      reasoningTokens: 0,
    };
    expect(await finish({ taskId: 'done', answer })).toEqual({
      text: 'because of Rayleigh',
      usage,
      costUsd: '0.005',
    });
    expect(await test.stores.tasks.get('done')).toMatchObject({
      status: 'completed',
      resultText: 'because of Rayleigh',
      steps: [{ stepId: 'answer', status: 'completed', callKey: answer.callKey, model: MODEL }],
      usage,
      nanoUsd: 5_000_000n,
    });
    expect(await eventsOf('done')).toEqual([
      'task_started',
      'step_started',
      'step_completed',
      'task_completed',
      'stream_end',
    ]);
    expect(ended).toEqual([
      { strategy: 'simple', status: 'completed', seconds: expect.any(Number), tokens: 42, usd: 0.005 },
    ]);
    expect(ended[0]?.seconds).toBeGreaterThanOrEqual(0);
  });

  it('keeps the answer of a task that was cancelled while its call was let finish', async () => {
    const { begin, finish } = stage();
    const input = inputOf();
    await begin('detached', input);
    const answer = await answered('detached', input.userId, 'because of Rayleigh');
    expect(await finish({ taskId: 'detached', status: 'cancelled', answer })).toMatchObject({
      text: 'because of Rayleigh',
    });
    expect(await test.stores.tasks.get('detached')).toMatchObject({
      status: 'cancelled',
      resultText: 'because of Rayleigh',
      steps: [{ status: 'completed', model: MODEL }],
    });
    expect((await eventsOf('detached')).slice(-3)).toEqual([
      'step_completed',
      'task_cancelled',
      'stream_end',
    ]);
  });

  it('answers the same when it is repeated, and ends the task once', async () => {
    const { begin, finish, ended } = stage();
    const input = inputOf();
    await begin('again', input);
    const answer = await answered('again', input.userId, 'x');
    const answers = await Promise.all([1, 2, 3].map(() => finish({ taskId: 'again', answer })));
    expect(await finish({ taskId: 'again', answer })).toEqual(answers[0]);
    expect(new Set(answers.map((one) => JSON.stringify(one))).size).toBe(1);
    expect((await eventsOf('again')).filter((type) => type === 'stream_end')).toHaveLength(1);
    expect(ended).toHaveLength(1);
  });

  it('answers a reference in place of a text that is too large for a history', async () => {
    const { begin, finish } = stage();
    const input = inputOf();
    await begin('large', input);
    const text = 'ä'.repeat(51);
    const answer = await answered('large', input.userId, text);
    expect(await finish({ taskId: 'large', answer })).toMatchObject({ text: '', textRef: 'task:large' });
    expect((await test.stores.tasks.get('large'))?.resultText).toBe(text);
    expect(await finish({ taskId: 'large', answer, maxTextBytes: 102 })).toEqual(
      expect.not.objectContaining({ textRef: expect.anything() }),
    );
  });

  it.each([
    ['failed', 'step_failed', 'task_failed'],
    ['cancelled', 'step_failed', 'task_cancelled'],
  ] as const)('closes a task that %s without a text', async (status, step, last) => {
    const { begin, finish } = stage();
    await begin(`end-${status}`, inputOf());
    const details = { type: 'NoModelAvailable', reason: 'auth', model: MODEL } as const;
    const error = { type: 'NoModelAvailable', message: 'no model available: auth', details };
    expect(
      await finish({ taskId: `end-${status}`, status, ...(status === 'failed' ? { error } : {}) }),
    ).toMatchObject({ text: '', costUsd: '0.00' });
    const row = await test.stores.tasks.get(`end-${status}`);
    expect(row).toMatchObject({
      status,
      resultText: undefined,
      error: status === 'failed' ? error : undefined,
    });
    const events = await test.stores.events.ring(`end-${status}`, undefined, 100);
    expect(events.slice(-3).map((event) => event.type)).toEqual([step, last, 'stream_end']);
    if (status === 'failed')
      expect(events.at(-2)).toMatchObject({ message: error.message, data: { type: error.type, details } });
    expect(events.at(-1)?.data).toEqual({ status });
  });

  it('throws where the answer of a completed task is missing, so that it is tried again', async () => {
    const { begin, finish } = stage();
    await begin('missing', inputOf());
    const answer = { callKey: 'missing:run-1:answer:1', stepId: 'answer', model: MODEL };
    await expect(finish({ taskId: 'missing', answer })).rejects.toThrow(
      'call missing:run-1:answer:1 of a completed task has no result',
    );
    expect((await test.stores.tasks.get('missing'))?.status).toBe('running');
  });

  it('throws for a task that never began', async () => {
    await expect(stage().finish({ taskId: 'nobody', status: 'failed' })).rejects.toThrow(
      'task nobody has no row',
    );
  });
});
