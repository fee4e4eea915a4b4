// Fills one number field of a JSON schema, with a number of the prompt where one fits. Pure.

import type { JsonObject } from '../body-fields.ts';
import type { Hints } from './hints.ts';

/** A number within the schema's bounds, or undefined when there is none. */
export function exampleNumber(schema: JsonObject, name: string, hints: Hints): number | undefined {
  const step = numberOf(schema, 'multipleOf') ?? (schema['type'] === 'integer' ? 1 : undefined);
  const low = numberOf(schema, 'minimum') ?? numberOf(schema, 'exclusiveMinimum');
  const high = numberOf(schema, 'maximum') ?? numberOf(schema, 'exclusiveMaximum');
  const isShare = /confidence|score|probability|likelihood|ratio/i.test(name);
  const candidates = [...(isShare ? [0.8, 8] : hints.numbers), 1, ...aroundBounds(low, high, step)];
  return candidates.find((candidate) => accepts(schema, candidate));
}

function aroundBounds(low: number | undefined, high: number | undefined, step: number | undefined): number[] {
  const unit = step ?? 1;
  const middle = low !== undefined && high !== undefined ? [(low + high) / 2] : [];
  const up =
    low === undefined
      ? []
      : [low, low + unit, Math.ceil(low / unit) * unit, (Math.floor(low / unit) + 1) * unit];
  const down =
    high === undefined
      ? []
      : [high, high - unit, Math.floor(high / unit) * unit, (Math.ceil(high / unit) - 1) * unit];
  return [...up, ...middle, ...down, 0, unit];
}

function accepts(schema: JsonObject, value: number): boolean {
  const minimum = numberOf(schema, 'minimum') ?? -Infinity;
  const maximum = numberOf(schema, 'maximum') ?? Infinity;
  const above = numberOf(schema, 'exclusiveMinimum') ?? -Infinity;
  const below = numberOf(schema, 'exclusiveMaximum') ?? Infinity;
  const step = numberOf(schema, 'multipleOf');
  if (schema['type'] === 'integer' && !Number.isSafeInteger(value)) return false;
  if (step !== undefined && !Number.isInteger(value / step)) return false;
  return value >= minimum && value <= maximum && value > above && value < below;
}

function numberOf(schema: JsonObject, key: string): number | undefined {
  const value = schema[key];
  return typeof value === 'number' ? value : undefined;
}
