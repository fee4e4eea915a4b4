// Payloads that no honest publisher would make: everything JavaScript can put into a value, and secrets wherever a value can hold one.
// The same chance makes the same payload.

import type { Random } from '../model/random.ts';

export type HostilePayload = {
  readonly value: unknown;
  /** Pieces of secrets and of binary data: none of them may be seen afterwards. */
  readonly hidden: readonly string[];
};

const DEEPEST = 4;
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const CAPITALS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789';
const NASTY = [
  ...[
    '\u0000',
    '\ud800',
    '\udc00',
    '\udfff\ud83c',
    '\ud83c\udf0a',
    '\u2028',
    '\ufeff',
    '\uffff',
    '\r\n',
    '\u001b[31m',
  ],
  ...[
    '\\u0000',
    '\\',
    '"',
    "'",
    '{"a":',
    '[redacted]',
    '[base64]',
    '…',
    'password=',
    'password=[red',
    'Bearer ',
    'sk-',
  ],
  ...['://', 'a:b@', '-----BEGIN ', 'data:image/png;base64,', 'plain words ', 'é漢🌊', '   ', '\n', '='],
];
const NAMES = [
  ...['a', 'message', 'inputTokens', '1', '0', '-1', '', '__proto__', 'constructor', 'toString', 'length'],
  ...['a\u0000', '\ud800', 'é漢🌊', 'x'.repeat(400), 'hasOwnProperty', 'toJSON\u0000'],
];
const SECRET_NAMES = [
  'apiKey',
  'api_key',
  'Authorization',
  'db-password',
  'clientSecret',
  'accessToken',
  'Set-Cookie',
];

/** What must be hidden, and the text in which it is given away. */
type Secret = { readonly core: string; readonly text: string };

export function hostilePayload(random: Random): HostilePayload {
  const hidden: string[] = [];
  return { value: createMaker(random, hidden).value(0), hidden };
}

