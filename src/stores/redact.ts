// Secrets and binary data inside a text, replaced by words that say what was there. Every pattern is greedy and none looks at what follows
// it: what is left of a text after a cut must not be a match that the whole was not. None may take more than linear time.

const REDACTED = '[redacted]';

/** Nothing of a word before it: `task-…` is no key that begins with `sk-`. */
const START = '(?<![A-Za-z0-9])';

const KEYS = new RegExp(
  [
    `${START}sk-[\\w-]{12,}`,
    `${START}[prs]k_(?:live|test)_\\w{12,}`,
    `${START}gsk_\\w{16,}`,
    `${START}hf_\\w{16,}`,
    'ya29\\.[\\w-]{16,}',
    `${START}gh[pousr]_\\w{16,}`,
    'AIza[\\w-]{12,}',
    '(?:AKIA|ASIA)[A-Z0-9]{12,}',
    'github_pat_\\w{16,}',
    'glpat-[\\w-]{12,}',
    'xox[a-z]-[\\w-]{10,}',
    // A JSON web token: header and claims, with or without a signature.
    'eyJ[\\w-]{8,}\\.[\\w-]{8,}(?:\\.[\\w-]*)?',
  ].join('|'),
  'g',
);
const BEARER = new RegExp(`${START}bearer\\s{1,8}[\\w.~+/=-]{12,}`, 'gi');
/** A key that is cut off counts to the end of its text. */
const PRIVATE_KEY =
  /-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|$)/g;
/** `://user:password@`. A port is none, whatever stands behind it. */
const URL_PASSWORD = /(:\/\/[^\s:/@?#]{0,256}:)(?!\d{1,5}[?#"'`)\],\\])[^\s/"<>[\]{}\\]{1,2048}@/g;
const BASIC = /(authorization["']?\s{0,4}:\s{0,4}["']?basic\s{1,8})[\w+/=-]{4,}/gi;

const NAME =
  '(?:password|passwd|pwd|passphrase|(?:api|access|account)[_-]?key|secret(?:[_-]?key)?|(?:access|refresh|auth|session)[_-]?token)';
/** The word that stands for a value, or what a cut left of it: it is no value. */
const CUT_OFF = `(?!["']?(?:\\[[a-z]{0,8}\\]?)?…$)`;
/** What stands between quotes, where a backslash or, for some, a second quote makes one part of it. */
const IN_QUOTES = (quote: string, doubled = '') => `(?:[^${quote}\\\\]|\\\\[\\s\\S]?${doubled})`;
/** `password=…` of a query or a connection string: in quotes, in quotes of a text that is in quotes itself, or bare. */
const ASSIGNED = new RegExp(
  `(${NAME}\\s{0,4}=(?!=)\\s{0,4})${CUT_OFF}(?:"${IN_QUOTES('"', '|""')}*"?|'${IN_QUOTES("'", "|''")}*'?|\\\\{1,4}["'][^"'\\\\]*|[^\\s&;"\\\\]+)`,
  'gi',
);
/** `"password": "…"` of JSON inside a text. */
const QUOTED = new RegExp(
  `(${NAME}["']\\s{0,4}:\\s{0,4})(?:(")${CUT_OFF}${IN_QUOTES('"')}+|(')${CUT_OFF}${IN_QUOTES("'")}+)`,
  'gi',
);
/** The same where the JSON is in a text of JSON: each backslash and each quote inside has one more. */
const QUOTED_TWICE = new RegExp(
  `(${NAME}\\\\{1,4}["']\\s{0,4}:\\s{0,4}\\\\{1,4}["'])${CUT_OFF}(?:[^"'\\\\]|'|\\\\\\\\(?:\\\\\\\\|\\\\["']|[^\\\\"'])?)+`,
  'gi',
);

/** A kilobyte and more without a break, in either alphabet; or in lines, as mail has it. Looked for where a word begins, and only there. */
const LONG_BASE64 = /(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{1024,}={0,2}/g;
const BASE64_LINES = /(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{40,100}\r?\n){12,}[A-Za-z0-9+/_-]{0,100}={0,2}/g;
const DATA_URL = /(data:[\w.+/-]{0,100}(?:;[\w.=-]{0,100}){0,8};base64,)[A-Za-z0-9+/=_%-]{1024,}/gi;

/** In order: a key is binary to the patterns behind it. */
const REPLACEMENTS: readonly (readonly [RegExp, string])[] = [
  [PRIVATE_KEY, REDACTED],
  [DATA_URL, '$1[base64]'],
  [LONG_BASE64, '[base64]'],
  [BASE64_LINES, '[base64]'],
  [BEARER, REDACTED],
  [KEYS, REDACTED],
  [BASIC, `$1${REDACTED}`],
  [URL_PASSWORD, `$1${REDACTED}@`],
  [ASSIGNED, `$1${REDACTED}`],
  [QUOTED, `$1$2$3${REDACTED}`],
  [QUOTED_TWICE, `$1${REDACTED}`],
];
/** Whether there is anything to replace at all: most texts are passed over at the cost of one look. */
const ANY = new RegExp(REPLACEMENTS.map(([pattern]) => pattern.source).join('|'), 'i');

/** The text without secrets and without binary data. What comes out is not changed by coming in again. */
export function redact(text: string): string {
  for (let before = text; ; ) {
    const after = replaceOnce(before);
    // What a replacement sets free of the word before it is looked at again. It ends: each round that changes something leaves less.
    if (after === before) return after;
    before = after;
  }
}

function replaceOnce(text: string): string {
  if (!ANY.test(text)) return text;
  return REPLACEMENTS.reduce((left, [pattern, word]) => left.replaceAll(pattern, word), text);
}
