// What a prompt offers to fill fields with: its keywords, numbers, addresses, sums. Looked for once per request. Pure.

import { composeText, type TextSource } from './compose-text.ts';
import { keywordsOf } from './keywords.ts';
import { sentencesOf } from './passages.ts';

export type Hints = {
  readonly query: string;
  /** The text that would be answered in plain words. */
  readonly answer: string;
  readonly sentences: readonly string[];
  readonly keywords: readonly string[];
  readonly title: string;
  readonly numbers: readonly number[];
  readonly url: string | undefined;
  readonly email: string | undefined;
  /** Something to calculate, such as `12 * (7 + 3)`. */
  readonly arithmetic: string | undefined;
  readonly place: string | undefined;
  readonly date: string | undefined;
  readonly path: string | undefined;
  readonly code: string | undefined;
};

const READ_CHARACTERS = 4_000;

export function hintsFor(source: TextSource): Hints {
  const query = source.query.slice(0, READ_CHARACTERS).toWellFormed().trim();
  const answer = composeText(source).toWellFormed();
  const keywords = keywordsOf(query, 8);
  return {
    query,
    answer,
    sentences: sentencesOf(answer),
    keywords,
    title: sentenceCase(keywords.slice(0, 4).join(' ')) || 'Answer',
    numbers: (query.match(/(?<![\w.-])-?\d+(?:\.\d+)?(?![\w-])/g) ?? []).slice(0, 20).map(Number),
    url: /https?:\/\/[^\s"'<>)\]]*[^\s"'<>)\].,;!?]/.exec(query)?.[0],
    email: /[\w.+-]+@[\w-]+(?:\.[\w-]+)+/.exec(query)?.[0],
    arithmetic: arithmeticIn(query),
    place: namedAfter(query, 'in|at|near') ?? namedAfter(query, 'for|from|to'),
    date: /\b\d{4}-\d{2}-\d{2}\b/.exec(query)?.[0],
    path: /(?<=^|\s)(?:\.{0,2}\/)?[\w-]+(?:\/[\w.-]+)+|\b[\w-]+\.(?:csv|json|md|txt|ts|js|py|ya?ml)\b/.exec(
      query,
    )?.[0],
    code: /```\w*\n([\s\S]*?)```/.exec(query)?.[1]?.trim(),
  };
}

/** A name in capitals after one of the prepositions. */
function namedAfter(query: string, prepositions: string): string | undefined {
  const name = "(\\p{Lu}[\\p{L}'-]+(?:\\s+\\p{Lu}[\\p{L}'-]+)*)";
  return new RegExp(`\\b(?:${prepositions})\\s+${name}`, 'u').exec(query)?.[1];
}

function arithmeticIn(query: string): string | undefined {
  const found = /[(\d][\d\s().]*(?:[-+*/^%][\d\s().]*\d[\d\s().]*)+/.exec(query)?.[0].trim();
  // Dates and ranges (`2026-01-15`, `1-2`) are written without spaces and with nothing but hyphens.
  if (found === undefined || /^\d+(?:-\d+)+$/.test(found)) return undefined;
  return found.replace(/[.\s]+$/, '');
}

function sentenceCase(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
