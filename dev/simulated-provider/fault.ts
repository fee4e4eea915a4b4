// What can go wrong with one request on purpose: the shape of a fault, and reading it from JSON. Which request meets which fault
// is decided in fault-book.ts, what it does to the response in deliver.ts.

import {
  isObject,
  type JsonObject,
  optionalFlag,
  optionalNumber,
  optionalObject,
  optionalText,
  refuseUnknown,
} from './body-fields.ts';
import { type Duration, readDuration } from './duration.ts';
import { badRequest } from './problem.ts';

export type Fault = {
  /** Means nothing; makes two markers with the same fault distinct, so that each has its own count. */
  readonly id?: string | undefined;
  /** How many requests meet the fault; all of them where absent. */
  readonly times?: number | undefined;
  /** Chance from 0 to 1 that a request which could meet the fault does; 1 where absent. */
  readonly errorRate?: number | undefined;
  /** Before the status line. */
  readonly latency?: Duration | undefined;
  /** Between the status line and the first piece of output. */
  readonly firstTokenMs?: Duration | undefined;
  /** Between two pieces of output. */
  readonly chunkDelayMs?: Duration | undefined;
  readonly tokensPerChunk?: number | undefined;
  /** An error status instead of an answer, or the kind of the error inside a stream. */
  readonly status?: number | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly code?: string | undefined;
  readonly message?: string | undefined;
  readonly cutAfterChunks?: number | undefined;
  /** true: the HTTP response ends well but without its last events. false (default): the socket is destroyed. */
  readonly terminator?: boolean | undefined;
  readonly errorInStreamAfterChunks?: number | undefined;
  /** Silence until the client goes: before the status line, or after so many pieces of output. */
  readonly hang?: 'before_headers' | { readonly afterChunks: number } | undefined;
  /** The answer has exactly so many tokens, reasoning included. */
  readonly outputTokens?: number | undefined;
  readonly contentFilter?: boolean | undefined;
  /** The answer says nothing of its usage (Anthropic's wire cannot leave it out and ignores this). */
  readonly omitUsage?: boolean | undefined;
};

export type FaultRule = {
  readonly match: {
    readonly model?: string | undefined;
    /** Beginning of the URL's path. */
    readonly path?: string | undefined;
    readonly promptContains?: string | undefined;
  };
  readonly fault: Fault;
};

const EFFECTS = [
  'latency',
  'firstTokenMs',
  'chunkDelayMs',
  'tokensPerChunk',
  'status',
  'cutAfterChunks',
  'errorInStreamAfterChunks',
  'hang',
  'outputTokens',
  'contentFilter',
  'omitUsage',
];
const FIELDS = ['id', 'times', 'errorRate', 'retryAfterMs', 'code', 'message', 'terminator', ...EFFECTS];
const COUNT = { min: 0, max: 1_000_000, integer: true };

/** The most output that can be asked for, in tokens. */
export const OUTPUT_TOKENS = { min: 0, max: 200_000, integer: true };
export const TOKENS_PER_CHUNK = { min: 1, max: 10_000, integer: true };

/** Reads a fault and refuses what it does not know. `what` names the place it came from. */
export function readFault(from: JsonObject, what: string): Fault {
  refuseUnknown(from, FIELDS, what);
  if (!EFFECTS.some((field) => from[field] !== undefined && from[field] !== null)) {
    throw badRequest(`${what} does nothing: give at least one of ${EFFECTS.join(', ')}`);
  }
  return {
    id: optionalText(from, 'id'),
    times: optionalNumber(from, 'times', { ...COUNT, min: 1 }),
    errorRate: optionalNumber(from, 'errorRate', { min: 0, max: 1 }),
    latency: readDuration(from, 'latency'),
    firstTokenMs: readDuration(from, 'firstTokenMs'),
    chunkDelayMs: readDuration(from, 'chunkDelayMs'),
    tokensPerChunk: optionalNumber(from, 'tokensPerChunk', TOKENS_PER_CHUNK),
    status: optionalNumber(from, 'status', { min: 400, max: 599, integer: true }),
    retryAfterMs: optionalNumber(from, 'retryAfterMs', { min: 0, max: 86_400_000, integer: true }),
    code: optionalText(from, 'code'),
    message: optionalText(from, 'message'),
    cutAfterChunks: optionalNumber(from, 'cutAfterChunks', COUNT),
    terminator: optionalFlag(from, 'terminator'),
    errorInStreamAfterChunks: optionalNumber(from, 'errorInStreamAfterChunks', COUNT),
    hang: readHang(from),
    outputTokens: optionalNumber(from, 'outputTokens', OUTPUT_TOKENS),
    contentFilter: optionalFlag(from, 'contentFilter'),
    omitUsage: optionalFlag(from, 'omitUsage'),
  };
}

/** Reads a rule: a fault and, in `match`, the requests that it is for. */
export function readFaultRule(from: unknown, what: string): FaultRule {
  if (!isObject(from)) throw badRequest(`${what} must be an object`);
  const { match: _, ...fault } = from;
  const match = optionalObject(from, 'match', `${what}.match`) ?? {};
  refuseUnknown(match, ['model', 'path', 'promptContains'], `${what}.match`);
  return {
    match: {
      model: optionalText(match, 'model'),
      path: optionalText(match, 'path'),
      promptContains: optionalText(match, 'promptContains'),
    },
    fault: readFault(fault, what),
  };
}

function readHang(from: JsonObject): Fault['hang'] {
  const value = from['hang'] ?? undefined;
  if (value === undefined) return undefined;
  if (value === true) return 'before_headers';
  const afterChunks = isObject(value) ? optionalNumber(value, 'afterChunks', COUNT) : undefined;
  if (afterChunks === undefined) {
    throw badRequest('\'hang\' must be true (before the headers) or {"afterChunks": N}', 'hang');
  }
  return { afterChunks };
}
