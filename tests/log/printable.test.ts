import { describe, expect, it } from 'vitest';
import { toPrintable } from '../../src/log/printable.ts';

/** What a reader of the JSON line sees. */
function printed(fields: Record<string, unknown>): unknown {
  return JSON.parse(JSON.stringify(toPrintable(fields)));
}

describe('toPrintable', () => {
  it('unfolds errors with message, stack, cause and their own fields', () => {
    const error = Object.assign(new RangeError('outer', { cause: new Error('inner') }), { code: 'E1' });
    expect(printed({ error, all: new AggregateError([new Error('one')], 'many') })).toMatchObject({
      error: {
        name: 'RangeError',
        message: 'outer',
        stack: expect.stringContaining('printable.test.ts'),
        code: 'E1',
        cause: { message: 'inner', stack: expect.any(String) },
      },
      all: { message: 'many', errors: [{ message: 'one' }] },
    });
  });

  it('carries what JSON cannot', () => {
    const cyclic: Record<string, unknown> = { a: 1 };
    cyclic['self'] = cyclic;
    const shared = { x: 1 };
    const fields = {
      big: 12_345_678_901_234_567_890n,
      nan: Number.NaN,
      date: new Date(0),
      bytes: new Uint8Array(5),
      map: new Map([['k', 1n]]),
      set: new Set([1]),
      url: new URL('http://h/p'),
      fn: () => 1,
      symbol: Symbol('s'),
      none: undefined,
      nil: null,
      list: [undefined, 1],
      cyclic,
      twice: [shared, shared],
    };
    expect(printed(fields)).toMatchObject({
      big: '12345678901234567890',
      nan: 'NaN',
      date: '1970-01-01T00:00:00.000Z',
      bytes: '[5 bytes]',
      map: { k: '1' },
      set: [1],
      url: 'http://h/p',
      fn: '[function]',
      symbol: '[symbol]',
      nil: null,
      list: [null, 1],
      cyclic: { a: 1, self: '[circular]' },
      twice: [{ x: 1 }, { x: 1 }],
    });
  });

  it('never throws', () => {
    const throwing = Object.defineProperty({}, 'x', { enumerable: true, get: () => expect.fail('read') });
    const deep = Array.from({ length: 50 }).reduce<unknown>((inner) => ({ inner }), 1);
    const revoked = Proxy.revocable({}, {});
    revoked.revoke();
    expect(
      printed({ throwing, revoked: revoked.proxy, bare: Object.create(null), date: new Date(Number.NaN) }),
    ).toMatchObject({
      throwing: '[unprintable]',
      revoked: '[unprintable]',
      bare: {},
      date: 'invalid date',
    });
    expect(JSON.stringify(printed({ deep }))).toContain('[too deep]');
    const long = printed({ text: 'x'.repeat(100_000), list: Array.from({ length: 1_000 }).fill(1) });
    expect(JSON.stringify(long).length).toBeLessThan(10_000);
  });
});

describe('secrets', () => {
  it('are hidden by the names of their fields', () => {
    const names = [
      'apiKey',
      'api_key',
      'OPENAI_API_KEY',
      'authorization',
      'Authorization',
      'password',
      'adminKey',
      'WEIR_ADMIN_KEY',
    ];
    const more = [
      'token',
      'accessToken',
      'refresh-token',
      'clientSecret',
      'secret',
      'credentials',
      'Set-Cookie',
      'x-api-key',
      'privateKey',
    ];
    const fields = Object.fromEntries([...names, ...more].map((name) => [name, 'hush']));
    const line = printed({
      ...fields,
      headers: { authorization: ['hush'] },
      deep: [{ config: { password: { value: 'hush' } } }],
    });
    expect(JSON.stringify(line)).not.toContain('hush');
    expect(line).toMatchObject(Object.fromEntries([...names, ...more].map((name) => [name, '***'])));
  });

  it('are not counts of tokens', () => {
    const fields = { inputTokens: 5, outputTokens: 6, tokens: 7, maxTokens: '8', firstTokenMs: 9, token: 10 };
    expect(printed(fields)).toMatchObject(fields);
  });

  it.each([
    ['postgres://weir:hush@db:5432/weir', 'postgres://weir:***@db:5432/weir'],
    ['postgres://weir:hush@hush/hush@db/weir', 'postgres://weir:***@db/weir'],
    ['cannot reach redis://:hush@h:6379, gave up', 'cannot reach redis://:***@h:6379, gave up'],
    ['authorization: Bearer hush.hush-hush', 'authorization: Bearer ***'],
    ['bad key sk-proj-hushhushhush1', 'bad key sk-***'],
    ['bad key AIzahushhushhushhush', 'bad key AIza***'],
    ['http://host:8080/path', 'http://host:8080/path'],
    ['mail me@host', 'mail me@host'],
  ])('are masked in %s', (text, masked) => {
    const line = printed({ text, error: new Error(text), list: [{ text }] });
    expect(line).toMatchObject({ text: masked, error: { message: masked }, list: [{ text: masked }] });
    expect(JSON.stringify(line)).not.toContain('hush');
  });

  // A pattern that backtracks would run into the test's time limit.
  it('are looked for in long texts of any form', () => {
    for (const part of ['a', 'a.', 'a://', 'a://b:', 'bearer ', 'sk-'])
      expect(printed({ text: part.repeat(500_000) })).toHaveProperty('text');
  });
});
