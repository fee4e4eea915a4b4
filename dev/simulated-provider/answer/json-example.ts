// Makes a value that a JSON schema accepts and that is about the prompt: structured answers and arguments of tool calls. A schema
// that it cannot satisfy is refused with an error 400 that names the place, never answered with a value that is invalid.

import { isObject, type JsonObject } from '../body-fields.ts';
import { ProblemError } from '../problem.ts';
import { exampleNumber } from './example-number.ts';
import { examplePlan, isPlan } from './example-plan.ts';
import { exampleText } from './example-text.ts';
import type { Hints } from './hints.ts';
import { impossible, type Place } from './place.ts';
import { mergeSchemas, resolveSchema, typesOf } from './resolve-schema.ts';

/** From this depth on only what is required is made, so that schemas which contain themselves come to an end. */
const DEEP = 5;
const DEEPEST = 40;
const MAX_ITEMS = 1_000;

export function jsonExample(schema: JsonObject, hints: Hints): unknown {
  return build(schema, { root: schema, hints, name: '', path: '$', depth: 0, index: 0, inList: false });
}

function build(given: unknown, place: Place): unknown {
  if (given === true || given === undefined) return place.hints.answer;
  if (!isObject(given)) throw impossible(place, 'nothing is allowed there');
  if (place.depth > DEEPEST) throw impossible(place, 'it is nested too deeply');
  const schema = resolveSchema(given, place.root, place.path);
  if ('const' in schema) return schema['const'];
  if (Array.isArray(schema['enum'])) return pick(schema['enum'], place);
  const branches = branchesOf(schema);
  return branches.length === 0 ? buildTyped(schema, place) : buildFirst(schema, branches, place);
}

function buildTyped(schema: JsonObject, place: Place): unknown {
  switch (typesOf(schema)[0]) {
    case 'object':
      return buildObject(schema, place);
    case 'array':
      return buildArray(schema, place);
    case 'number':
    case 'integer':
      return exampleNumber(schema, place.name, place.hints) ?? refuse(place, 'no number fits');
    case 'boolean':
      return true;
    case 'null':
      return null;
    default:
      return exampleText(schema, place) ?? refuse(place, 'no text fits');
  }
}

/** The alternatives of a schema: `anyOf`, `oneOf`, or more than one `type`. */
function branchesOf(schema: JsonObject): JsonObject[] {
  const { anyOf, oneOf, ...base } = schema;
  const listed = [anyOf, oneOf].find((list) => Array.isArray(list));
  if (listed !== undefined) return listed.filter(isObject).map((branch) => mergeSchemas(base, branch));
  const types = typesOf(schema);
  return types.length > 1 ? types.map((type) => ({ ...schema, type, nullable: false })) : [];
}

function buildFirst(schema: JsonObject, branches: readonly JsonObject[], place: Place): unknown {
  const weight = (branch: JsonObject) => {
    const isNull = typesOf(branch)[0] === 'null' || branch['const'] === null;
    const isOpen = '$ref' in branch || ['object', 'array'].includes(typesOf(branch)[0] ?? '');
    if (place.depth >= DEEP) return isNull ? 0 : Number(isOpen) + 1;
    return Number(isNull);
  };
  const ordered = branches.toSorted((left, right) => weight(left) - weight(right));
  for (const branch of ordered) {
    const value = attempt(() => build(branch, { ...place, depth: place.depth + ('$ref' in branch ? 1 : 0) }));
    if (value !== undefined) return value;
  }
  throw impossible(place, `none of the ${Object.keys(schema).join(', ')} can be satisfied`);
}

function buildObject(schema: JsonObject, place: Place): JsonObject {
  const properties = isObject(schema['properties']) ? schema['properties'] : {};
  const required = Array.isArray(schema['required'])
    ? schema['required'].filter((key) => typeof key === 'string')
    : [];
  const value: JsonObject = {};
  for (const key of new Set([...Object.keys(properties), ...required])) {
    const own = Object.hasOwn(properties, key) ? properties[key] : schema['additionalProperties'];
    const inside = {
      ...place,
      name: key,
      path: `${place.path}.${key}`,
      depth: place.depth + 1,
      index: 0,
      inList: false,
    };
    if (required.includes(key)) assign(value, key, build(own, inside));
    else if (place.depth < DEEP)
      assign(
        value,
        key,
        attempt(() => build(own, inside)),
      );
  }
  return fillObject(value, schema, place);
}

