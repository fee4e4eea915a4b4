// Where in a schema a value is being made, and what there is to make it from.

import type { JsonObject } from '../body-fields.ts';
import { badRequest, type ProblemError } from '../problem.ts';
import type { Hints } from './hints.ts';

export type Place = {
  readonly root: JsonObject;
  readonly hints: Hints;
  /** Name of the field, or of the list that the value is an element of. */
  readonly name: string;
  readonly path: string;
  readonly depth: number;
  /** Position in that list; 0 for a field of its own. */
  readonly index: number;
  readonly inList: boolean;
};

/** The error of a schema that cannot be satisfied, or not by this provider. */
export function impossible(place: Place, why: string): ProblemError {
  return badRequest(`the schema at ${place.path} cannot be satisfied: ${why}`, 'schema');
}
