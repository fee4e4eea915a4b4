// Fills one string field of a JSON schema: something from the prompt that suits the field's name, as far as the schema takes it.

import type { JsonObject } from '../body-fields.ts';
import type { Hints } from './hints.ts';
import type { Place } from './place.ts';
import { textForPattern } from './text-for-pattern.ts';

/** A map, since a format may be called `constructor`. */
const FORMATS = new Map([
  ['date', '2026-01-15'],
  ['date-time', '2026-01-15T09:30:00Z'],
  ['time', '09:30:00Z'],
  ['duration', 'PT1H'],
  ['email', 'someone@example.com'],
  ['hostname', 'example.com'],
  ['ipv4', '192.0.2.1'],
  ['ipv6', '2001:db8::1'],
  ['uri', 'https://example.com/'],
  ['url', 'https://example.com/'],
  ['uuid', '3f2b8c1e-6d4a-4b7e-9c21-5a0f8e7d6c4b'],
]);
const OTHER_FORMATS = ['09:30:00', '2026-01-15T09:30:00', 'c2ltdWxhdGVk', 'en', '+15550100'];
const LONGEST = 100_000;

/** A text that the schema accepts, or undefined when none was found. */
export function exampleText(schema: JsonObject, place: Place): string | undefined {
  const { hints } = place;
  const format = typeof schema['format'] === 'string' ? FORMATS.get(schema['format']) : undefined;
  const fromFormat = format === undefined ? [] : [format];
  const named = byName(place).filter((text) => text !== undefined);
  const candidates = [
    ...(format === undefined ? [] : fromFormatHints(schema, hints)),
    ...fromFormat,
    ...named,
  ];
  return fittingText(schema, [
    ...candidates,
    place.depth > 1 ? (hints.sentences[0] ?? '') : hints.answer,
    ...FORMATS.values(),
    ...OTHER_FORMATS,
  ]);
}

/** The first candidate that the schema's `pattern`, `minLength` and `maxLength` accept, if need be cut or filled up. */
export function fittingText(schema: JsonObject, candidates: readonly string[]): string | undefined {
  const pattern = typeof schema['pattern'] === 'string' ? schema['pattern'] : undefined;
  const min = typeof schema['minLength'] === 'number' ? schema['minLength'] : 0;
  const max = typeof schema['maxLength'] === 'number' ? schema['maxLength'] : LONGEST;
  const sized = (text: string) => toLength(text, min, max);
  if (pattern === undefined) return candidates.map(sized).find((text) => text !== undefined);
  const made = textForPattern(pattern);
  const all = made === undefined ? candidates : [...candidates, made];
  return all.find((text) => sized(text) === text && matches(pattern, text));
}

function toLength(text: string, min: number, max: number): string | undefined {
  if (min > max || min > LONGEST) return undefined;
  let characters = Array.from(text);
  if (characters.length > max) characters = characters.slice(0, max);
  while (characters.length < min) characters = [...characters, ...'.'.repeat(min - characters.length)];
  return characters.join('');
}

function matches(pattern: string, text: string): boolean {
  try {
    return new RegExp(pattern, 'u').test(text);
  } catch {
    // A pattern that is none accepts nothing.
    return false;
  }
}

function fromFormatHints(schema: JsonObject, hints: Hints): string[] {
  const found = new Map([
    ['date', hints.date],
    ['email', hints.email],
    ['uri', hints.url],
    ['url', hints.url],
  ]);
  const format = schema['format'];
  const hint = typeof format === 'string' ? found.get(format) : undefined;
  return hint === undefined ? [] : [hint];
}

function byName(place: Place): (string | undefined)[] {
  const { hints } = place;
  const name = place.name.toLowerCase();
  const sentence = hints.sentences[place.index % Math.max(1, hints.sentences.length)];
  const keyword = hints.keywords[place.index % Math.max(1, hints.keywords.length)];
  const rules: readonly (readonly [RegExp, string | undefined])[] = [
    [/url|uri|link|href/, hints.url ?? FORMATS.get('url')],
    [/mail/, hints.email ?? FORMATS.get('email')],
    [/expression|formula|equation|calculation/, hints.arithmetic],
    [/city|location|place|country|region|town/, hints.place],
    [/date|day$/, hints.date ?? FORMATS.get('date')],
    [/path|file/, hints.path ?? 'notes/answer.md'],
    [/code|script|source|program/, hints.code ?? 'print("hello")'],
    [/language|lang$|locale/, 'en'],
    [/title|topic|subject|headline|^name$/, hints.title],
    [/goal|objective|^aim$/, hints.query],
    [/query|question|prompt|input|search|term|^q$/, hints.query],
    [/keyword|tag|label|categor|entit/, keyword],
    [/point|finding|fact|highlight|sentence|bullet|reason|note/, sentence],
  ];
  // The capital in `taskId` is what tells it from `paid`, so this one looks at the name as it is written.
  const id = /(?:^|_)id$|[a-z]Id$/.test(place.name) ? [`${place.name}-${place.index + 1}`] : [];
  const named = [...id, ...rules.filter(([pattern]) => pattern.test(name)).map(([, text]) => text)];
  return place.inList ? [...named, keyword, sentence] : named;
}
