// What may enter an event: bounded, storable, and without secrets. jsonb refuses NUL and lone surrogates; one such payload would
// block every row written with it.

import { cleanText } from '../task/text.ts';

const MAX_DEPTH = 8;
const MAX_ENTRIES = 200;
const MAX_TEXT = 16_384;
const LONG_BASE64 = /[A-Za-z0-9+/]{1024,}={0,2}/g;
const SECRET_KEY = /^(api[-_]?key|authorization|password|secret|access[-_]?token|x-api-key)$/i;
const SECRET_TEXT = /\b(sk-[A-Za-z0-9_-]{16,}|Bearer\s+[A-Za-z0-9._~+/-]{16,}=*)/g;

/** A copy of a JSON value that is safe to store and to show. */
export function sanitise(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return sanitiseText(value);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= MAX_DEPTH) return '[too deep]';
  if (Array.isArray(value)) return value.slice(0, MAX_ENTRIES).map((entry) => sanitise(entry, depth + 1));
  const entries = Object.entries(value).slice(0, MAX_ENTRIES);
  return Object.fromEntries(
    entries.map(([key, entry]) => [
      sanitiseText(key),
      SECRET_KEY.test(key) ? '[redacted]' : sanitise(entry, depth + 1),
    ]),
  );
}

function sanitiseText(text: string): string {
  const clean = cleanText(text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text);
  return clean.replaceAll(LONG_BASE64, '[base64]').replaceAll(SECRET_TEXT, '[redacted]');
}
