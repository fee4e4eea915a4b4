// What a request asks for, in words of no particular dialect, and what is answered. Every dialect reads into `Ask` and writes from
// `Reply`; nothing here knows how either looks on the wire.

import type { JsonObject } from './body-fields.ts';
import type { LoggedUsage } from './request-log.ts';
import { countTokens } from './tokens.ts';

export type PromptMessage = {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly text: string;
};

export type OfferedTool = {
  readonly name: string;
  readonly description: string;
  /** JSON schema of the arguments. */
  readonly parameters: JsonObject;
};

export type ToolChoice =
  | { readonly kind: 'auto' | 'none' | 'required' }
  | { readonly kind: 'named'; readonly name: string };

export type Ask = {
  readonly model: string;
  readonly messages: readonly PromptMessage[];
  readonly images: number;
  readonly tools: readonly OfferedTool[];
  readonly toolChoice: ToolChoice;
  readonly format: { readonly kind: 'text' } | { readonly kind: 'json'; readonly schema?: JsonObject };
  readonly maxOutputTokens: number | undefined;
  readonly stream: boolean;
  /** Whether a stream ends with its usage. */
  readonly includeUsage: boolean;
  /** How long a prompt that is written to the cache is said to stay there. */
  readonly cacheTtl: '5m' | '1h';
};

export type AnswerContent =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'tool_call'; readonly name: string; readonly text: string };

export type Answer = {
  /** `text` of a tool call is the JSON of its arguments. */
  readonly content: AnswerContent;
  readonly ending: 'stop' | 'length' | 'tool_call' | 'content_filter';
  readonly reasoningTokens: number;
  /** Reasoning included. */
  readonly outputTokens: number;
};

export type Reply = {
  readonly id: string;
  /** Seconds since 1970. */
  readonly createdAt: number;
  readonly ask: Ask;
  readonly answer: Answer;
  /** undefined when the reply is to be silent about it. */
  readonly usage: LoggedUsage | undefined;
};

const IMAGE_TOKENS = 85;

/** Everything of an ask that is counted, in the order in which providers cache it: tools, answer schema, messages. */
export function promptText(ask: Ask): string {
  const tools = ask.tools.map(
    (tool) => `${tool.name} ${tool.description} ${JSON.stringify(tool.parameters)}`,
  );
  const schema = ask.format.kind === 'json' && ask.format.schema ? [JSON.stringify(ask.format.schema)] : [];
  return [...tools, ...schema, ...ask.messages.map((message) => message.text)].join('\n');
}

/** Input tokens of an ask: its text, and 85 for each image; never less than 1. */
export function countInputTokens(ask: Ask): number {
  return Math.max(1, countTokens(promptText(ask)) + ask.images * IMAGE_TOKENS);
}
