import { describe, expect, it } from 'vitest';
import {
  degradationLevel,
  degradeInput,
  endedStatus,
  HEALTHY,
  type Health,
  healthOf,
} from '../../src/task/degradation.ts';
import { parseTaskInput, type TaskInput } from '../../src/task/input.ts';

function inputOf(fields: Partial<TaskInput>): TaskInput {
  const parsed = parseTaskInput({ userId: 'ada', query: 'why' });
  if (parsed.kind === 'invalid') throw new Error('the input of the test is invalid');
  return { ...parsed.input, ...fields };
}

describe('degradationLevel', () => {
  it.each([
    [0, 'none'],
    [1, 'minor'],
    [2, 'moderate'],
    [3, 'severe'],
    [4, 'severe'],
    [100, 'severe'],
  ] as const)('with %i dependencies down is %s', (down, level) => {
    expect(degradationLevel(down)).toBe(level);
  });
});

describe('healthOf', () => {
  it.each<[string, Readonly<Record<string, 'closed' | 'half_open' | 'open'>>, Health]>([
    ['nothing', {}, HEALTHY],
    ['what serves', { redis: 'closed', 'llm:a/x': 'closed' }, HEALTHY],
    ['what may be tried', { redis: 'half_open' }, HEALTHY],
    ['a store', { redis: 'open', postgres: 'closed' }, { level: 'minor', down: ['redis'] }],
    [
      'models of one provider, once',
      { 'llm:a/x': 'open', 'llm:a/y': 'open', 'llm:a/y/z': 'open', 'llm:b/x': 'closed' },
      { level: 'minor', down: ['llm:a'] },
    ],
    [
      'providers and tools, each',
      { 'llm:b/x': 'open', 'llm:a/x': 'open', 'tool:search': 'open' },
      { level: 'severe', down: ['llm:a', 'llm:b', 'tool:search'] },
    ],
    [
      'two stores',
      { temporal: 'open', postgres: 'open' },
      { level: 'moderate', down: ['postgres', 'temporal'] },
    ],
  ])('counts %s', (_, states, health) => {
    const breakers = Object.entries(states).map(([name, state]) => ({ name, state }));
    expect(healthOf(breakers)).toEqual(health);
  });
});

const MINOR: Health = { level: 'minor', down: ['redis'] };
const MODERATE: Health = { level: 'moderate', down: ['llm:a', 'redis'] };
const SEVERE: Health = { level: 'severe', down: ['llm:a', 'llm:b', 'redis'] };

describe('degradeInput', () => {
  it('leaves a task alone while nothing is down, and says nothing', () => {
    const input = inputOf({ tier: 'large', strategy: 'dag' });
    expect(degradeInput(input, HEALTHY)).toEqual({ input });
  });

  it('says what is down and changes nothing while that is little', () => {
    const input = inputOf({ tier: 'large', strategy: 'dag' });
    expect(degradeInput(input, MINOR)).toEqual({ input, degradation: MINOR });
  });

  it.each([
    ['large', 'medium', MODERATE],
    ['medium', 'small', MODERATE],
    ['large', 'medium', SEVERE],
  ] as const)('lowers the tier %s to %s', (asked, given, health) => {
    const input = inputOf({ tier: asked });
    expect(degradeInput(input, health)).toEqual({
      input: { ...input, tier: given },
      degradation: { ...health, tier: { asked, given } },
    });
  });

  it.each<[string, Partial<TaskInput>]>([
    ['the smallest tier', { tier: 'small' }],
    ['no tier', {}],
    ['a model by its name', { tier: 'large', model: 'a/x' }],
    ['a plain strategy', { strategy: 'simple' }],
    ['a strategy of another kind', { strategy: 'react' }],
  ])('leaves %s as it is', (_, fields) => {
    const input = inputOf(fields);
    expect(degradeInput(input, SEVERE)).toEqual({ input, degradation: SEVERE });
  });

  it('turns dag into simple', () => {
    const input = inputOf({ strategy: 'dag', model: 'a/x' });
    expect(degradeInput(input, MODERATE)).toEqual({
      input: { ...input, strategy: 'simple' },
      degradation: { ...MODERATE, strategy: { asked: 'dag', given: 'simple' } },
    });
  });
});

describe('endedStatus', () => {
  it.each([
    // strategy, level, succeeded of all, how it ends
    ['simple', 'none', 1, 1, 'completed'],
    ['simple', 'severe', 1, 1, 'completed'],
    ['simple', 'none', 0, 1, 'failed'],
    ['simple', 'severe', 0, 1, 'failed'],
    ['simple', 'moderate', 3, 4, 'failed'],
    ['simple', 'severe', 1, 4, 'partial'],
    ['dag', 'none', 3, 4, 'failed'],
    ['dag', 'minor', 2, 4, 'partial'],
    ['dag', 'moderate', 2, 4, 'partial'],
    ['dag', 'moderate', 1, 4, 'failed'],
    ['dag', 'moderate', 1, 3, 'failed'],
    ['dag', 'severe', 1, 4, 'partial'],
    ['dag', 'severe', 0, 4, 'failed'],
    ['dag', 'severe', 4, 4, 'completed'],
    ['react', 'moderate', 3, 4, 'failed'],
    ['react', 'severe', 1, 4, 'partial'],
  ] as const)('of %s at level %s with %i of %i steps is %5$s', (strategy, level, succeeded, all, status) => {
    const steps = Array.from({ length: all }, (_, n) => ({ status: n < succeeded ? 'completed' : 'failed' }));
    expect(endedStatus(steps, { strategy, level })).toBe(status);
  });
});
