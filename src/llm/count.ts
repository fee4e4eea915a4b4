// How many tokens a request can have at most, and how many a text has. The first is arithmetic and belongs on the hot path; the
// second loads a large table and takes milliseconds, so it does not.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Message, messageText, type ResponseFormat } from '../task/message.ts';

/** Role, separators and name of one message, in any provider's template: three to eight tokens. */
const OVERHEAD_PER_MESSAGE = 16;

/** What opens a conversation and primes the answer, and the instructions that some models put ahead of it by themselves. */
const OVERHEAD_PER_REQUEST = 64;

/** The instruction for JSON, ours or the provider's. */
const OVERHEAD_OF_JSON = 64;

/** Where a schema is enforced through a tool, the provider adds its own instructions for tools: 300 to 800 tokens. */
const OVERHEAD_OF_SCHEMA = 1_024;

/** A schema may be set in anew, with indentation. */
const SCHEMA_GROWTH = 2;

/**
 * An upper bound of a request's input tokens: UTF-8 bytes plus overhead. Tokenizers of today fall back to single bytes at worst, so no
 * text has more tokens than bytes; English has about a quarter of them.
 */
export function estimateInputTokens(messages: readonly Message[], responseFormat?: ResponseFormat): number {
  const bytes = messages.reduce(
    (sum, message) => sum + OVERHEAD_PER_MESSAGE + Buffer.byteLength(messageText(message)),
    0,
  );
  return OVERHEAD_PER_REQUEST + bytes + formatTokens(responseFormat);
}

function formatTokens(responseFormat: ResponseFormat | undefined): number {
  switch (responseFormat?.type) {
    case undefined:
    case 'text':
      return 0;
    case 'json':
      return OVERHEAD_OF_JSON;
    case 'json_schema':
      return OVERHEAD_OF_SCHEMA + Buffer.byteLength(schemaText(responseFormat)) * SCHEMA_GROWTH;
    default:
      return responseFormat satisfies never;
  }
}

/** Models whose own tokenizer o200k is; any other may need more tokens for the same text. */
const O200K_MODELS = /^openai\/(?:gpt-4o|gpt-4\.1|gpt-4\.5|gpt-[5-9]|gpt-oss|chatgpt-4o|o[1-9])/;

/** Added where the tokenizer is not the model's own. */
const FOREIGN_MARGIN_PERCENT = 15;

/**
 * A closer bound of a request's input tokens: counted (o200k), with a margin where that is not the model's own tokenizer, plus overhead.
 * Takes seconds for a megabyte, giving way to other work meanwhile.
 * @param model `provider/model`
 * @returns never more than `estimateInputTokens`
 */
export async function countInputTokens(
  model: string,
  messages: readonly Message[],
  responseFormat?: ResponseFormat,
): Promise<number> {
  let counted = 0;
  for (const message of messages) counted += await countTokensAsync(messageText(message));
  let overhead = OVERHEAD_PER_REQUEST + OVERHEAD_PER_MESSAGE * messages.length;
  if (responseFormat?.type === 'json_schema') {
    overhead += OVERHEAD_OF_SCHEMA;
    counted += SCHEMA_GROWTH * (await countTokensAsync(schemaText(responseFormat)));
  } else overhead += formatTokens(responseFormat);
  const tokens = O200K_MODELS.test(model)
    ? counted
    : Math.ceil((counted * (100 + FOREIGN_MARGIN_PERCENT)) / 100);
  return Math.min(overhead + tokens, estimateInputTokens(messages, responseFormat));
}

function schemaText({ schema, name }: Extract<ResponseFormat, { type: 'json_schema' }>): string {
  return JSON.stringify(schema) + (name ?? '');
}

/** Counts the tokens of a text (o200k) at once, blocking. */
export type CountTokens = (text: string) => number;

/** Loads the tokenizer, once per process: about 0.3 s and 80 MB, so a process that never counts never pays. */
export async function loadTokenCounter(): Promise<CountTokens> {
  const { countTokens } = await import('gpt-tokenizer/encoding/o200k_base');
  const countSlice = (slice: string) => countTokens(slice, AS_PLAIN_TEXT);
  return (text) => slicesOf(text).reduce((sum, slice) => sum + countSlice(slice), 0);
}

/**
 * The tokens of a text (o200k), giving way to other work between slices. For other tokenizers than OpenAI's it is an estimate.
 * @returns at most a few tokens too many: a word that a slice ends in is counted in two
 */
export async function countTokensAsync(text: string): Promise<number> {
  if (text === '') return 0;
  const countTokens = await loadTokenCounter();
  let tokens = 0;
  for (const slice of slicesOf(text)) {
    tokens += countTokens(slice);
    await nextTurn();
  }
  return tokens;
}

/** `<|endoftext|>` in somebody's text is text; by default it throws. */
const AS_PLAIN_TEXT = { disallowedSpecial: new Set<string>() };

/**
 * Time grows with the square of an unbroken run of characters (Chinese without punctuation, base64): 8,192 of them block the process
 * for 0.3 s, this many for 0.02 s.
 */
const SLICE_CHARACTERS = 2_048;

function slicesOf(text: string): string[] {
  const slices: string[] = [];
  for (let start = 0; start < text.length; ) {
    const end = endOfSlice(text, start + SLICE_CHARACTERS);
    slices.push(text.slice(start, end));
    start = end;
  }
  return slices;
}

/** Never between the halves of a character. */
function endOfSlice(text: string, end: number): number {
  const code = text.charCodeAt(end - 1);
  const isHighSurrogate = end < text.length && code >= 0xd800 && code <= 0xdbff;
  return isHighSurrogate ? end + 1 : end;
}
