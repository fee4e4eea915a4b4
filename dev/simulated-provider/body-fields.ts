// Reads fields of a JSON body. Every fault is an error 400 that names the field; nothing is coerced and nothing is assumed.

import { badRequest } from './problem.ts';

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Parses a text that must hold a JSON object. `what` names it in the message. */
export function parseObject(text: string, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own message quotes the text; the caller learns which text it was and no more.
    throw badRequest(`${what} is not valid JSON`);
  }
  if (!isObject(value)) throw badRequest(`${what} must be a JSON object`);
  return value;
}

export function requiredText(from: JsonObject, key: string, path = key): string {
  const value = from[key];
  if (typeof value !== 'string' || value === '')
    throw badRequest(`'${path}' must be a non-empty string`, path);
  return value;
}

export function optionalText(from: JsonObject, key: string, path = key): string | undefined {
  const value = from[key] ?? undefined;
  if (value !== undefined && typeof value !== 'string') throw badRequest(`'${path}' must be a string`, path);
  return value;
}

export function optionalFlag(from: JsonObject, key: string, path = key): boolean | undefined {
  const value = from[key] ?? undefined;
  if (value !== undefined && typeof value !== 'boolean')
    throw badRequest(`'${path}' must be a boolean`, path);
  return value;
}

export function optionalObject(from: JsonObject, key: string, path = key): JsonObject | undefined {
  const value = from[key] ?? undefined;
  if (value !== undefined && !isObject(value)) throw badRequest(`'${path}' must be an object`, path);
  return value;
}

export function optionalList(from: JsonObject, key: string, path = key): unknown[] | undefined {
  const value = from[key] ?? undefined;
  if (value !== undefined && !Array.isArray(value)) throw badRequest(`'${path}' must be an array`, path);
  return value;
}

/** A list of at least one object. */
export function requiredObjects(from: JsonObject, key: string, path = key): JsonObject[] {
  const list = optionalList(from, key, path) ?? [];
  if (list.length === 0) throw badRequest(`'${path}' must be a non-empty array`, path);
  return list.map((item, index) => {
    if (!isObject(item)) throw badRequest(`'${path}[${index}]' must be an object`, `${path}[${index}]`);
    return item;
  });
}

export function optionalNumber(
  from: JsonObject,
  key: string,
  range: { readonly min: number; readonly max: number; readonly integer?: boolean },
): number | undefined {
  const value = from[key] ?? undefined;
  if (value === undefined) return undefined;
  const fits = typeof value === 'number' && value >= range.min && value <= range.max;
  if (!fits || (range.integer === true && !Number.isInteger(value))) {
    const kind = range.integer === true ? 'an integer' : 'a number';
    throw badRequest(`'${key}' must be ${kind} from ${range.min} to ${range.max}`, key);
  }
  return value;
}

/** Refuses a field that nobody reads, so that a misspelt one is not passed over in silence. */
export function refuseUnknown(from: JsonObject, known: readonly string[], what: string): void {
  const unknown = Object.keys(from).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    throw badRequest(`${what} has the unknown field '${unknown}' (known: ${known.join(', ')})`, unknown);
  }
}
