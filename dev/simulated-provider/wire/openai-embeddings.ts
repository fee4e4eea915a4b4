// OpenAI's embeddings: a bag of words, each hashed to a few dimensions, so that texts with words in common lie close together.

import { createHash } from 'node:crypto';
import { contentWords, stem } from '../answer/keywords.ts';
import { type JsonObject, optionalNumber, optionalText, requiredText } from '../body-fields.ts';
import { badRequest } from '../problem.ts';
import { countTokens } from '../tokens.ts';
import type { Composed, Endpoint } from './endpoint.ts';
import { openaiStyle } from './openai-style.ts';

const DIMENSIONS = 1_536;
const MOST_INPUTS = 2_048;

type Embeddings = {
  readonly model: string;
  readonly inputs: readonly (string | readonly number[])[];
  readonly dimensions: number;
  readonly asBase64: boolean;
};

export const openaiEmbeddings: Endpoint = {
  style: openaiStyle,
  read(body) {
    const asked = parse(body);
    const prompt = asked.inputs.map(textOf).join('\n');
    return { model: asked.model, prompt, stream: false, compose: () => compose(asked) };
  },
};

function parse(body: JsonObject): Embeddings {
  const format = optionalText(body, 'encoding_format') ?? 'float';
  if (format !== 'float' && format !== 'base64')
    throw badRequest("'encoding_format' must be float or base64", 'encoding_format');
  return {
    model: requiredText(body, 'model'),
    inputs: readInputs(body['input']),
    dimensions: optionalNumber(body, 'dimensions', { min: 1, max: 4_096, integer: true }) ?? DIMENSIONS,
    asBase64: format === 'base64',
  };
}

/** A text, texts, tokens, or lists of tokens. */
function readInputs(input: unknown): (string | number[])[] {
  const isTokens = (value: unknown): value is number[] =>
    Array.isArray(value) && value.length > 0 && value.every(Number.isInteger);
  const isInput = (value: unknown) => (typeof value === 'string' && value !== '') || isTokens(value);
  const list: unknown[] = Array.isArray(input) && !isTokens(input) ? input : [input];
  if (list.length === 0 || list.length > MOST_INPUTS || !list.every(isInput)) {
    throw badRequest(
      `'input' must be a non-empty string, an array of 1 to ${MOST_INPUTS} of them, or tokens`,
      'input',
    );
  }
  return list.filter((value) => typeof value === 'string' || isTokens(value));
}

function compose(asked: Embeddings): Composed {
  const inputTokens = asked.inputs.reduce((sum, input) => sum + tokensOf(input), 0);
  const usage = {
    inputTokens,
    cachedInputTokens: 0,
    cacheWriteTokens: 0,
    outputTokens: 0,
    reasoningTokens: 0,
  };
  const whole = () => ({
    object: 'list',
    data: asked.inputs.map((input, index) => {
      const vector = embed(textOf(input), asked.dimensions);
      return { object: 'embedding', index, embedding: asked.asBase64 ? base64(vector) : vector };
    }),
    model: asked.model,
    usage: { prompt_tokens: inputTokens, total_tokens: inputTokens },
  });
  const stream = () => ({ opening: '', pieces: [], closing: '', error: () => '' });
  return {
    inputTokens,
    outputTokens: 0,
    tokensAfter: [],
    cacheable: undefined,
    deliver: () => ({ usage, whole, stream }),
  };
}

/** A vector of length 1. */
function embed(text: string, dimensions: number): number[] {
  const vector = new Array<number>(dimensions).fill(0);
  const words = contentWords(text).map(stem);
  for (const word of words.length > 0 ? words : [text]) {
    const hash = createHash('sha256').update(word).digest();
    for (let at = 0; at < 16; at += 4) {
      const index = hash.readUInt32LE(at) % dimensions;
      vector[index] = (vector[index] ?? 0) + ((hash[16 + at] ?? 0) % 2 === 0 ? 1 : -1);
    }
  }
  const norm = Math.hypot(...vector);
  if (norm === 0) vector[0] = 1;
  return norm === 0 ? vector : vector.map((value) => value / norm);
}

function base64(vector: readonly number[]): string {
  return Buffer.from(Float32Array.from(vector).buffer).toString('base64');
}

function textOf(input: string | readonly number[]): string {
  return typeof input === 'string' ? input : input.join(' ');
}

function tokensOf(input: string | readonly number[]): number {
  return typeof input === 'string' ? countTokens(input) : input.length;
}
