import { describe, expect, it } from 'vitest';
import { createTaskPlan, type PlanConfig } from '../../src/llm/plan-task.ts';
import type { TaskPlan } from '../../src/task/decision.ts';
import { PRIORITIES, parseTaskInput, type TaskInput } from '../../src/task/input.ts';
import { MAX_LIMIT_NANO_USD } from '../../src/task/money.ts';
import { hardLimit } from '../support/stores.ts';

const asListed = (...candidates: string[]) => ({ strategy: 'priority', candidates }) as const;

const CONFIG: PlanConfig = {
  models: {
    'openai/small': { maxOutputTokens: 2_000 },
    'openai/large': { maxOutputTokens: 128_000 },
    'simulated/small': { maxOutputTokens: 8_000 },
  },
  tiers: {
    small: asListed('openai/small', 'simulated/small'),
    medium: asListed('openai/large'),
    large: asListed('openai/large', 'simulated/small'),
  },
  isAvailable: (model) => model.startsWith('openai/'),
  shortHintMs: 5,
  taskLimits: [hardLimit('usd', 2_000n), hardLimit('tokens', 101n)],
  callMaxDurationMs: 1,
  heartbeatTimeoutMs: 2,
  heldWaitMs: 3,
  maxTextBytes: 4,
  priorityQueues: true,
  searchAttributes: false,
};

function inputOf(fields: Record<string, unknown>): TaskInput {
  const parsed = parseTaskInput({ userId: 'ada', query: 'why', ...fields });
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.faults));
  return parsed.input;
}

const planOf = (fields: Record<string, unknown> = {}, change: Partial<PlanConfig> = {}): TaskPlan =>
  createTaskPlan({ ...CONFIG, ...change })(inputOf(fields));

function planned(
  fields: Record<string, unknown> = {},
  change: Partial<PlanConfig> = {},
): Extract<TaskPlan, { kind: 'planned' }> {
  const plan = planOf(fields, change);
  if (plan.kind === 'invalid') throw new Error(JSON.stringify(plan.faults));
  return plan;
}

describe('the settings of a task', () => {
  it('are a snapshot of the configuration', () => {
    expect(planned().settings).toEqual({
      model: 'openai/small',
      tier: 'small',
      candidates: ['openai/small'],
      shortHintMs: 5,
      cheaper: [],
      onExceeded: 'refuse',
      approval: { before: 'never', timeoutSeconds: 86_400, onTimeout: 'reject' },
      abort: 'cancel',
      strategy: 'simple',
      maxOutputTokens: 2_000,
      callMaxDurationMs: 1,
      heartbeatTimeoutMs: 2,
      heldWaitMs: 3,
      maxTextBytes: 4,
      searchAttributes: false,
      priorityQueues: true,
      fairnessWeight: 1,
    });
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['the first of the small tier', {}, 'openai/small'],
    ['the first of the tier that was asked for', { tier: 'large' }, 'openai/large'],
    ['the model that was asked for, available or not', { model: 'simulated/small' }, 'simulated/small'],
  ])('take %s', (_title, fields, model) => {
    expect(planned(fields).settings).toMatchObject({ model, candidates: [model] });
  });

  it.each<[string, Record<string, unknown>, readonly string[]]>([
    ['of every lower tier, dearest first', { tier: 'large' }, ['b/medium', 'a/small', 'b/small']],
    ['of the tiers below the model that was asked for', { model: 'b/medium' }, ['a/small', 'b/small']],
    ['nowhere below the smallest tier', { tier: 'small' }, []],
    ['nowhere from a model that no tier has', { model: 'a/loose' }, []],
    ['that can write as much', { tier: 'large', maxOutputTokens: 5_000 }, ['b/medium', 'b/small']],
  ])('name cheaper models %s, for a task that degrades', (_title, fields, cheaper) => {
    const maxOutputTokens = (n: number) => ({ maxOutputTokens: n });
    const config: Partial<PlanConfig> = {
      models: {
        ...{ 'a/large': maxOutputTokens(9_000), 'b/medium': maxOutputTokens(9_000) },
        ...{ 'a/small': maxOutputTokens(4_999), 'b/small': maxOutputTokens(5_000) },
        ...{ 'away/medium': maxOutputTokens(9_000), 'a/loose': maxOutputTokens(9_000) },
        ...{ 'c/large': maxOutputTokens(9_000) },
      },
      tiers: {
        small: asListed('a/small', 'b/small'),
        medium: asListed('away/medium', 'b/medium'),
        large: asListed('a/large', 'c/large'),
      },
      isAvailable: (model) => !model.startsWith('away/'),
    };
    const degrade = { budget: { onExceeded: 'degrade' } };
    expect(planned({ ...fields, ...degrade }, config).settings.cheaper).toEqual(cheaper);
    expect(planned(fields, config).settings.cheaper).toEqual([]);
  });

  it('pass over models whose provider is not configured, and name the first where none is', () => {
    expect(planned({}, { isAvailable: (model) => model === 'simulated/small' }).settings.model).toBe(
      'simulated/small',
    );
    expect(planned({}, { isAvailable: () => false }).settings.model).toBe('openai/small');
  });

  it.each<[Record<string, unknown>, number]>([
    [{}, 2_000],
    [{ tier: 'large' }, 4_096],
    [{ maxOutputTokens: 1 }, 1],
    [{ tier: 'large', maxOutputTokens: 128_000 }, 128_000],
  ])('of %j allow %i tokens of output', (fields, tokens) => {
    expect(planned(fields).settings.maxOutputTokens).toBe(tokens);
  });

  it('run auto as simple', () => {
    expect(planned({ strategy: 'auto' }).settings.strategy).toBe('simple');
    expect(planned({ strategy: 'simple' }).settings.strategy).toBe('simple');
  });
});

