// Inputs that are made to break something: huge, deep, wide, with names and characters that nobody writes by chance.

import { describe, expect, it } from 'vitest';
import type { Fault } from '../../src/task/failure.ts';
import { MAX_INPUT_BYTES, parseTaskInput, type TaskInput } from '../../src/task/input.ts';

const MINIMAL = { userId: 'ada', query: 'why is the sky blue' };

function valid(value: unknown): TaskInput {
  const parsed = parseTaskInput(value);
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.faults));
  return parsed.input;
}

function faultsOf(value: unknown): readonly Fault[] {
  const parsed = parseTaskInput(value);
  if (parsed.kind === 'valid') throw new Error('the input is valid');
  return parsed.faults;
}

const pathsOf = (value: unknown) => faultsOf(value).map((fault) => fault.path);

/** As it comes over the wire: JSON.parse makes own properties of names that a literal would not. */
const withField = (name: string, json: string): unknown =>
  JSON.parse(`{"userId":"ada","query":"q",${JSON.stringify(name)}:${json}}`);

const nested = (levels: number, open = '[', close = ']') => open.repeat(levels) + close.repeat(levels);

/** 128,000 fields in less than a mebibyte: names of three characters. */
function manyNames(): Record<string, number> {
  const alphabet = Array.from({ length: 92 }, (_, n) => String.fromCharCode(33 + n)).filter(
    (one) => one !== '"' && one !== '\\',
  );
  const pairs = alphabet.flatMap((first) => alphabet.map((second) => first + second));
  return Object.fromEntries(
    pairs.flatMap((pair) => alphabet.map((last) => [pair + last, 0])).slice(0, 128_000),
  );
}

describe('parseTaskInput', () => {
  it.each(['__proto__', 'constructor', 'toString', 'hasOwnProperty'])(
    'refuses a field named %s like any other',
    (name) => {
      expect(pathsOf(withField(name, '{"userId":"eve"}'))).toEqual([name]);
      expect(pathsOf(withField('budget', `{"${name}":{"usd":1}}`))).toEqual([`budget.${name}`]);
      expect(
        pathsOf(JSON.parse(`{"userId":"ada","messages":[{"role":"user","content":"x","${name}":1}]}`)),
      ).toEqual([`messages.0.${name}`]);
      expect(Reflect.get({}, 'usd')).toBeUndefined();
    },
  );

  it('refuses an input of more than a mebibyte before it looks at its fields', () => {
    const query = 'x'.repeat(2_000_000);
    expect(faultsOf({ query })).toEqual([
      { path: '', expected: 'at most 1048576 bytes of JSON', got: '2000012 bytes' },
    ]);
  });

  it('counts the size in UTF-8 bytes of JSON', () => {
    const room = MAX_INPUT_BYTES - JSON.stringify({ userId: 'ada', query: '' }).length;
    expect(valid({ userId: 'ada', query: 'ä'.repeat(Math.floor(room / 2)) })).toBeTypeOf('object');
    expect(pathsOf({ userId: 'ada', query: 'ä'.repeat(Math.floor(room / 2) + 1) })).toEqual(['']);
  });

  it.each<[string, string]>([
    ['lists', nested(100_000)],
    ['objects', nested(100_000, '{"a":', '}').replace('{"a":}', '{}')],
  ])('refuses a hundred thousand levels of %s without a stack overflow', (_title, json) => {
    for (const name of ['labels', 'query', 'unknown'])
      expect(faultsOf(withField(name, json))).toEqual([
        { path: '', expected: 'at most 64 levels of nesting', got: 'more' },
      ]);
  });

  it('looks at fields that are nested as deep as it may be', () => {
    expect(pathsOf(withField('labels', nested(64)))).toEqual(['labels']);
    expect(pathsOf(withField('labels', nested(65)))).toEqual(['']);
  });

  it('reports at most twenty faults', () => {
    expect(
      faultsOf({ ...MINIMAL, ...Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`f${n}`, n])) }),
    ).toHaveLength(20);
  });

  it.each(['budget', 'messages'])(
    'survives more unknown names inside %s than an argument list may have',
    (name) => {
      const value =
        name === 'budget' ? { ...MINIMAL, budget: manyNames() } : { userId: 'ada', messages: [manyNames()] };
      expect(JSON.stringify(value).length).toBeLessThan(MAX_INPUT_BYTES);
      expect(faultsOf(value)).toHaveLength(20);
    },
  );

  it('cleans what it repeats of a stranger: names and values', () => {
    const hostile = JSON.parse(
      '{"userId":"ada","query":"q","\\ud800a\\u0000":"\\udc00\\u0000","budget":{"\\u0000":1},"tier":"\\ud800"}',
    ) as Record<string, unknown>;
    hostile[`${'x'.repeat(99)}😀`] = '😀'.repeat(200);
    const faults = faultsOf(hostile);
    expect(faults).toHaveLength(4);
    for (const fault of faults)
      for (const text of Object.values(fault)) {
        expect(text.isWellFormed() && !text.includes('\u0000')).toBe(true);
        expect(Array.from(text).length).toBeLessThanOrEqual(150);
      }
  });
});
