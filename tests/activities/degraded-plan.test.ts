// What a task is given while dependencies are down, from the plan to its first events.

import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { planDegraded } from '../../src/activities/degraded-plan.ts';
import { createTaskActivities } from '../../src/activities/task.ts';
import { toTaskView } from '../../src/gateway/task-view.ts';
import { createTaskPlan } from '../../src/llm/plan-task.ts';
import type { BeginOutcome } from '../../src/task/decision.ts';
import { HEALTHY, type Health } from '../../src/task/degradation.ts';
import { parseTaskInput, type TaskInput } from '../../src/task/input.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const only = (model: string) => ({ strategy: 'priority', candidates: [model] }) as const;

const plan = createTaskPlan({
  models: {
    'a/small': { maxOutputTokens: 1_000 },
    'a/medium': { maxOutputTokens: 2_000 },
    'a/large': { maxOutputTokens: 4_000 },
  },
  tiers: { small: only('a/small'), medium: only('a/medium'), large: only('a/large') },
  shortHintMs: 5_000,
  isAvailable: () => true,
  taskLimits: [],
  callMaxDurationMs: 60_000,
  heartbeatTimeoutMs: 10_000,
  heldWaitMs: 30_000,
  maxTextBytes: 100,
  priorityQueues: true,
  searchAttributes: false,
});

const MODERATE: Health = { level: 'moderate', down: ['llm:b', 'redis'] };

function inputOf(fields: Record<string, unknown>): TaskInput {
  const parsed = parseTaskInput({ userId: 'ada', query: 'why', ...fields });
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.faults));
  return parsed.input;
}

function settingsFor(fields: Record<string, unknown>, health: Health) {
  const planned = planDegraded(plan, inputOf(fields), health);
  if (planned.kind === 'invalid') throw new Error(JSON.stringify(planned.faults));
  return planned.settings;
}

describe('planDegraded', () => {
  it('is the plan itself while nothing is down', () => {
    const input = inputOf({ tier: 'large' });
    expect(planDegraded(plan, input, HEALTHY)).toEqual(plan(input));
  });

  it('takes the model of the tier below, and keeps what was asked for', () => {
    expect(settingsFor({ tier: 'large' }, MODERATE)).toMatchObject({
      model: 'a/medium',
      candidates: ['a/medium'],
      tier: 'large',
      degradation: { ...MODERATE, tier: { asked: 'large', given: 'medium' } },
    });
  });

  it('does not refuse for its size what the tier that was asked for can do', () => {
    const settings = settingsFor({ tier: 'medium', maxOutputTokens: 1_500 }, MODERATE);
    expect(settings).toMatchObject({ model: 'a/medium', maxOutputTokens: 1_500 });
    expect(settings.degradation).toEqual(MODERATE);
  });

  it('refuses what no tier can do by the tier that was asked for', () => {
    const input = inputOf({ tier: 'large', maxOutputTokens: 9_000 });
    expect(planDegraded(plan, input, MODERATE)).toEqual(plan(input));
    expect(plan(input).kind).toBe('invalid');
  });

  it('does not touch a model that was asked for by name', () => {
    const settings = settingsFor({ model: 'a/large' }, MODERATE);
    expect(settings.model).toBe('a/large');
    expect(settings.degradation).toEqual(MODERATE);
  });
});

describe('begin', () => {
  let test: TestStores;
  beforeAll(async () => {
    test = await openTestStores();
  });
  afterAll(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  it.each([
    ['nothing', HEALTHY, []],
    [
      'two dependencies',
      MODERATE,
      [
        {
          type: 'degraded',
          message: 'llm:b, redis are down',
          data: { ...MODERATE, tier: { asked: 'large', given: 'medium' } },
        },
      ],
    ],
    [
      'one dependency',
      { level: 'minor', down: ['redis'] } as const,
      [{ type: 'degraded', message: 'redis is down', data: { level: 'minor', down: ['redis'] } }],
    ],
  ] as const)('tells a task of %s', async (_, health, told) => {
    const { begin } = createTaskActivities({
      ...test.stores,
      plan,
      tokens: { upperBound: () => 100 },
      health: () => health,
      meter: { started: () => undefined, ended: () => undefined },
      log: test.log,
    });
    const environment = new MockActivityEnvironment(
      { isLocal: true },
      { logger: new DefaultLogger('ERROR') },
    );
    const input = inputOf({ tier: 'large' });
    const taskId = `begins-${health.level}`;
    const given = { taskId, runId: 'run', input };
    const begun: BeginOutcome = await environment.run(begin, given);
    // A begin that is repeated tells nothing twice.
    await environment.run(begin, given);
    if (begun.kind !== 'go') throw new Error(`the task was not begun: ${begun.kind}`);
    expect(begun.settings.degradation?.level ?? 'none').toBe(health.level);
    const events = await test.stores.events.ring(taskId, undefined, 100);
    expect(events.filter(({ type }) => type === 'degraded')).toMatchObject(told);
    // The record is of what was asked for.
    const row = await test.stores.tasks.get(taskId);
    expect(row).toMatchObject({ tier: 'large', model: begun.settings.model });
    expect(row?.degradation).toEqual(begun.settings.degradation);
    if (row !== undefined) expect(toTaskView(row).degradation).toEqual(begun.settings.degradation);
  });
});
