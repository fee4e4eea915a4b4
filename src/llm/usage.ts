// Usage as each protocol reports it, made into the disjoint buckets that prices are for. Pure. It reads the providers' own fields:
// the AI SDK's normal form joins the two kinds of cache writes and turns missing counts into zeros.

import type { Usage } from '../task/usage.ts';
import { toRecord } from './error-body.ts';
import type { Protocol } from './protocol.ts';

/**
 * The usage of one attempt.
 * @param raw the usage object as the provider sent it; several of one stream laid over each other
 * @returns undefined when a total is missing or no count at all: what is not measured must be estimated, never be taken for zero
 */
export function toUsage(protocol: Protocol, raw: unknown): Usage | undefined {
  const fields = toRecord(raw);
  if (fields === undefined) return undefined;
  const usage = READERS[protocol](fields);
  return usage !== undefined && Object.values(usage).every(isCount) ? usage : undefined;
}

/**
 * The usage that one chunk of a stream carries, as the provider sent it. Anthropic spreads it over two events, so the caller lays
 * later ones over earlier ones.
 */
export function rawUsageOf(
  protocol: Protocol,
  chunk: unknown,
): Readonly<Record<string, unknown>> | undefined {
  const fields = toRecord(chunk);
  switch (protocol) {
    case 'openai':
    case 'openai-compatible':
      return toRecord(fields?.['usage']);
    case 'anthropic':
      return toRecord(toRecord(fields?.['message'])?.['usage']) ?? toRecord(fields?.['usage']);
    case 'google':
      return toRecord(fields?.['usageMetadata']);
    default:
      return protocol satisfies never;
  }
}

/** Whether a chunk's usage says how much was generated until then; some chunks tell the input alone. */
export function countsOutput(
  protocol: Protocol,
  raw: Readonly<Record<string, unknown>> | undefined,
): boolean {
  return isCount(raw?.[OUTPUT_COUNTS[protocol]]);
}

const OUTPUT_COUNTS: Readonly<Record<Protocol, string>> = {
  openai: 'completion_tokens',
  'openai-compatible': 'completion_tokens',
  anthropic: 'output_tokens',
  google: 'candidatesTokenCount',
};

type Fields = Readonly<Record<string, unknown>>;

const READERS: Readonly<Record<Protocol, (raw: Fields) => Usage | undefined>> = {
  openai: fromOpenAi,
  'openai-compatible': fromOpenAi,
  anthropic: fromAnthropic,
  google: fromGoogle,
};

/** `prompt_tokens` holds what was read from and written to a cache, `completion_tokens` the reasoning. */
function fromOpenAi(raw: Fields): Usage | undefined {
  const { prompt_tokens: prompt, completion_tokens: completion } = raw;
  if (!isCount(prompt) || !isCount(completion)) return undefined;
  const details = toRecord(raw['prompt_tokens_details']);
  // DeepSeek's name for it stands beside the totals.
  const cacheRead = part(details?.['cached_tokens'] ?? raw['prompt_cache_hit_tokens'], prompt);
  const cacheWrite = part(details?.['cache_write_tokens'], prompt - cacheRead);
  const reasoning = count(toRecord(raw['completion_tokens_details'])?.['reasoning_tokens']);
  // Some servers count reasoning beside the completion; only the total tells.
  const isBeside = reasoning > 0 && raw['total_tokens'] === prompt + completion + reasoning;
  const output = isBeside ? completion + reasoning : completion;
  return {
    inputTokens: prompt - cacheRead - cacheWrite,
    cacheReadTokens: cacheRead,
    cacheWrite5mTokens: cacheWrite,
    cacheWrite1hTokens: 0,
    outputTokens: output,
    reasoningTokens: Math.min(reasoning, output),
  };
}

/** `input_tokens` is what no cache touched; `cache_creation` splits the writes by how long they are kept. */
function fromAnthropic(raw: Fields): Usage | undefined {
  const { input_tokens: input, output_tokens: output } = raw;
  if (!isCount(input) || !isCount(output)) return undefined;
  const split = toRecord(raw['cache_creation']);
  const fiveMinutes = count(split?.['ephemeral_5m_input_tokens']);
  const oneHour = count(split?.['ephemeral_1h_input_tokens']);
  const written = Math.max(count(raw['cache_creation_input_tokens']), fiveMinutes + oneHour);
  return {
    inputTokens: input,
    cacheReadTokens: count(raw['cache_read_input_tokens']),
    // What is not said to be kept for an hour is kept for the default, five minutes.
    cacheWrite5mTokens: written - oneHour,
    cacheWrite1hTokens: oneHour,
    outputTokens: output,
    reasoningTokens: part(toRecord(raw['output_tokens_details'])?.['thinking_tokens'], output),
  };
}

/** Zero counts are left out on the wire, all but the prompt's; thoughts stand beside the candidates. */
function fromGoogle(raw: Fields): Usage | undefined {
  const { promptTokenCount: prompt } = raw;
  if (!isCount(prompt)) return undefined;
  const input = prompt + count(raw['toolUsePromptTokenCount']);
  const cacheRead = part(raw['cachedContentTokenCount'], input);
  const thoughts = count(raw['thoughtsTokenCount']);
  return {
    inputTokens: input - cacheRead,
    cacheReadTokens: cacheRead,
    cacheWrite5mTokens: 0,
    cacheWrite1hTokens: 0,
    outputTokens: count(raw['candidatesTokenCount']) + thoughts,
    reasoningTokens: thoughts,
  };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** A detail that may be left out. */
function count(value: unknown): number {
  return isCount(value) ? value : 0;
}

/** A part cannot be more than the whole, or a bucket would go below zero. */
function part(value: unknown, whole: number): number {
  return Math.min(count(value), whole);
}
