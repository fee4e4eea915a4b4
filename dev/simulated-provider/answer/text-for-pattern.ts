// Finds a text that a regular expression accepts, for string fields of a JSON schema that have a `pattern`. Understands the parts
// that such patterns are made of; for others (lookarounds, back references) it answers undefined rather than something wrong.

type Cursor = { readonly pattern: string; at: number };

class Unsupported extends Error {}

const CLASS_SAMPLES: Record<string, string> = {
  d: '1',
  w: 'a',
  s: ' ',
  D: 'a',
  W: '-',
  S: 'a',
  t: '\t',
  n: '\n',
  r: '\r',
};
const PRINTABLE =
  'a1A-_. bcdefghijklmnopqrstuvwxyz023456789BCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&()*+,/:;<=>?@[]^{|}~\'"`\\';
/** Patterns are part of a request: without a bound `a{1000000}{1000000}` would fill the memory. */
const LONGEST = 10_000;

/** A short text that matches, or undefined when none was found. */
export function textForPattern(pattern: string): string | undefined {
  let matcher: RegExp;
  try {
    matcher = new RegExp(pattern, 'u');
  } catch {
    // Not a pattern at all: nothing matches it.
    return undefined;
  }
  try {
    const cursor = { pattern, at: 0 };
    const text = alternatives(cursor);
    return cursor.at === pattern.length && matcher.test(text) ? text : undefined;
  } catch (error) {
    if (error instanceof Unsupported) return undefined;
    throw error;
  }
}

/** Reads to the end of a group and answers with its first alternative. */
function alternatives(cursor: Cursor): string {
  const first = sequence(cursor);
  while (cursor.pattern[cursor.at] === '|') {
    cursor.at += 1;
    sequence(cursor);
  }
  return first;
}

function sequence(cursor: Cursor): string {
  let text = '';
  while (cursor.at < cursor.pattern.length && !'|)'.includes(cursor.pattern[cursor.at] ?? '')) {
    const unit = atom(cursor);
    text += unit.repeat(leastTimes(cursor, unit.length));
    if (text.length > LONGEST) throw new Unsupported();
  }
  return text;
}

function atom(cursor: Cursor): string {
  const character = cursor.pattern[cursor.at] ?? '';
  cursor.at += 1;
  switch (character) {
    case '^':
    case '$':
      return '';
    case '.':
      return 'a';
    case '(':
      return group(cursor);
    case '[':
      return characterClass(cursor);
    case '\\':
      return escaped(cursor);
    default:
      return character;
  }
}

function group(cursor: Cursor): string {
  const opening = /^\?(?::|<[A-Za-z_]\w*>)/.exec(cursor.pattern.slice(cursor.at))?.[0];
  if (opening === undefined && cursor.pattern[cursor.at] === '?') throw new Unsupported();
  cursor.at += opening?.length ?? 0;
  const text = alternatives(cursor);
  cursor.at += 1;
  return text;
}

/** The class itself is tested by the engine, so that ranges, negation and escapes need no second reading here. */
function characterClass(cursor: Cursor): string {
  const source = /^(?:\\.|[^\]\\])*\]/.exec(cursor.pattern.slice(cursor.at))?.[0];
  if (source === undefined) throw new Unsupported();
  cursor.at += source.length;
  const matcher = new RegExp(`^[${source}$`, 'u');
  const candidates = [...PRINTABLE, ...source];
  const found = candidates.find((candidate) => matcher.test(candidate));
  if (found === undefined) throw new Unsupported();
  return found;
}

function escaped(cursor: Cursor): string {
  const character = cursor.pattern[cursor.at] ?? '';
  cursor.at += 1;
  if (character === 'b') return '';
  if (/[1-9kBpPux]/.test(character)) throw new Unsupported();
  return CLASS_SAMPLES[character] ?? character;
}

/** How often a quantifier wants its unit at least: 1 without one, and 0 for `*` and `?`. */
function leastTimes(cursor: Cursor, unitLength: number): number {
  const quantifier = /^(?:[*+?]|\{(\d+)(?:,\d*)?\})\??/.exec(cursor.pattern.slice(cursor.at));
  if (quantifier === null) return 1;
  cursor.at += quantifier[0].length;
  if (quantifier[1] === undefined) return quantifier[0].startsWith('+') ? 1 : 0;
  const times = Number(quantifier[1]);
  if (times * unitLength > LONGEST) throw new Unsupported();
  return times;
}
