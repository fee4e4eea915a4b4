import { describe, expect, it } from 'vitest';
import { sanitise } from '../../src/stores/sanitise.ts';
import { isCleanText } from '../../src/task/text.ts';

describe('sanitise', () => {
  it.each<[string, unknown]>([
    ['null', null],
    ['a number', 1.5],
    ['a boolean', false],
    ['a text', 'plain 😀'],
    [
      'an ordinary payload',
      { strategy: 'simple', usage: { inputTokens: 1 }, steps: [{ stepId: 'answer' }], none: null },
    ],
  ])('leaves %s as it is', (_title, value) => {
    expect(sanitise(value)).toEqual(value);
  });

  it('copies, it does not change what it is given', () => {
    const given = Object.freeze({ a: Object.freeze(['x\u0000']) });
    expect(sanitise(given)).toEqual({ a: ['x'] });
  });

  it('removes NULs and lone surrogates from texts and names', () => {
    expect(sanitise({ 'a\u0000': ['\ud800x', 'y\udc00', '\u0000'] })).toEqual({ a: ['�x', 'y�', ''] });
  });

  it('writes large integers as text, which JSON has no number for', () => {
    expect(sanitise({ nano: 9_007_199_254_740_993n })).toEqual({ nano: '9007199254740993' });
  });

  it.each([
    'sk-abcdefghijklmnop1234',
    'sk-proj-abc_DEF-1234567890',
    'Bearer eyJhbGciOi.J9.abc~x/y+z==',
    'bearer abcdefghijklmnopqrstuvwxyz',
    'AIzaSyA1234567890abcdefghijklmnopqrstuv',
  ])('redacts the secret %s inside a text', (secret) => {
    expect(sanitise(`before ${secret} after`)).toBe('before [redacted] after');
  });

  it.each([
    'apiKey',
    'api_key',
    'api-key',
    'API_KEY',
    'Authorization',
    'x-api-key',
    'password',
    'secret',
    'client_secret',
    'accessToken',
    'access_token',
    'openaiApiKey',
    'apiKey\u0000',
  ])('redacts the value of %j', (name) => {
    expect(Object.values(sanitise({ [name]: { deep: 'value' } }) as object)).toEqual(['[redacted]']);
  });

  it.each(['inputTokens', 'keys', 'author', 'cached'])('leaves the value of %s', (name) => {
    expect(sanitise({ [name]: 'x' })).toEqual({ [name]: 'x' });
  });

  it('leaves counts, whatever their name', () => {
    expect(sanitise({ firstToken: 120, secret: false, token: null })).toEqual({
      firstToken: 120,
      secret: false,
      token: null,
    });
  });

  it('replaces base64 of a kilobyte, not a word', () => {
    const image = Buffer.alloc(3_000, 7).toString('base64');
    expect(sanitise({ url: `data:image/png;base64,${image}` })).toEqual({
      url: 'data:image/png;base64,[base64]',
    });
    expect(sanitise('x'.repeat(1_023))).toBe('x'.repeat(1_023));
  });

  it('cuts a long text at a character and says so', () => {
    const text = sanitise('ä😀'.repeat(20_000)) as string;
    expect(text.length).toBeLessThanOrEqual(16_385);
    expect(text.endsWith('…')).toBe(true);
    expect(text).not.toContain('�');
  });

  it('leaves no half of a secret where a text is cut', () => {
    const secret = 'sk-abcdefghijklmnopqrstuvwxyz0123456789';
    for (let shown = 1; shown < secret.length; shown += 1) {
      const text = `${'x '.repeat(8_192).slice(shown)}${secret}`;
      expect(sanitise(text)).not.toContain('sk-');
    }
  });

  it('cuts a hundred thousand levels of nesting without a stack overflow', () => {
    const deep: unknown = JSON.parse(`${'{"a":['.repeat(100_000)}1${']}'.repeat(100_000)}`);
    expect(JSON.stringify(sanitise({ deep }))).toBe('{"deep":{"a":[{"a":[{"a":[{"a":"[too deep]"}]}]}]}}');
  });

  it('keeps two hundred entries of a list and of an object', () => {
    expect(sanitise(Array.from({ length: 1_000 }, (_, n) => n))).toHaveLength(200);
    const wide = Object.fromEntries(Array.from({ length: 1_000 }, (_, n) => [`k${n}`, n]));
    expect(Object.keys(sanitise(wide) as object)).toHaveLength(200);
  });

  it('bounds the whole of a payload that is wide, deep and long at once', () => {
    const row = () => Array.from({ length: 200 }, () => 'long text '.repeat(1_000));
    const text = JSON.stringify(sanitise({ rows: Array.from({ length: 200 }, row) }));
    expect(text.length).toBeLessThan(100_000);
    expect(isCleanText(text)).toBe(true);
  });

  it.each<[string, unknown, unknown]>([
    ['a date', new Date(0), '1970-01-01T00:00:00.000Z'],
    ['a date that is none', new Date(Number.NaN), null],
    ['bytes', [new Uint8Array(9), Buffer.from('a')], ['[binary]', '[binary]']],
    ['a map', new Map([['a', 1]]), { a: 1 }],
    ['a set', new Set([1, 2]), [1, 2]],
    ['numbers that JSON does not know', [Number.NaN, Number.POSITIVE_INFINITY, -0], [null, null, 0]],
    ['what JSON has no word for', { a: undefined, b: () => 1, c: [Symbol('s')] }, { c: [null] }],
    ['nothing', undefined, null],
    ['an error', new TypeError('no'), 'TypeError: no'],
    ['a boxed text', Object('text'), 'text'],
    ['an object that says what it is', { toJSON: () => ({ a: 1n }) }, { a: '1' }],
    ['holes', Object.assign([], { 2: 'x' }), [null, null, 'x']],
  ])('makes JSON of %s', (_title, value, safe) => {
    expect(sanitise(value)).toEqual(safe);
  });

  it('says what cannot be read instead of failing', () => {
    const fail = () => {
      throw new Error('hands off');
    };
    const trap = Object.defineProperty({}, 'a', { enumerable: true, get: fail });
    const closed = new Proxy({}, { ownKeys: fail });
    expect(sanitise([trap, closed, { toJSON: fail }])).toEqual([
      { a: '[unreadable]' },
      '[unreadable]',
      '[unreadable]',
    ]);
  });

  it('ends where a value holds itself', () => {
    const loop: Record<string, unknown> = {};
    loop['self'] = loop;
    expect(JSON.stringify(sanitise(loop))).toContain('[too deep]');
  });

  it('redacts a secret in the name of a field, and keeps names short', () => {
    const name = 'x'.repeat(1_000);
    expect(Object.keys(sanitise({ 'sk-abcdefghijklmnop': 1, [name]: 2 }) as object)).toEqual([
      '[redacted]',
      `${'x'.repeat(255)}…`,
    ]);
  });

  it('does not cut a second time what it has cut', () => {
    const once = sanitise({
      text: 'password = x '.repeat(3_000),
      more: ['x'.repeat(70_000), 'ä'.repeat(70_000)],
    });
    expect(sanitise(once)).toEqual(once);
  });

  it.each(['password = hunter2 ', '{"api_key": "hunter2"} ', "pwd='hunter2' ", 'a:b@c://d:e@f '])(
    'does not take what a cut left of %j for a secret of its own',
    (piece) => {
      for (let shift = 0; shift < 40; shift += 1) {
        const once = sanitise({ text: `${'x'.repeat(shift)} ${piece.repeat(4_000)}` });
        expect(sanitise(once)).toEqual(once);
      }
    },
  );

  it('shares out its room in the order that the copy has', () => {
    const long = 'word '.repeat(4_000);
    // A clean name that is a number moves to the front.
    const once = sanitise({ a: long, b: long, c: long, d: long, e: 'cut', '9\u0000': long });
    expect(Object.keys(once as object)[0]).toBe('9');
    expect(sanitise(once)).toEqual(once);
  });

  it('makes an own property of __proto__ and nothing else', () => {
    const copy = sanitise(JSON.parse('{"__proto__":{"polluted":true}}')) as object;
    expect(Object.keys(copy)).toEqual(['__proto__']);
    expect(Reflect.get({}, 'polluted')).toBeUndefined();
  });
});
