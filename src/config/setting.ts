// The kinds of settings: for each its environment name, what is expected, and two zod schemas: of a file's value, and of the text
// of an environment variable. The schemas sit in closures, since convict clones whatever it is given.

import { z } from 'zod';
import { formatDuration, parseDuration } from './durations.ts';
import { lazily, MAX_PRICE_NANO, PRICE, usdAmount } from './shapes.ts';

/** `V` is the resolved value; the key of a `duration` gets the suffix `Ms`. */
export type Setting<V, K extends 'value' | 'duration' = 'value' | 'duration'> = {
  readonly kind: K;
  readonly env: string;
  readonly expected: string;
  /** Never shown, and also read from the file that `<env>_FILE` names. */
  readonly secret: boolean;
  /** `null` in a file means "not set" and resolves to undefined. */
  readonly nullable: boolean;
  /** From a file's value to the resolved one. */
  readonly given: () => z.ZodType<V>;
  /** From environment text to a file's value, which `given` checks afterwards. */
  readonly text: () => z.ZodType<unknown>;
};

export type SettingTree = { readonly [name: string]: Setting<unknown> | SettingTree };

/** What a tree of settings resolves to. */
export type Resolved<T> = {
  readonly [K in keyof T as T[K] extends Setting<unknown, 'duration'>
    ? Setting<unknown> extends T[K]
      ? K
      : `${K & string}Ms`
    : K]: T[K] extends Setting<infer V> ? V : Resolved<T[K]>;
};

export function isSetting(node: Setting<unknown> | SettingTree): node is Setting<unknown> {
  return typeof node.kind === 'string';
}

/** A whole number within bounds. Its text is digits only: `12abc`, `1e3`, `0x10` and ` 5` are refused. */
export function whole(env: string, min: number, max: number): Setting<number, 'value'> {
  const expected = `a whole number from ${min} to ${max}`;
  return {
    ...plain(env, expected),
    given: lazily(() =>
      z.custom<number>((value) => Number.isInteger(value) && Number(value) >= min && Number(value) <= max),
    ),
    text: lazily(() =>
      z
        .string()
        .regex(/^-?\d{1,16}$/)
        .transform(Number),
    ),
  };
}

/** A share, from 0 to 1. Its text is a plain decimal: `80%`, `.8` and `8e-1` are refused. */
export function share(env: string): Setting<number, 'value'> {
  return {
    ...plain(env, 'a number from 0 to 1'),
    given: lazily(() => z.custom<number>((value) => typeof value === 'number' && value >= 0 && value <= 1)),
    text: lazily(() =>
      z
        .string()
        .regex(/^\d(\.\d{1,9})?$/)
        .transform(Number),
    ),
  };
}

/** A price in USD per million tokens, resolved to nano-USD per million tokens, as those of models.yaml. */
export function price(env: string): Setting<bigint, 'value'> {
  return {
    ...plain(env, PRICE),
    given: lazily(() => usdAmount(MAX_PRICE_NANO, PRICE)),
    text: lazily(() => z.string()),
  };
}

/** True or false, and no other word for them. */
export function flag(env: string): Setting<boolean, 'value'> {
  return {
    ...plain(env, 'true or false'),
    given: lazily(() => z.boolean()),
    text: lazily(() => z.enum(['true', 'false']).transform((text) => text === 'true')),
  };
}

/** A switch that is also called on or off. */
export function onOff(env: string): Setting<boolean, 'value'> {
  return {
    ...plain(env, 'on or off (or true or false)'),
    given: lazily(() => z.union([z.boolean(), z.enum(['on', 'off']).transform((word) => word === 'on')])),
    text: lazily(() =>
      z.enum(['on', 'off', 'true', 'false']).transform((text) => text === 'on' || text === 'true'),
    ),
  };
}

export function oneOf<const W extends readonly string[]>(env: string, words: W): Setting<W[number], 'value'> {
  return {
    ...plain(env, words.length === 1 ? `${words[0]}` : `one of ${words.join(', ')}`),
    given: lazily(() => z.custom<W[number]>((value) => typeof value === 'string' && words.includes(value))),
    text: lazily(() => z.string()),
  };
}

/** A time with a unit, within bounds; resolved to milliseconds. */
export function duration(env: string, min: string, max: string): Setting<number, 'duration'> {
  const [minMs = 0, maxMs = 0] = [parseDuration(min), parseDuration(max)];
  const inBounds = (ms: number | undefined) => ms !== undefined && ms >= minMs && ms <= maxMs;
  return {
    ...plain(
      env,
      `a duration from ${formatDuration(minMs)} to ${formatDuration(maxMs)} with a unit (ms, s, m, h, d)`,
    ),
    kind: 'duration',
    given: lazily(() =>
      z
        .string()
        .refine((text) => inBounds(parseDuration(text)))
        .transform((text) => parseDuration(text) ?? 0),
    ),
    text: lazily(() => z.string()),
  };
}

/** A duration whose environment name says milliseconds: there a bare number is read as such, which a file is not to hold. */
export function milliseconds(env: string, min: string, max: string): Setting<number, 'duration'> {
  const setting = duration(env, min, max);
  return {
    ...setting,
    expected: `${setting.expected}, in ${env} also bare milliseconds`,
    text: lazily(() => z.string().transform((text) => (/^\d{1,12}$/.test(text) ? `${text}ms` : text))),
  };
}

/** A text of a certain form. */
export function text(
  env: string,
  expected: string,
  isValid: (value: string) => boolean,
): Setting<string, 'value'> {
  return {
    ...plain(env, expected),
    given: lazily(() => z.string().refine(isValid)),
    text: lazily(() => z.string()),
  };
}

/** A text that is never shown and may also come from a file. */
export function secret(
  env: string,
  expected: string,
  isValid: (value: string) => boolean,
): Setting<string, 'value'> {
  return { ...text(env, expected, isValid), secret: true };
}

/** A setting that may be left out. */
export function optional<V>(setting: Setting<V, 'value'>): Setting<V | undefined, 'value'> {
  return {
    ...setting,
    nullable: true,
    given: lazily(() => z.union([z.null().transform(() => undefined), setting.given()])),
  };
}

/** Whether a text is a URL of one of these schemes, such as `http:`. */
export function isUrl(value: string, schemes: readonly string[]): boolean {
  return URL.canParse(value) && schemes.includes(new URL(value).protocol) && !/\s/.test(value);
}

function plain(env: string, expected: string) {
  return { kind: 'value', env, expected, secret: false, nullable: false } as const;
}