function createMaker(random: Random, hidden: string[]) {
  const letters = (length: number, of = LETTERS) =>
    Array.from({ length }, () => of[random.int(of.length)]).join('');
  const some = (below: number) => Array.from({ length: random.int(below) });

  const secret = (): Secret => {
    const core = letters(24);
    const capitals = letters(16, CAPITALS);
    const forms: readonly (() => Secret)[] = [
      () => ({ core, text: `sk-proj-${core}` }),
      () => ({ core, text: `AIza${core}` }),
      () => ({ core, text: `${random.pick(['Bearer', 'bearer', 'BEARER'])}  ${core}` }),
      () => ({ core: capitals, text: `AKIA${capitals}` }),
      () => ({ core, text: `${random.pick(['ghp_', 'gho_', 'github_pat_'])}${core}` }),
      () => ({ core, text: `xoxb-${core}` }),
      () => ({ core, text: `eyJ${letters(20)}.${core}.${letters(20)}` }),
      () => ({
        core,
        text: `-----BEGIN RSA PRIVATE KEY-----\n${core}\n${letters(64)}\n-----END RSA PRIVATE KEY-----`,
      }),
      () => ({ core, text: `-----BEGIN PRIVATE KEY-----\n${core}` }),
      () => ({ core, text: `postgres://weir:${core}@db.example:5432/weir` }),
      () => ({ core, text: `host=db password=${random.pick(['', '"', "'"])}${core} sslmode=require` }),
      () => ({ core, text: `https://example.org/?api_key=${core}&page=2` }),
      () => ({ core, text: `{"client_secret": "${core}"}` }),
      () => ({ core, text: JSON.stringify(JSON.stringify({ password: core })) }),
    ];
    const made = random.pick(forms)();
    hidden.push(made.core.slice(0, 10));
    // NUL is taken out before anything is looked at, so it must not hide a secret.
    return random.chance(0.1) ? { ...made, text: made.text.replace(made.core, `\u0000${made.core}`) } : made;
  };

  const binary = (): string => {
    const bytes = letters(1_024 + random.int(2_000), random.chance(0.5) ? `${LETTERS}+/` : `${LETTERS}-_`);
    hidden.push(bytes.slice(500, 540));
    const lines = random.chance(0.3) ? bytes.replaceAll(/(.{76})/g, '$1\r\n') : bytes;
    return random.pick([`${bytes}==`, `data:image/png;base64,${bytes}`, `mail:\n${lines}`]);
  };

  const words = () =>
    some(6)
      .map(() => random.pick(NASTY))
      .join('');

  const text = (): string => {
    const kind = random.int(1_000);
    if (kind < 150) return `${words()} ${secret().text}${random.chance(0.5) ? ` ${words()}` : ''}`;
    if (kind < 170) return `${words()} ${binary()} ${words()}`;
    // A secret that the cut goes through, wherever it is.
    if (kind < 172)
      return `${random
        .pick(['x ', 'é ', '🌊 '])
        .repeat(10_000)
        .slice(0, 16_384 - random.int(120))} ${secret().text}`;
    if (kind < 174)
      return `${random
        .pick(['x ', 'x'])
        .repeat(20_000)
        .slice(0, 18_432 - random.int(120))} ${secret().text}`;
    if (kind < 175) return random.pick(NASTY).repeat(30_000);
    return words();
  };

  const name = (): string => {
    if (random.chance(0.02)) return ` ${secret().text}`;
    return random.chance(0.5) ? random.pick(NAMES) : `${random.pick(NAMES)}${words()}`;
  };

  const primitive = (): unknown =>
    random.chance(0.1)
      ? undefined
      : random.pick([
          null,
          true,
          -0,
          NaN,
          Infinity,
          1e308,
          5e-324,
          2 ** 53,
          -1.5,
          10n ** 30n,
          Symbol('s'),
          () => 1,
        ]);

  const object = (depth: number): object => {
    const made: Record<string, unknown> = random.chance(0.2) ? Object.create(null) : {};
    for (const _ of some(6)) define(made, name(), value(depth + 1));
    if (random.chance(0.1)) {
      const core = letters(20);
      hidden.push(core);
      define(
        made,
        random.pick(SECRET_NAMES),
        random.pick<unknown>([core, [core], { deep: { core } }, new Map([['a', core]])]),
      );
    }
    return made;
  };

  const exotic = (depth: number): unknown => {
    const inner = () => value(depth + 1);
    const makers: readonly (() => unknown)[] = [
      () => new Date(random.pick([0, NaN, 8.64e15])),
      () =>
        random.pick<unknown>([
          new Uint8Array(2_000),
          new Float64Array([NaN]),
          new ArrayBuffer(8),
          Buffer.from('hello'),
        ]),
      () =>
        new Map<unknown, unknown>([
          [name(), inner()],
          [{}, inner()],
          [Symbol('k'), 1],
        ]),
      () => new Set([inner(), inner()]),
      () => Object.assign([], { [random.pick([3, 150, 4_000_000_000])]: inner(), extra: inner() }),
      () =>
        Object.defineProperty({}, 'trap', {
          enumerable: true,
          get: () => {
            throw new Error('hands off');
          },
        }),
      () => ({ toJSON: () => inner() }),
      () => ({
        toJSON: () => {
          throw new Error('no');
        },
      }),
      () => {
        const self: { toJSON?: () => unknown } = {};
        self.toJSON = () => self;
        return self;
      },
      () =>
        new Proxy(
          {},
          {
            ownKeys: () => {
              throw new Error('no keys');
            },
          },
        ),
      () => {
        const { proxy, revoke } = Proxy.revocable([], {});
        revoke();
        return proxy;
      },
      () =>
        random.pick<unknown>([Object(text()), Object(5n), Object(Symbol('o')), Object(-0), new Number(NaN)]),
      () => new Error(text()),
      () => {
        const loop: Record<string, unknown> = { a: inner() };
        loop['self'] = loop;
        loop['list'] = [loop, loop];
        return loop;
      },
      () => Array.from({ length: random.pick([3, 300]) }, (_, n) => n),
      () => Object.fromEntries(Array.from({ length: random.pick([3, 3, 300]) }, (_, n) => [`${n}\u0000`, n])),
      () => nested(random.pick([9, 10, 11, 12, 5_000]), inner()),
      () => new URL('https://user:pass@example.org/'),
      () => /x/g,
      () =>
        new (class Odd {
          visible = inner();
          #hidden = 1;
          get both() {
            return this.#hidden;
          }
        })(),
    ];
    return random.pick(makers)();
  };

  const value = (depth: number): unknown => {
    const kind = random.int(depth === 0 ? 12 : 20);
    if (depth > DEEPEST || kind >= 16) return primitive();
    if (kind < 5) return object(depth);
    if (kind < 7) return some(5).map(() => value(depth + 1));
    if (kind < 9) return exotic(depth);
    return text();
  };

  return { value };
}

/** Own, whatever its name. */
function define(on: object, name: string, value: unknown): void {
  Object.defineProperty(on, name, { value, enumerable: true, configurable: true, writable: true });
}

function nested(levels: number, inner: unknown): unknown {
  let made = inner;
  for (let level = 0; level < levels; level += 1) made = level % 2 === 0 ? [made] : { made };
  return made;
}
