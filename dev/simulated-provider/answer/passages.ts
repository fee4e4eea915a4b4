// Takes a user's text apart: what is asked, what material came with it, and which of its sentences say most. Pure.

import { countTokens } from '../tokens.ts';
import { contentWords, frequencies } from './keywords.ts';

/** More material than this is not read: answers are short, and a huge prompt must not stall the other requests. */
const READ_CHARACTERS = 60_000;
const INSTRUCTION =
  /^(?:please\s+)?(?:summari[sz]e|explain|describe|write|list|compare|translate|plan|answer|give|tell|say|name|show|find|outline|draft|rewrite|extract|classify|review|propose|suggest|you are|act as|use|based on|in \w+ (?:sentences?|words))\b/i;

const segmenter = new Intl.Segmenter('en', { granularity: 'sentence' });

/** Sentences of a text, trimmed, without empty ones. Line breaks end a sentence. */
export function sentencesOf(text: string): string[] {
  return text
    .split(/\n+/)
    .flatMap((line) => Array.from(segmenter.segment(line), (part) => part.segment.trim()))
    .filter((sentence) => sentence !== '');
}

/** Sentences of the text that are no instructions and no questions: empty when a prompt is just a question. */
export function materialOf(text: string): string[] {
  const sentences = [...new Set(sentencesOf(afterInstruction(text.slice(0, READ_CHARACTERS))))];
  const material = sentences.filter((sentence) => !INSTRUCTION.test(sentence) && !sentence.endsWith('?'));
  const words = material.reduce((sum, sentence) => sum + contentWords(sentence).length, 0);
  return words >= 10 ? material : [];
}

/**
 * The sentences that say most about the whole, in their own order: those whose words are frequent in it, the earlier a little
 * before the later. At least one, then as long as all of them stay within `maxTokens` and `maxSentences`.
 */
export function mostInformative(
  sentences: readonly string[],
  limits: { readonly maxTokens: number; readonly maxSentences: number },
): string[] {
  const frequency = frequencies(sentences.flatMap(contentWords));
  const ranked = sentences
    .map((sentence, index) => ({ sentence, index, score: score(sentence, frequency) / (1 + index / 20) }))
    .sort((left, right) => right.score - left.score || left.index - right.index);
  const chosen: typeof ranked = [];
  let tokens = 0;
  for (const candidate of ranked) {
    const size = countTokens(candidate.sentence);
    if (chosen.length > 0 && tokens + size > limits.maxTokens) continue;
    chosen.push(candidate);
    tokens += size;
    if (chosen.length >= limits.maxSentences) break;
  }
  return chosen.sort((left, right) => left.index - right.index).map((each) => each.sentence);
}

/** `Summarise in two sentences: <text>` is about the text. */
function afterInstruction(text: string): string {
  const colon = text.search(/:\s/);
  const isLead = colon > 0 && colon <= 200 && INSTRUCTION.test(text.trimStart());
  return isLead && text.length - colon > 60 ? text.slice(colon + 1) : text;
}

function score(sentence: string, frequency: ReadonlyMap<string, number>): number {
  const words = contentWords(sentence);
  const sum = words.reduce((total, word) => total + (frequency.get(word) ?? 0), 0);
  return sum / Math.sqrt(words.length + 2);
}
