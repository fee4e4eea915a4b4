// Turns a JSON schema into one that can be read without looking elsewhere: local references followed, `allOf` merged, the spellings
// of Google's dialect (upper-case types, `nullable`) made ordinary. Pure.

import { isObject, type JsonObject } from '../body-fields.ts';
import { badRequest } from '../problem.ts';

const UNSUPPORTED = [
  'not',
  'if',
  'dependentRequired',
  'dependentSchemas',
  'contains',
  '$dynamicRef',
  '$recursiveRef',
];
const LONGEST_CHAIN = 20;

/** Throws an error 400 for what it does not understand, so that no invalid value is ever made in silence. */
export function resolveSchema(given: JsonObject, root: JsonObject, path: string): JsonObject {
  let schema = given;
  for (let steps = 0; '$ref' in schema; steps += 1) {
    if (steps > LONGEST_CHAIN) throw badRequest(`the schema at ${path} refers to itself`, 'schema');
    const { $ref: reference, ...siblings } = schema;
    schema = mergeSchemas(lookUp(reference, root, path), siblings);
  }
  const unsupported = UNSUPPORTED.find((keyword) => keyword in schema);
  if (unsupported !== undefined)
    throw badRequest(`the schema at ${path} uses '${unsupported}', which is not supported`, 'schema');
  const { allOf, ...base } = schema;
  if (!Array.isArray(allOf)) return schema;
  const parts = allOf.filter(isObject).map((part) => resolveSchema(part, root, path));
  return parts.reduce(mergeSchemas, base);
}

/** Both schemas at once: properties and requirements of either, the narrower bound of each kind. */
export function mergeSchemas(left: JsonObject, right: JsonObject): JsonObject {
  const merged: JsonObject = { ...left, ...right };
  if (isObject(left['properties']) && isObject(right['properties'])) {
    merged['properties'] = { ...left['properties'], ...right['properties'] };
  }
  if (Array.isArray(left['required']) && Array.isArray(right['required'])) {
    merged['required'] = [...new Set([...left['required'], ...right['required']])];
  }
  for (const key of Object.keys(left)) {
    const [one, other] = [left[key], right[key]];
    if (typeof one !== 'number' || typeof other !== 'number') continue;
    if (/^(?:min|exclusiveMin)/.test(key)) merged[key] = Math.max(one, other);
    if (/^(?:max|exclusiveMax)/.test(key)) merged[key] = Math.min(one, other);
  }
  return merged;
}

/** The types a schema allows, guessed from its keywords where it names none; strings when nothing says otherwise. */
export function typesOf(schema: JsonObject): string[] {
  const given = schema['type'];
  const named = (Array.isArray(given) ? given : [given])
    .filter((type) => typeof type === 'string')
    .map((type) => type.toLowerCase());
  if (named.length > 0) return schema['nullable'] === true ? [...new Set([...named, 'null'])] : named;
  if ('properties' in schema || 'additionalProperties' in schema || 'required' in schema) return ['object'];
  if ('items' in schema || 'prefixItems' in schema) return ['array'];
  return 'minimum' in schema || 'maximum' in schema || 'multipleOf' in schema ? ['number'] : ['string'];
}

function lookUp(reference: unknown, root: JsonObject, path: string): JsonObject {
  if (reference === '#') return root;
  if (typeof reference !== 'string' || !reference.startsWith('#/')) {
    throw badRequest(`the schema at ${path} refers to something outside of itself`, 'schema');
  }
  let found: unknown = root;
  for (const part of reference.slice(2).split('/')) {
    const key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
    found = isObject(found) && Object.hasOwn(found, key) ? found[key] : undefined;
  }
  if (!isObject(found))
    throw badRequest(`the schema at ${path} refers to '${reference}', which is not there`, 'schema');
  return found;
}