/** Entries of a map, for schemas that name no properties or want more of them. */
function fillObject(value: JsonObject, schema: JsonObject, place: Place): JsonObject {
  const more = schema['additionalProperties'];
  const min = typeof schema['minProperties'] === 'number' ? schema['minProperties'] : 0;
  const isMap = isObject(more) && !isObject(schema['properties']) && place.depth < DEEP;
  const wanted = Math.max(min, isMap ? 2 : 0);
  for (let index = 0; Object.keys(value).length < wanted && index < MAX_ITEMS; index += 1) {
    if (more === false) throw impossible(place, `it wants ${min} properties and allows no more`);
    const inside = { ...place, name: `entry${index + 1}`, depth: place.depth + 1, index };
    const names = schema['propertyNames'];
    const keyword = place.hints.keywords[index];
    const key = isObject(names) ? build({ type: 'string', ...names }, inside) : (keyword ?? inside.name);
    const own = { ...inside, name: String(key), path: `${place.path}.${String(key)}` };
    assign(value, String(key), build(more, own));
  }
  return value;
}

function buildArray(schema: JsonObject, place: Place): unknown[] {
  const { min, max } = boundsOf(schema, place);
  const { first, rest } = itemsOf(schema);
  if (isPlan(place.name, rest, place.root)) return examplePlan({ min, max, items: rest }, place, build);

  const usual = place.depth >= DEEP || !isObject(rest) ? first.length : Math.max(first.length, 3);
  const count = Math.min(max, Math.max(min, usual));
  const isNew = (value: unknown, others: readonly unknown[]) =>
    schema['uniqueItems'] !== true ||
    !others.some((other) => JSON.stringify(other) === JSON.stringify(value));
  const values: unknown[] = [];
  for (let index = 0; values.length < count && index < count + MAX_ITEMS; index += 1) {
    const own = index < first.length ? first[index] : rest;
    const inside = { ...place, path: `${place.path}[${index}]`, depth: place.depth + 1, index, inList: true };
    const value = values.length < min ? build(own, inside) : attempt(() => build(own, inside));
    if (value === undefined) break;
    if (isNew(value, values)) values.push(value);
  }
  if (values.length < min) throw impossible(place, `it wants ${min} different items`);
  return values;
}

function boundsOf(schema: JsonObject, place: Place): { min: number; max: number } {
  const min = typeof schema['minItems'] === 'number' ? schema['minItems'] : 0;
  const max = typeof schema['maxItems'] === 'number' ? schema['maxItems'] : MAX_ITEMS;
  if (min > max || min > MAX_ITEMS) throw impossible(place, `it wants ${min} items`);
  return { min, max };
}

/** The schemas of the first items one by one, and that of all others; older schemas write both differently. */
function itemsOf(schema: JsonObject): { first: unknown[]; rest: unknown } {
  const { prefixItems, items, additionalItems } = schema;
  if (Array.isArray(items)) return { first: items, rest: additionalItems };
  return { first: Array.isArray(prefixItems) ? prefixItems : [], rest: items };
}

/** A member that the prompt mentions, else the first. */
function pick(members: readonly unknown[], place: Place): unknown {
  if (members.length === 0) throw impossible(place, 'its enum is empty');
  const query = place.hints.query.toLowerCase();
  const mentioned = members.find(
    (member) => typeof member === 'string' && query.includes(member.toLowerCase()),
  );
  return mentioned ?? members[0];
}

/** undefined where the value cannot be made; anything but that is rethrown. */
function attempt(make: () => unknown): unknown {
  try {
    return make();
  } catch (error) {
    if (error instanceof ProblemError) return undefined;
    throw error;
  }
}

/** Assigns what exists. A key such as `__proto__` must become a property and nothing else. */
function assign(value: JsonObject, key: string, made: unknown): void {
  if (made !== undefined)
    Object.defineProperty(value, key, { value: made, enumerable: true, configurable: true });
}

function refuse(place: Place, why: string): never {
  throw impossible(place, why);
}