describe('what configuration does not know', () => {
  it('is named with its path and what there is', () => {
    expect(planOf({ model: 'openai/unknown', tools: ['search', 'browse'] })).toEqual({
      kind: 'invalid',
      faults: [
        {
          path: 'model',
          expected: 'a model out of openai/small, openai/large, simulated/small',
          got: '"openai/unknown"',
        },
        { path: 'tools.0', expected: 'a known tool (there is none yet)', got: '"search"' },
        { path: 'tools.1', expected: 'a known tool (there is none yet)', got: '"browse"' },
      ],
    });
  });

  it('is more output than the model has', () => {
    expect(planOf({ maxOutputTokens: 2_001 })).toEqual({
      kind: 'invalid',
      faults: [
        {
          path: 'maxOutputTokens',
          expected: 'at most 2000, the largest output of openai/small',
          got: '2001',
        },
      ],
    });
  });
});

describe('the limits of a task', () => {
  it.each(PRIORITIES)('are the defaults times the multiplier of priority %s', (priority) => {
    const tenths = { critical: 20n, high: 15n, normal: 10n, low: 5n }[priority];
    expect(planned({ priority }).limits).toEqual([
      hardLimit('usd', 200n * tenths),
      hardLimit('tokens', (101n * tenths) / 10n),
    ]);
  });

  it('are those that it brought, instead of the defaults, whatever its priority', () => {
    expect(planned({ budget: { usd: '0.5' }, priority: 'critical' }).limits).toEqual([
      hardLimit('usd', 500_000_000n),
    ]);
    expect(planned({ budget: { tokens: 7 } }).limits).toEqual([hardLimit('tokens', 7n)]);
    expect(planned({ budget: { usd: 9_000_000, tokens: 0 } }).limits).toEqual([
      hardLimit('usd', MAX_LIMIT_NANO_USD),
      hardLimit('tokens', 0n),
    ]);
  });

  it('are none where no default is configured', () => {
    expect(planned({}, { taskLimits: [] }).limits).toEqual([]);
  });
});

describe('the candidates of a task', () => {
  const models = {
    'a/one': { maxOutputTokens: 9_000 },
    'b/two': { maxOutputTokens: 2_000 },
    'c/three': { maxOutputTokens: 9_000 },
  };
  const tiersWith = (strategy: 'priority' | 'least_cost' | 'round_robin') => {
    const route = { strategy, candidates: ['a/one', 'away/none', 'b/two', 'c/three'] };
    return { small: route, medium: route, large: route };
  };
  const isAvailable = (model: string) => !model.startsWith('away/');

  it('are all of the tier whose provider is configured', () => {
    const { settings } = planned({}, { models, tiers: tiersWith('priority'), isAvailable });
    expect(settings).toMatchObject({ model: 'a/one', candidates: ['a/one', 'b/two', 'c/three'] });
  });

  it('leave out those that cannot write as much as was asked for', () => {
    const config = { models, tiers: tiersWith('priority'), isAvailable };
    expect(planned({ maxOutputTokens: 2_001 }, config).settings.candidates).toEqual(['a/one', 'c/three']);
  });

  it('begin with the cheapest for this very call, by what each would be asked for', () => {
    const asked: [string, string, number][] = [];
    const config: Partial<PlanConfig> = {
      models,
      tiers: tiersWith('least_cost'),
      isAvailable,
      costOf: (model, input, maxOutputTokens) => {
        asked.push([model, input.userId, maxOutputTokens]);
        return model === 'c/three' ? 1n : 2n;
      },
    };
    expect(planned({}, config).settings.candidates).toEqual(['c/three', 'a/one', 'b/two']);
    expect(asked.slice(0, 3)).toEqual([
      ['a/one', 'ada', 4_096],
      ['b/two', 'ada', 2_000],
      ['c/three', 'ada', 4_096],
    ]);
  });

  it('say whether the first of them costs nothing', () => {
    const config = { models, tiers: tiersWith('priority'), isAvailable };
    const costOf = (model: string) => (model === 'a/one' ? 0n : 1n);
    expect(planned({}, { ...config, costOf }).isFree).toBe(true);
    expect(planned({ model: 'b/two' }, { ...config, costOf }).isFree).toBe(false);
    expect(planned({}, config).isFree).toBe(false);
  });

  it('take turns', () => {
    let turn = 0;
    const config: Partial<PlanConfig> = {
      models,
      tiers: tiersWith('round_robin'),
      isAvailable,
      turnOf: () => turn++,
    };
    expect([0, 1, 2].map(() => planned({}, config).settings.model)).toEqual(['a/one', 'b/two', 'c/three']);
  });

  it('are the one that was asked for, and its tier', () => {
    const config = { models, tiers: tiersWith('least_cost'), isAvailable };
    expect(planned({ model: 'c/three' }, config).settings).toMatchObject({
      tier: 'small',
      candidates: ['c/three'],
    });
    const loose = { models: { ...models, 'x/loose': { maxOutputTokens: 1 } } };
    expect(planned({ model: 'x/loose' }, { ...config, ...loose }).settings).not.toHaveProperty('tier');
  });
});
