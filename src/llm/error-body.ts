// Reads what a provider says of a failure, in whichever of the known shapes, as a few words that can be compared. Pure. The text
// of an error may quote the prompt: it is matched here and in the table, and goes nowhere else.

/** A failure in a provider's own words. */
export type ErrorWords = {
  /** Codes, types, status names and reasons, in lower case, from the most to the least specific. */
  readonly words: readonly string[];
  /** An HTTP status that stands in the body; an error inside a 2xx stream has no other. */
  readonly status: number | undefined;
  readonly message: string;
  /** The request's parameter that is meant. */
  readonly param: string | undefined;
};

/**
 * Understands `{error: {code, type, message}}` (OpenAI and all who copy it), `{type: 'error', error: {type, message}}` (Anthropic),
 * `{error: {code, status, details}}` (Google, also as the only element of a list) and the inner objects alone.
 * @param body parsed JSON, or the text itself
 * @returns undefined when it says nothing of a failure
 */
export function readErrorBody(body: unknown): ErrorWords | undefined {
  const error = errorObjectOf(body);
  if (error === undefined) return undefined;
  const words = [
    ...reasonsOf(error['details']),
    nested(error, 'innererror', 'code'),
    error['code'],
    error['type'],
    error['status'],
  ];
  const message = typeof error['message'] === 'string' ? error['message'] : '';
  const names = words.filter(isName).map((word) => word.toLowerCase());
  const status = [error['code'], error['status']].map(toHttpStatus).find((value) => value !== undefined);
  if (names.length === 0 && message === '' && status === undefined) return undefined;
  const param = isName(error['param']) ? error['param'] : undefined;
  return { words: names.filter((name) => name !== 'error'), status, message, param };
}

/** The object that describes the failure: where its fields lie. */
export function errorObjectOf(body: unknown): Readonly<Record<string, unknown>> | undefined {
  if (typeof body === 'string') return errorObjectOf(parsed(body));
  if (Array.isArray(body)) return errorObjectOf(body[0]);
  const outer = toRecord(body);
  if (outer === undefined) return undefined;
  const inner = outer['error'];
  if (typeof inner === 'string') return { message: inner };
  return toRecord(inner) ?? outer;
}

export function toRecord(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : undefined;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A page of a proxy, or nothing at all: the status says what can be said.
    return undefined;
  }
}

/** A word of a protocol, never a sentence. */
function isName(value: unknown): value is string {
  return typeof value === 'string' && /^[\w.:/[\]-]{1,80}$/.test(value);
}

function reasonsOf(details: unknown): unknown[] {
  return Array.isArray(details) ? details.map((detail) => toRecord(detail)?.['reason']) : [];
}

function nested(record: Readonly<Record<string, unknown>>, outer: string, inner: string): unknown {
  return toRecord(record[outer])?.[inner];
}

function toHttpStatus(value: unknown): number | undefined {
  const status = typeof value === 'string' && /^\d{3}$/.test(value) ? Number(value) : value;
  return typeof status === 'number' && Number.isInteger(status) && status >= 400 && status <= 599
    ? status
    : undefined;
}
