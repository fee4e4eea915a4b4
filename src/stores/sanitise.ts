// What may enter an event: bounded, storable, and without secrets. jsonb refuses NUL and lone surrogates; one such payload would
// block every row written with it. It takes whatever it is given, and never throws.

import { cleanText } from '../task/text.ts';
import { redact } from './redact.ts';

const MAX_DEPTH = 8;
const MAX_ENTRIES = 200;
const MAX_TEXT = 16_384;
const MAX_NAME = 256;
/** All texts and names of one payload together, in characters, and each entry for as much again as a number takes. */
const MAX_TOTAL = 65_536;
const ENTRY_COST = 8;
/** Kept for each value: any of the words below fits in it. */
const VALUE_ROOM = 16;
/** What is looked at beyond a cut, so that nothing that is replaced as a whole is shown by half. */
const MARGIN = 2_048;

const REDACTED = '[redacted]';
const TOO_DEEP = '[too deep]';
const UNREADABLE = '[unreadable]';
const BINARY = '[binary]';

/** Names of fields whose values are secrets, in lower case and without separators. `inputTokens` is none, `accessToken` is. */
const SECRET_NAME =
  /apikey|accesskey|accountkey|authorization|password|passwd|pwd$|passphrase|adminkey|privatekey|secret|credential|cookie|token$/;

type Room = { left: number };

/**
 * A copy of any value as JSON that is safe to store and to show; `undefined` and what JSON has no word for is null, or left out of an
 * object. Applied to its own result it changes nothing.
 */
export function sanitise(value: unknown): unknown {
  return copy(plain(value), 0, { left: MAX_TOTAL }) ?? null;
}

function copy(value: unknown, depth: number, room: Room): unknown {
  if (typeof value === 'string') return copyText(value, room);
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= MAX_DEPTH) return spend(TOO_DEEP, room);
  try {
    return Array.isArray(value) ? copyList(value, depth, room) : copyObject(value, depth, room);
  } catch {
    return spend(UNREADABLE, room); // a proxy that refuses to be looked into
  }
}

function copyList(list: readonly unknown[], depth: number, room: Room): unknown[] {
  const copied: unknown[] = [];
  const length = Math.min(list.length, MAX_ENTRIES);
  for (let index = 0; index < length && room.left >= ENTRY_COST + VALUE_ROOM; index += 1) {
    room.left -= ENTRY_COST;
    copied.push(copy(read(list, String(index)), depth + 1, room) ?? null);
  }
  return copied;
}

function copyObject(value: object, depth: number, room: Room): object {
  const copied: [string, unknown][] = [];
  for (const [name, given] of Object.entries(toNames(value))) {
    const cost = ENTRY_COST + name.length;
    if (room.left < cost + VALUE_ROOM) break;
    room.left -= cost;
    const entry = read(value, given);
    const safe = isSecret(name, entry) ? spend(REDACTED, room) : copy(entry, depth + 1, room);
    if (safe !== undefined) copied.push([name, safe]);
  }
  return Object.fromEntries(copied);
}

/** Clean names and what they were called, in the order in which the copy will have them: so a copy is copied in its own order. */
function toNames(value: object): Readonly<Record<string, string>> {
  const given = Object.keys(value).slice(0, MAX_ENTRIES);
  return Object.fromEntries(given.map((name) => [cleanCut(name, MAX_NAME), name]));
}

/** A property as JSON would have it; one that cannot be read says so. */
function read(from: object, name: string): unknown {
  try {
    return plain(Reflect.get(from, name));
  } catch {
    return UNREADABLE; // a getter that throws
  }
}

/** The value as JSON knows it: nothing but text, finite numbers, booleans, null, lists and objects; undefined: it has no word for it. */
function plain(value: unknown): unknown {
  switch (typeof value) {
    case 'bigint':
      return value.toString();
    case 'number':
      // JSON has neither infinities nor a negative zero.
      return Number.isFinite(value) ? value + 0 : null;
    case 'symbol':
    case 'function':
      return undefined;
    case 'object':
      return value === null ? null : plainObject(value);
    default:
      return value;
  }
}

function plainObject(value: object): unknown {
  try {
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return BINARY;
    if (value instanceof Map)
      return Object.fromEntries(take(value).map(([name, one]) => [String(name), one]));
    if (value instanceof Set) return take(value);
    if (value instanceof Error) return `${value.name}: ${value.message}`;
    if (isBoxed(value)) return plain(value.valueOf());
    const toJson: unknown = Reflect.get(value, 'toJSON');
    if (typeof toJson !== 'function') return value;
    const json: unknown = Reflect.apply(toJson, value, ['']);
    // Asked once, as JSON does: what it answers could answer the like for ever.
    return typeof json === 'object' ? json : plain(json);
  } catch {
    return UNREADABLE;
  }
}

function take<Entry>(entries: Iterable<Entry>): Entry[] {
  const taken: Entry[] = [];
  for (const entry of entries) {
    if (taken.length >= MAX_ENTRIES) break;
    taken.push(entry);
  }
  return taken;
}

function isBoxed(value: object): boolean {
  return (
    value instanceof String || value instanceof Number || value instanceof Boolean || value instanceof BigInt
  );
}

function copyText(text: string, room: Room): string {
  return spend(cleanCut(text, Math.min(MAX_TEXT, room.left)), room);
}

function spend(text: string, room: Room): string {
  room.left -= text.length;
  return text;
}

/** At most so many characters of a text, clean and without secrets; what was longer ends with an ellipsis. */
function cleanCut(text: string, most: number): string {
  const isSeen = text.length <= most + MARGIN;
  const seen = redact(cleanText(isSeen ? text : text.slice(0, most + MARGIN)));
  if (isSeen && seen.length <= most) return seen;
  const safe = isSeen ? seen : withoutLastWord(seen);
  // A half character at the cut is left out, not replaced.
  return `${safe.slice(0, Math.max(0, most - 1)).replace(/[\ud800-\udbff]$/, '')}…`;
}

/** The end of what was looked at may be half a secret, too short to be known by. */
function withoutLastWord(text: string): string {
  const least = Math.max(0, text.length - MARGIN);
  let end = text.length;
  while (end > least && !/\s/.test(text.charAt(end - 1))) end -= 1;
  return text.slice(0, end);
}

/** Numbers under such a name are counts. */
function isSecret(name: string, value: unknown): boolean {
  const isText = typeof value === 'string' || (typeof value === 'object' && value !== null);
  return isText && SECRET_NAME.test(name.replaceAll(/[^A-Za-z0-9]/g, '').toLowerCase());
}
