// The forms that values of models.yaml and limits.yaml take, as zod schemas whose messages are what was expected.

import { z } from 'zod';
import { parseUsd } from '../task/money.ts';

/**
 * A value that a function reads; undefined is its refusal. With `hidden` a fault does not show the value, which may be a secret
 * that stands where its name belongs.
 */
export function parsed<V>(
  expected: string,
  parse: (value: unknown) => V | undefined,
  hidden = false,
): z.ZodType<V> {
  return z.unknown().transform((value, context) => {
    const result = parse(value);
    if (result !== undefined) return result;
    context.addIssue({ code: 'custom', message: expected, params: { hidden } });
    return z.NEVER;
  });
}

/** Makes a schema when it is first needed, and once: building them takes longer than checking with them. */
export function lazily<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

/** A number within bounds that is whole. */
export function wholeNumber(min: number, max: number): z.ZodType<number> {
  return parsed(`a whole number from ${min} to ${max}`, (value) =>
    Number.isInteger(value) && Number(value) >= min && Number(value) <= max ? Number(value) : undefined,
  );
}

/** A text of a certain form. */
export function matching(expected: string, form: RegExp): z.ZodType<string> {
  return parsed(expected, (value) => (typeof value === 'string' && form.test(value) ? value : undefined));
}

/** One word out of a closed list. */
export function word<const W extends readonly string[]>(words: W): z.ZodType<W[number]> {
  return parsed(`one of ${words.join(', ')}`, (value) => words.find((known) => known === value));
}

/** An amount in USD as nano-USD, up to a maximum. */
export function usdAmount(max: bigint, expected: string): z.ZodType<bigint> {
  return parsed(expected, (value) => {
    const nano = typeof value === 'string' || typeof value === 'number' ? parseUsd(value) : undefined;
    return nano === undefined || nano > max ? undefined : nano;
  });
}

/** No price is above a million USD per million tokens, which is a dollar per token. */
export const MAX_PRICE_NANO = 1_000_000n * 1_000_000_000n;
export const PRICE = 'a price in USD per million tokens from 0 to 1000000 with at most 9 decimals';

/** The name of a provider, which becomes a part of Redis keys. */
export const PROVIDER_NAME = /^[A-Za-z0-9._-]{1,40}$/;

/** `provider/model`; a model's name may have slashes itself, but no brace, which would move Redis' hash tag. */
export const MODEL_ID = /^[A-Za-z0-9._-]{1,40}\/[A-Za-z0-9._:@+/-]{1,150}$/;

/** Whether a list holds a value twice. */
export function hasRepeated(values: readonly unknown[]): boolean {
  return new Set(values).size < values.length;
}
