// Writes the text of an answer: sentences picked from the user's material, filled up with plain ones about the prompt's subject.
// The same prompt gives the same text. Nothing here is meant to be clever, only readable.

import { createHash } from 'node:crypto';
import { countTokens, cutToTokens, repeatToTokens } from '../tokens.ts';
import { subjectsOf, wordsOf } from './keywords.ts';
import { materialOf, mostInformative } from './passages.ts';
import { partsOf } from './plan.ts';

export type TextSource = {
  /** The user's last message, without markers. */
  readonly query: string;
  /** What tools answered to it. */
  readonly toolResults: readonly string[];
};

type Length =
  | { readonly kind: 'default' }
  | { readonly kind: 'tokens' | 'words' | 'sentences'; readonly count: number };

const DEFAULT = { minTokens: 40, maxTokens: 120 };
/** Stand in where a prompt has fewer subjects than a sentence wants. */
const UNNAMED = ['this', 'the rest', 'the detail', 'the outcome', 'everything around it'];
const NUMBER_WORDS = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'];
const LENGTH =
  /\b(?:in|write|within|exactly)\s+(?:about\s+|around\s+|exactly\s+|at most\s+|up to\s+|no more than\s+)?(\d{1,5}|one|two|three|four|five|six|seven|eight|nine|ten)\s+(?:short\s+|plain\s+)?(token|word|sentence)s?\b/i;

/** 40 to 120 tokens, or the length that the prompt names (`in two sentences`, `in 50 words`, `exactly 300 tokens`). */
export function composeText(source: TextSource): string {
  const sentences = sentencesFor(source);
  const length = lengthAskedFor(source.query);
  switch (length.kind) {
    case 'tokens':
      return repeatToTokens(sentences.all.join(' '), length.count);
    case 'words':
      return firstWords(sentences.all.join(' '), length.count);
    case 'sentences':
      return sentences.all.slice(0, length.count).join(' ');
    case 'default':
      return defaultLength(sentences.picked, sentences.plain);
    default:
      return length satisfies never;
  }
}

function sentencesFor(source: TextSource): { picked: string[]; plain: string[]; all: string[] } {
  const picked = pickedSentences(source).map(ended);
  const plain = plainSentences(source.query);
  return { picked, plain, all: [...picked, ...plain] };
}

/** What tools answered, else the best of the material, else the parts of the request one after another. */
function pickedSentences(source: TextSource): string[] {
  if (source.toolResults.length > 0) {
    return source.toolResults.map((result) => `The tool answered: ${cutToTokens(oneLine(result), 80)}`);
  }
  const material = materialOf(source.query);
  if (material.length > 0) {
    // Shorter than what it sums up, but long enough for an answer.
    const maxTokens = Math.min(100, Math.max(45, Math.ceil(countTokens(material.join(' ')) * 0.6)));
    return mostInformative(material, { maxTokens, maxSentences: 10 });
  }
  const parts = source.query.trim().endsWith('?') ? [] : partsOf(source.query).slice(0, 4);
  return parts.length < 2 ? [] : parts.map((part, index) => `Step ${index + 1}: ${part}`);
}

function defaultLength(picked: readonly string[], plain: readonly string[]): string {
  let text = cutToTokens(picked.join(' '), DEFAULT.maxTokens - 1);
  if (text !== picked.join(' ')) return `${text.replace(/\s+\S*$/, '')}…`;
  for (const sentence of plain) {
    if (countTokens(text) >= DEFAULT.minTokens) break;
    text = `${text} ${sentence}`.trim();
  }
  return cutToTokens(text, DEFAULT.maxTokens);
}

/** Ten sentences about the subjects of a prompt; which come first depends on its text. */
function plainSentences(query: string): string[] {
  const subjects = subjectsOf(query.slice(0, 4_000), 5);
  const subject = (index: number) => subjects[index] ?? UNNAMED[index] ?? 'this';
  const [first, second, third] = [subject(0), subject(1), subject(2)];
  const named = subjects.length > 0 ? subjects.slice(0, 3) : [first];
  const opening = `It comes down to ${named.length > 1 ? `${named.slice(0, -1).join(', ')} and ${named.at(-1)}` : first}.`;
  const rest = [
    `What matters most about ${first} is what it makes possible, and what it rules out.`,
    `With ${second} the cost shows first, so that is where to measure before anything is changed.`,
    `A small worked example of ${third} is the quickest way to see whether the reasoning holds.`,
    `Where ${first} and ${second} pull in different directions, the choice that can be undone is the safer one.`,
    `Anything said about ${third} should name the case in which it would be wrong.`,
    `Seen from the outside, ${subject(3)} is the part that people notice.`,
    `Most mistakes with ${first} come from assuming that nothing else happens at the same time.`,
    `It helps to write down what ${subject(4)} depends on before deciding about it.`,
    `In the end ${second} is judged by how it behaves on a bad day.`,
  ];
  const start = (createHash('sha256').update(query).digest()[0] ?? 0) % rest.length;
  return [opening, ...rest.slice(start), ...rest.slice(0, start)];
}

/** Looks at the ends of a prompt only, where instructions stand: a number inside long material directs nothing. */
function lengthAskedFor(query: string): Length {
  const ends = query.length <= 800 ? query : `${query.slice(0, 400)}\n${query.slice(-400)}`;
  const found = LENGTH.exec(ends);
  if (found === null) return { kind: 'default' };
  const number = (found[1] ?? '').toLowerCase();
  const count = NUMBER_WORDS.includes(number) ? NUMBER_WORDS.indexOf(number) + 1 : Number(number);
  const unit = (found[2] ?? '').toLowerCase();
  if (unit === 'token') return { kind: 'tokens', count };
  return { kind: unit === 'word' ? 'words' : 'sentences', count: Math.max(1, count) };
}

function firstWords(text: string, count: number): string {
  const repeats = Math.ceil(count / Math.max(1, wordsOf(text).length));
  return `${text} `.repeat(repeats).split(/\s+/).slice(0, count).join(' ');
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim();
}

function ended(sentence: string): string {
  return /[.!?…。！？:"”')\]}]$/.test(sentence) ? sentence : `${sentence}.`;
}
