// Answers an ask: a tool call, a value for a schema, or a text, cut to the tokens that it may have. The same ask gives the same
// answer; nothing of time, chance or load gets in.

import type { Answer, AnswerContent, Ask } from '../ask.ts';
import { withoutMarkers } from '../fault-book.ts';
import { countTokens, cutToTokens, repeatToTokens } from '../tokens.ts';
import { chooseTool } from './choose-tool.ts';
import { composeText, type TextSource } from './compose-text.ts';
import { hintsFor } from './hints.ts';
import { jsonExample } from './json-example.ts';

export type AnswerShape = {
  /** Exactly so many, reasoning included, unless the ask allows fewer. */
  readonly outputTokens?: number | undefined;
  readonly contentFilter?: boolean | undefined;
};

const REASONING = { min: 8, max: 512 };

export function composeAnswer(ask: Ask, shape: AnswerShape): Answer {
  const content = withLength(contentFor(ask), shape.outputTokens, ask.model);
  const full = { ...content, reasoningTokens: reasoningTokens(ask.model, content.text, shape.outputTokens) };
  const fitted = withinMaximum(full, ask.maxOutputTokens);
  const { reasoningTokens: reasoning, wasCut, ...kept } = fitted;
  const text =
    shape.contentFilter === true ? cutToTokens(kept.text, Math.floor(countTokens(kept.text) / 2)) : kept.text;
  return {
    content: { ...kept, text },
    ending: endingOf(content, wasCut, shape),
    reasoningTokens: reasoning,
    outputTokens: reasoning + countTokens(text),
  };
}

function contentFor(ask: Ask): AnswerContent {
  const source = sourceOf(ask);
  if (ask.tools.length === 0 && ask.format.kind === 'text')
    return { kind: 'text', text: composeText(source) };
  const hints = hintsFor(source);
  const tool = chooseTool(ask, hints, source.toolResults.length > 0);
  if (tool !== undefined) {
    return { kind: 'tool_call', name: tool.name, text: JSON.stringify(jsonExample(tool.parameters, hints)) };
  }
  if (ask.format.kind === 'text') return { kind: 'text', text: hints.answer };
  const value = ask.format.schema
    ? jsonExample(ask.format.schema, hints)
    : { answer: hints.answer, keywords: hints.keywords };
  return { kind: 'text', text: JSON.stringify(value) };
}

/** The last thing the user said, and what tools answered since. */
function sourceOf(ask: Ask): TextSource {
  const lastUser = ask.messages.findLastIndex((message) => message.role === 'user');
  const query = ask.messages[lastUser]?.text ?? ask.messages.map((message) => message.text).join('\n');
  const toolResults = ask.messages
    .slice(lastUser + 1)
    .filter((message) => message.role === 'tool')
    .map((message) => withoutMarkers(message.text).toWellFormed());
  return { query: withoutMarkers(query).toWellFormed(), toolResults };
}

/** JSON is filled up with spaces, which change nothing about it; text with more of itself. */
function withLength(content: AnswerContent, outputTokens: number | undefined, model: string): AnswerContent {
  if (outputTokens === undefined) return content;
  const wanted = outputTokens - reasoningTokens(model, '', outputTokens);
  const isJson = content.kind === 'tool_call' || content.text.startsWith('{') || content.text.startsWith('[');
  if (countTokens(content.text) >= wanted) return { ...content, text: cutToTokens(content.text, wanted) };
  if (!isJson) return { ...content, text: repeatToTokens(content.text, wanted) };
  const missingBytes = wanted * 4 - Buffer.byteLength(content.text);
  return { ...content, text: content.text + ' '.repeat(missingBytes) };
}

/** Only models whose name says so reason: half as much as they answer, or a third of a length that was asked for. */
function reasoningTokens(model: string, text: string, outputTokens: number | undefined): number {
  if (!model.includes('reason')) return 0;
  if (outputTokens !== undefined) return Math.floor(outputTokens / 3);
  return Math.min(REASONING.max, Math.max(REASONING.min, Math.ceil(countTokens(text) / 2)));
}

/** `max_tokens` counts reasoning too, so that comes first and leaves at least half for the answer. */
function withinMaximum<T extends AnswerContent & { readonly reasoningTokens: number }>(
  content: T,
  max: number | undefined,
) {
  if (max === undefined || content.reasoningTokens + countTokens(content.text) <= max)
    return { ...content, wasCut: false };
  const reasoning = Math.min(content.reasoningTokens, Math.floor(max / 2));
  return {
    ...content,
    reasoningTokens: reasoning,
    text: cutToTokens(content.text, max - reasoning),
    wasCut: true,
  };
}

function endingOf(content: AnswerContent, wasCut: boolean, shape: AnswerShape): Answer['ending'] {
  if (shape.contentFilter === true) return 'content_filter';
  if (wasCut) return 'length';
  return content.kind === 'tool_call' ? 'tool_call' : 'stop';
}
