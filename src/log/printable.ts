// Values as log lines can carry them: errors unfolded, bigints as texts, secrets masked, cycles and depths cut. It must not throw,
// whatever it is given: a log line is never the reason why work fails.

const MAX_DEPTH = 8;
const MAX_ITEMS = 200;
const MAX_CHARACTERS = 8_192;

/** Names of fields whose texts are secrets, written in lower case without separators. `inputTokens` is none, `accessToken` is. */
const SECRET_NAME =
  /apikey|authorization|password|passwd|adminkey|privatekey|secret|credential|cookie|token$/;

const MASK = '***';

/** A copy of a value that JSON can carry and anybody may read. */
export function toPrintable(value: unknown, name = '', ancestors: readonly object[] = []): unknown {
  switch (typeof value) {
    case 'string':
      return isSecretName(name) ? MASK : maskText(value);
    case 'bigint':
      return value.toString();
    case 'number':
      return Number.isFinite(value) ? value : String(value);
    case 'boolean':
    case 'undefined':
      return value;
    case 'object':
      return value === null ? null : printObject(value, name, ancestors);
    default:
      return `[${typeof value}]`;
  }
}

function printObject(value: object, name: string, ancestors: readonly object[]): unknown {
  if (ancestors.includes(value)) return '[circular]';
  if (isSecretName(name)) return MASK;
  if (ancestors.length >= MAX_DEPTH) return '[too deep]';
  const path = [...ancestors, value];
  try {
    if (value instanceof Error) return printError(value, path);
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'invalid date' : value.toISOString();
    if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
    if (value instanceof URL) return maskText(value.href);
    if (value instanceof Map)
      return printEntries(
        [...value].map(([key, inner]) => [String(key), inner]),
        path,
      );
    if (Array.isArray(value) || value instanceof Set) return printList([...value], name, path);
    return printEntries(Object.entries(value), path);
  } catch {
    return '[unprintable]'; // a getter that throws; the rest of the line is worth more than the reason
  }
}

/** Message, stack and cause are no enumerable properties, so JSON would lose just these. */
function printError(error: Error, path: readonly object[]): unknown {
  const { name, message, stack, cause } = error;
  const errors: unknown = Reflect.get(error, 'errors');
  return {
    ...printEntries(Object.entries(error), path),
    name,
    message: maskText(message),
    ...(typeof stack === 'string' ? { stack: maskText(stack) } : {}),
    ...(cause === undefined ? {} : { cause: toPrintable(cause, '', path) }),
    ...(Array.isArray(errors) ? { errors: printList(errors, '', path) } : {}),
  };
}

function printEntries(
  entries: readonly (readonly [string, unknown])[],
  path: readonly object[],
): Record<string, unknown> {
  const shown = entries
    .slice(0, MAX_ITEMS)
    .map(([key, inner]) => [key, toPrintable(inner, key, path)] as const);
  if (entries.length > MAX_ITEMS) shown.push(['…', `${entries.length - MAX_ITEMS} more`]);
  return Object.fromEntries(shown);
}

function printList(items: readonly unknown[], name: string, path: readonly object[]): unknown[] {
  const shown = items.slice(0, MAX_ITEMS).map((item) => toPrintable(item, name, path) ?? null);
  return items.length > MAX_ITEMS ? [...shown, `${items.length - MAX_ITEMS} more`] : shown;
}

function isSecretName(name: string): boolean {
  return SECRET_NAME.test(name.replaceAll(/[^A-Za-z0-9]/g, '').toLowerCase());
}

/**
 * Masks passwords in URLs, bearer tokens and keys of the usual providers, and cuts what is too long for a line. A password may hold
 * any character unescaped, so everything up to the last @ counts as one.
 */
function maskText(text: string): string {
  const masked = text
    .slice(0, MAX_CHARACTERS)
    .replaceAll(/(\b[a-z][a-z0-9+.-]{0,20}:\/\/[^\s:/@]{0,200}):[^\s"']{0,1000}@/gi, `$1:${MASK}@`)
    .replaceAll(/\b(bearer)\s+[\w.~+/=-]+/gi, `$1 ${MASK}`)
    .replaceAll(/\b(sk-|AIza)[\w-]{12,}/g, `$1${MASK}`);
  return text.length <= MAX_CHARACTERS ? masked : `${masked}… (${text.length} characters)`;
}
