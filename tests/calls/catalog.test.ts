import { expect, it } from 'vitest';
import { createCatalogs } from '../../src/calls/catalog.ts';

const priced = (output: bigint) => ({
  maxOutputTokens: 100,
  prices: [
    {
      ...{ validFromMs: 0, input: 1n, cachedInput: 1n, cacheWrite5m: 1n, cacheWrite1h: 1n },
      ...{ output, above: [] },
    },
  ],
});
const outputOf = (catalog: ReturnType<ReturnType<typeof createCatalogs>> | undefined, id = 'p/m') =>
  catalog?.modelOf(id)?.prices[0]?.output;

it('answers the present list, one that never changes itself and knows the ones before it', () => {
  let present = { modelsHash: 'one', models: { 'p/m': priced(1n), 'p/gone': priced(9n) } };
  const catalogs = createCatalogs(() => present);
  const first = catalogs();
  expect(catalogs()).toBe(first);
  present = { modelsHash: 'two', models: { 'p/m': priced(2n) } as typeof present.models };
  const second = catalogs();
  expect([first.priceHash, outputOf(first)]).toEqual(['one', 1n]);
  expect([second.priceHash, outputOf(second), second.modelOf('p/gone')]).toEqual(['two', 2n, undefined]);
  expect([outputOf(second.listOf?.('one')), outputOf(first.listOf?.('two'))]).toEqual([1n, 2n]);
  expect(second.listOf?.('never')).toBeUndefined();
});

it('knows no model by a name that every object has', () => {
  expect(createCatalogs(() => ({ modelsHash: 'h', models: {} }))().modelOf('constructor')).toBeUndefined();
});

it('forgets the oldest of very many lists, never the present one', () => {
  let n = 0;
  const catalogs = createCatalogs(() => ({ modelsHash: `h${n}`, models: {} }));
  for (; n < 200; n += 1) catalogs();
  n -= 1;
  expect(catalogs().listOf?.('h0')).toBeUndefined();
  expect(catalogs().listOf?.('h199')).toBe(catalogs());
});
