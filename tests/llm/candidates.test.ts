import { expect, it } from 'vitest';
import { createTurns, inOrder } from '../../src/llm/candidates.ts';

const MODELS = ['a/1', 'b/2', 'c/3'];
const COSTS = new Map([
  ['a/1', 5n],
  ['b/2', 2n],
  ['c/3', 5n],
]);
const costOf = (model: string) => COSTS.get(model);
const never = () => {
  throw new Error('not to be asked');
};

it('tries them as listed by priority, without a look at prices or turns', () => {
  expect(inOrder('priority', MODELS, { costOf: never, turn: never })).toEqual(MODELS);
});

it('tries the cheapest first by least cost, ties as listed', () => {
  expect(inOrder('least_cost', MODELS, { costOf, turn: never })).toEqual(['b/2', 'a/1', 'c/3']);
});

it('tries last what nobody knows the price of, and first what costs nothing', () => {
  const models = ['x/unknown', 'a/1', 'x/free', 'y/unknown'];
  const cost = (model: string) => (model === 'x/free' ? 0n : costOf(model));
  expect(inOrder('least_cost', models, { costOf: cost, turn: never })).toEqual([
    'x/free',
    'a/1',
    'x/unknown',
    'y/unknown',
  ]);
});

it('begins at the next one each time in turn, and goes round', () => {
  const turns = createTurns();
  const next = () => inOrder('round_robin', MODELS, { costOf: never, turn: () => turns('small') });
  expect([next(), next(), next(), next()]).toEqual([
    ['a/1', 'b/2', 'c/3'],
    ['b/2', 'c/3', 'a/1'],
    ['c/3', 'a/1', 'b/2'],
    ['a/1', 'b/2', 'c/3'],
  ]);
  expect(turns('large')).toBe(0);
});

it('has nothing to turn where nothing is there', () => {
  expect(inOrder('round_robin', [], { costOf, turn: () => 3 })).toEqual([]);
});
