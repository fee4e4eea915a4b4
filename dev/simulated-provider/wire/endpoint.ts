// What every endpoint of this provider gives to the part that serves it: how to read a body, how to answer, how errors and limits
// look. Serving (faults, limits, pace, log) knows nothing of dialects, and dialects know nothing of serving.

import type { AnswerShape } from '../answer/compose-answer.ts';
import type { JsonObject } from '../body-fields.ts';
import type { Problem } from '../problem.ts';
import type { CacheUse } from '../prompt-cache.ts';
import type { RateState } from '../rate-limits.ts';
import type { LoggedUsage } from '../request-log.ts';

export type ErrorStyle = {
  /** The response header that carries the request's id. */
  readonly idHeader: string;
  body(problem: Problem, requestId: string): JsonObject;
  headers(problem: Problem): Record<string, string>;
  rateHeaders(state: RateState): Record<string, string>;
};

export type Endpoint = {
  readonly style: ErrorStyle;
  /** Reads a body; `model` comes from the path where the dialect has it there. Throws an error 400. */
  read(body: JsonObject, model: string | undefined): Work;
};

export type Work = {
  readonly model: string;
  /** What markers and rules of faults are looked for in. */
  readonly prompt: string;
  readonly stream: boolean;
  compose(shape: AnswerShape & { readonly tokensPerChunk: number; readonly omitUsage: boolean }): Composed;
};

export type Composed = {
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Output tokens that are out once each piece of the answer is. */
  readonly tokensAfter: readonly number[];
  /** The text whose beginning may be cached, and what keeps it apart from others. */
  readonly cacheable: { readonly space: string; readonly text: string } | undefined;
  deliver(cache: CacheUse, envelope: Envelope): Delivery;
};

export type Envelope = { readonly id: string; readonly createdAt: number };

export type Delivery = {
  readonly usage: LoggedUsage;
  whole(): JsonObject;
  stream(): StreamParts;
};

/** A streamed answer as it is written, one entry a piece of output. */
export type StreamParts = {
  readonly opening: string;
  readonly pieces: readonly string[];
  readonly closing: string;
  /** An error event after so many pieces. */
  error(problem: Problem, afterPieces: number): string;
};
