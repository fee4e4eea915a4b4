// Fills a list of steps in a planning schema: ids, descriptions, and dependencies that refer to earlier steps only.

import { isObject, type JsonObject } from '../body-fields.ts';
import { fittingText } from './example-text.ts';
import type { Place } from './place.ts';
import { type PlanStep, planFor } from './plan.ts';
import { resolveSchema, typesOf } from './resolve-schema.ts';

const LIST = /^(?:steps|sub_?tasks|plan)$/i;
const ID = /^(?:id|key|ref|step_?id|step_?number|number|index)$/i;
const NAME = /^(?:name|title)$/i;
const NEEDS = /depend|needs|requires|prerequisite|^after$/i;
const DESCRIPTION =
  /^(?:description|task|instructions?|goal|prompt|query|action|details?|step|title|name|text|what)$/i;

type Build = (schema: unknown, place: Place) => unknown;
type List = { readonly min: number; readonly max: number; readonly items: unknown };
type Shape = {
  readonly item: JsonObject;
  readonly properties: JsonObject;
  /** What a dependency is written as: the value of this property, else the step's number. */
  readonly refersTo: string | undefined;
};

/** Whether a list looks like the steps of a plan: by its name, and because its elements are objects. */
export function isPlan(name: string, items: unknown, root: JsonObject): boolean {
  if (!LIST.test(name) || !isObject(items)) return false;
  const item = resolveSchema(items, root, name);
  return typesOf(item)[0] === 'object' && isObject(item['properties']);
}

/** The list of steps. `build` fills whatever in a step is neither id, description nor dependency. */
export function examplePlan(list: List, place: Place, build: Build): unknown[] {
  const items = isObject(list.items) ? list.items : {};
  const item = resolveSchema(items, place.root, place.path);
  const properties = isObject(item['properties']) ? item['properties'] : {};
  const names = Object.keys(properties);
  const refersTo = names.find((name) => ID.test(name)) ?? names.find((name) => NAME.test(name));
  const shape = { item, properties, refersTo };
  const made: JsonObject[] = [];
  for (const [index, step] of planFor(place.hints.query, list).entries()) {
    const inside = { ...place, path: `${place.path}[${index}]`, depth: place.depth + 1, index, inList: true };
    const filled = fillStep(step, shape, made, inside);
    const rest = {
      ...item,
      properties: Object.fromEntries(names.filter((n) => !(n in filled)).map((n) => [n, properties[n]])),
    };
    const required = Array.isArray(item['required'])
      ? item['required'].filter((n) => !(String(n) in filled))
      : [];
    const others = build({ ...rest, type: 'object', required }, inside);
    const all: JsonObject = { ...(isObject(others) ? others : {}), ...filled };
    // In the order of the schema, as models answer.
    made.push(Object.fromEntries(names.filter((name) => name in all).map((name) => [name, all[name]])));
  }
  return made;
}

function fillStep(step: PlanStep, shape: Shape, earlier: readonly JsonObject[], place: Place): JsonObject {
  const filled: JsonObject = {};
  for (const [name, given] of Object.entries(shape.properties)) {
    const schema = isObject(given) ? resolveSchema(given, place.root, place.path) : {};
    if ('enum' in schema || 'const' in schema) continue;
    const value = stepValue(step, { name, schema, shape, earlier, index: place.index });
    if (value !== undefined) filled[name] = value;
  }
  return filled;
}

function stepValue(
  step: PlanStep,
  at: { name: string; schema: JsonObject; shape: Shape; earlier: readonly JsonObject[]; index: number },
): unknown {
  const type = typesOf(at.schema)[0];
  if (ID.test(at.name)) {
    const number = at.index + 1;
    if (type === 'integer' || type === 'number') return number;
    return fittingText(at.schema, [`step-${number}`, `step_${number}`, `s${number}`, `${number}`]);
  }
  if (NEEDS.test(at.name) && type === 'array') return dependencies(step, at);
  if (DESCRIPTION.test(at.name) && type === 'string') return fittingText(at.schema, [step.description]);
  return undefined;
}

function dependencies(
  step: PlanStep,
  at: { schema: JsonObject; shape: Shape; earlier: readonly JsonObject[] },
): unknown[] | undefined {
  const min = typeof at.schema['minItems'] === 'number' ? at.schema['minItems'] : 0;
  const max = typeof at.schema['maxItems'] === 'number' ? at.schema['maxItems'] : Infinity;
  const items = isObject(at.schema['items']) ? at.schema['items'] : {};
  const wantsNumber = ['integer', 'number'].includes(typesOf(items)[0] ?? '');
  const needs = step.needs.slice(0, max).map((need) => {
    const id = at.shape.refersTo === undefined ? undefined : at.earlier[need]?.[at.shape.refersTo];
    if (wantsNumber) return typeof id === 'number' ? id : need + 1;
    return String(id ?? need + 1);
  });
  return needs.length >= min ? needs : undefined;
}
