// What may enter an event: bounded, storable, and without secrets. jsonb refuses NUL and lone surrogates; one such payload would
// block every row written with it.

import { cleanText } from '../task/text.ts';

const MAX_DEPTH = 8;
const MAX_ENTRIES = 200;
const MAX_TEXT = 16_384;
/** All texts and names of one payload together, in characters. */
const MAX_TOTAL = 65_536;
/** What is looked at beyond a cut, so that nothing that is replaced as a whole is shown by half. */
const MARGIN = 2_048;
const LONG_BASE64 = /[A-Za-z0-9+/]{1024,}={0,2}/g;
/** Names of fields whose values are secrets, in lower case and without separators. `inputTokens` is none, `accessToken` is. */
const SECRET_NAME =
  /apikey|authorization|password|passwd|adminkey|privatekey|secret|credential|cookie|token$/;
const SECRET_TEXT = /\b((sk-|AIza)[\w-]{12,}|bearer\s+[\w.~+/=-]{12,})/gi;

type Room = { left: number };

/** A copy of a JSON value that is safe to store and to show. */
export function sanitise(value: unknown): unknown {
  return copy(value, 0, { left: MAX_TOTAL });
}

function copy(value: unknown, depth: number, room: Room): unknown {
  if (typeof value === 'string') return copyText(value, room);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= MAX_DEPTH) return '[too deep]';
  const copied: unknown[] = [];
  const isList = Array.isArray(value);
  for (const [name, entry] of Object.entries(value).slice(0, MAX_ENTRIES)) {
    if (room.left <= 0) break;
    room.left -= 1;
    if (isList) copied.push(copy(entry, depth + 1, room) ?? null);
    else
      copied.push([
        copyText(name, room),
        isSecret(name, entry) ? '[redacted]' : copy(entry, depth + 1, room),
      ]);
  }
  return isList ? copied : Object.fromEntries(copied as [string, unknown][]); // pairs, as pushed above
}

function copyText(text: string, room: Room): string {
  const most = Math.min(MAX_TEXT, Math.max(0, room.left));
  const clean = cleanText(text.slice(0, most + MARGIN));
  const safe = clean.replaceAll(LONG_BASE64, '[base64]').replaceAll(SECRET_TEXT, '[redacted]');
  room.left -= Math.min(safe.length, most);
  if (text.length <= most || (safe.length <= most && text.length <= most + MARGIN)) return safe;
  // A half character at the cut is left out, not replaced.
  return `${safe.slice(0, most).replace(/[\ud800-\udbff]$/, '')}…`;
}

/** Numbers under such a name are counts. */
function isSecret(name: string, value: unknown): boolean {
  const isText = typeof value === 'string' || (typeof value === 'object' && value !== null);
  return isText && SECRET_NAME.test(name.replaceAll(/[^A-Za-z0-9]/g, '').toLowerCase());
}
