// Usage of each dialect in disjoint buckets: nothing twice, zero kept apart from absent, and nonsense taken for absent.

import { expect, test } from 'vitest';
import type { Protocol } from '../../src/llm/protocol.ts';
import { rawUsageOf, toUsage } from '../../src/llm/usage.ts';
import { costNanoUsd } from '../../src/task/price.ts';
import { NO_USAGE, totalInputTokens, type Usage } from '../../src/task/usage.ts';

const row = (what: string, protocol: Protocol, raw: object, usage: Partial<Usage>) =>
  [what, protocol, raw, { ...NO_USAGE, ...usage }] as const;

test.each([
  row('openai', 'openai', { prompt_tokens: 10, completion_tokens: 5 }, { inputTokens: 10, outputTokens: 5 }),
  row(
    'openai with parts',
    'openai',
    {
      prompt_tokens: 100,
      completion_tokens: 50,
      total_tokens: 150,
      prompt_tokens_details: { cached_tokens: 60, cache_write_tokens: 30 },
      completion_tokens_details: { reasoning_tokens: 40 },
    },
    { inputTokens: 10, cacheReadTokens: 60, cacheWrite5mTokens: 30, outputTokens: 50, reasoningTokens: 40 },
  ),
  row(
    'deepseek',
    'openai-compatible',
    { prompt_tokens: 100, completion_tokens: 5, prompt_cache_hit_tokens: 64 },
    { inputTokens: 36, cacheReadTokens: 64, outputTokens: 5 },
  ),
  row(
    'reasoning beside the completion',
    'openai-compatible',
    {
      prompt_tokens: 10,
      completion_tokens: 5,
      total_tokens: 45,
      completion_tokens_details: { reasoning_tokens: 30 },
    },
    { inputTokens: 10, outputTokens: 35, reasoningTokens: 30 },
  ),
  row(
    'more cached than there is',
    'openai',
    {
      prompt_tokens: 10,
      completion_tokens: 5,
      prompt_tokens_details: { cached_tokens: 99, cache_write_tokens: 9 },
    },
    { cacheReadTokens: 10, outputTokens: 5 },
  ),
  row(
    'details without values',
    'openai',
    {
      prompt_tokens: 10,
      completion_tokens: 5,
      prompt_tokens_details: null,
      completion_tokens_details: { reasoning_tokens: null },
    },
    { inputTokens: 10, outputTokens: 5 },
  ),
  row('zeros', 'openai', { prompt_tokens: 0, completion_tokens: 0 }, {}),
  row(
    'anthropic',
    'anthropic',
    {
      input_tokens: 10,
      output_tokens: 50,
      cache_read_input_tokens: 200,
      cache_creation_input_tokens: 150,
      cache_creation: { ephemeral_5m_input_tokens: 50, ephemeral_1h_input_tokens: 100 },
      output_tokens_details: { thinking_tokens: 30 },
    },
    {
      inputTokens: 10,
      cacheReadTokens: 200,
      cacheWrite5mTokens: 50,
      cacheWrite1hTokens: 100,
      outputTokens: 50,
      reasoningTokens: 30,
    },
  ),
  row(
    'anthropic without the split',
    'anthropic',
    { input_tokens: 10, output_tokens: 5, cache_creation_input_tokens: 150, cache_creation: null },
    { inputTokens: 10, cacheWrite5mTokens: 150, outputTokens: 5 },
  ),
  row(
    'anthropic with the split alone',
    'anthropic',
    {
      input_tokens: 10,
      output_tokens: 5,
      cache_creation: { ephemeral_5m_input_tokens: 7, ephemeral_1h_input_tokens: 8 },
    },
    { inputTokens: 10, cacheWrite5mTokens: 7, cacheWrite1hTokens: 8, outputTokens: 5 },
  ),
  row(
    'google',
    'google',
    {
      promptTokenCount: 100,
      toolUsePromptTokenCount: 5,
      cachedContentTokenCount: 40,
      candidatesTokenCount: 7,
      thoughtsTokenCount: 9,
    },
    { inputTokens: 65, cacheReadTokens: 40, outputTokens: 16, reasoningTokens: 9 },
  ),
  row('google without output', 'google', { promptTokenCount: 100 }, { inputTokens: 100 }),
])('toUsage takes %s apart', (_, protocol, raw, usage) => expect(toUsage(protocol, raw)).toEqual(usage));

test.each<[string, Protocol, object]>([
  ['openai', 'openai', { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 }],
  [
    'openai with its details',
    'openai',
    {
      prompt_tokens: 0,
      completion_tokens: 0,
      prompt_tokens_details: { cached_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 0 },
    },
  ],
  ['openai-compatible', 'openai-compatible', { prompt_tokens: 0, completion_tokens: 0 }],
  ['deepseek', 'openai-compatible', { prompt_tokens: 0, completion_tokens: 0, prompt_cache_hit_tokens: 0 }],
  ['anthropic', 'anthropic', { input_tokens: 0, output_tokens: 0 }],
  [
    'anthropic with its details',
    'anthropic',
    {
      input_tokens: 0,
      output_tokens: 0,
      cache_read_input_tokens: 0,
      cache_creation_input_tokens: 0,
      cache_creation: { ephemeral_5m_input_tokens: 0, ephemeral_1h_input_tokens: 0 },
    },
  ],
  ['google', 'google', { promptTokenCount: 0, candidatesTokenCount: 0 }],
])('an explicit zero of %s is measured as zero, not taken for absent', (_, protocol, raw) => {
  expect(toUsage(protocol, raw)).toEqual(NO_USAGE);
});

/** Each says: 1,000 tokens in, 800 of them read from a cache; 10 out. */
test.each<[string, Protocol, object]>([
  [
    'openai',
    'openai',
    { prompt_tokens: 1_000, completion_tokens: 10, prompt_tokens_details: { cached_tokens: 800 } },
  ],
  [
    'deepseek',
    'openai-compatible',
    {
      prompt_tokens: 1_000,
      completion_tokens: 10,
      prompt_cache_hit_tokens: 800,
      prompt_cache_miss_tokens: 200,
    },
  ],
  [
    'a server that tells the hits twice',
    'openai-compatible',
    {
      prompt_tokens: 1_000,
      completion_tokens: 10,
      prompt_tokens_details: { cached_tokens: 800 },
      prompt_cache_hit_tokens: 800,
    },
  ],
  ['anthropic', 'anthropic', { input_tokens: 200, output_tokens: 10, cache_read_input_tokens: 800 }],
  [
    'google',
    'google',
    {
      promptTokenCount: 1_000,
      candidatesTokenCount: 10,
      cachedContentTokenCount: 800,
      totalTokenCount: 1_010,
    },
  ],
])('a cached prefix of %s is priced once, at the price of the cache', (_, protocol, raw) => {
  const price = { input: 1_000_000_000n, cachedInput: 100_000_000n, output: 2_000_000_000n };
  const entry = { ...price, validFromMs: 0, cacheWrite5m: 0n, cacheWrite1h: 0n, above: [] };
  const usage = toUsage(protocol, raw);
  if (usage === undefined) throw new Error('no usage');
  expect(totalInputTokens(usage)).toBe(1_000);
  expect(costNanoUsd(entry, usage)).toBe(200n * 1_000n + 800n * 100n + 10n * 2_000n);
});

/** Each says: 1,000 tokens in, 600 of them written to a cache for later; 10 out. */
test.each<[string, Protocol, object]>([
  [
    'openai',
    'openai',
    { prompt_tokens: 1_000, completion_tokens: 10, prompt_tokens_details: { cache_write_tokens: 600 } },
  ],
  [
    'anthropic',
    'anthropic',
    {
      input_tokens: 400,
      output_tokens: 10,
      cache_creation_input_tokens: 600,
      cache_creation: { ephemeral_5m_input_tokens: 600, ephemeral_1h_input_tokens: 0 },
    },
  ],
])('a prefix that %s wrote to its cache is priced once, at the price of writing', (_, protocol, raw) => {
  const price = { input: 1_000_000_000n, cachedInput: 0n, cacheWrite5m: 1_250_000_000n, cacheWrite1h: 0n };
  const usage = toUsage(protocol, raw);
  if (usage === undefined) throw new Error('no usage');
  expect(costNanoUsd({ ...price, output: 0n, validFromMs: 0, above: [] }, usage)).toBe(
    400n * 1_000n + 600n * 1_250n,
  );
});

test.each<[string, Protocol, (input: number) => object]>([
  ['openai', 'openai', (input) => ({ prompt_tokens: input, completion_tokens: 0 })],
  [
    'openai, half of them cached',
    'openai',
    (input) => ({
      prompt_tokens: input,
      completion_tokens: 0,
      prompt_tokens_details: { cached_tokens: 100_000 },
    }),
  ],
  ['openai-compatible', 'openai-compatible', (input) => ({ prompt_tokens: input, completion_tokens: 0 })],
  ['anthropic', 'anthropic', (input) => ({ input_tokens: input, output_tokens: 0 })],
  [
    'anthropic, most of them cached',
    'anthropic',
    (input) => ({ input_tokens: input - 150_000, output_tokens: 0, cache_read_input_tokens: 150_000 }),
  ],
  ['google', 'google', (input) => ({ promptTokenCount: input })],
  [
    'google, some of them for tools',
    'google',
    (input) => ({ promptTokenCount: input - 5, toolUsePromptTokenCount: 5 }),
  ],
])('200,000 input tokens of %s take the base price and 200,001 that of the row above', (_, protocol, raw) => {
  const row = { input: 1_000_000n, cachedInput: 1_000_000n, cacheWrite5m: 0n, cacheWrite1h: 0n, output: 0n };
  const entry = { ...row, validFromMs: 0, above: [{ inputTokens: 200_000, input: 2_000_000n, output: 0n }] };
  const cost = (input: number) => costNanoUsd(entry, toUsage(protocol, raw(input)) ?? NO_USAGE);
  expect([cost(200_000), cost(200_001)]).toEqual([200_000n, 400_002n]);
});

test.each<[string, Protocol, unknown]>([
  ['nothing', 'openai', undefined],
  ['null', 'anthropic', null],
  ['an empty object', 'google', {}],
  ['input alone', 'openai', { prompt_tokens: 10 }],
  ['output alone', 'anthropic', { output_tokens: 10 }],
  ['a negative count', 'openai', { prompt_tokens: -1, completion_tokens: 5 }],
  ['a fraction', 'openai', { prompt_tokens: 1.5, completion_tokens: 5 }],
  ['a text', 'anthropic', { input_tokens: '10', output_tokens: 5 }],
  ['a count beyond integers', 'google', { promptTokenCount: 1e300 }],
])('toUsage knows no usage from %s', (_, protocol, raw) => expect(toUsage(protocol, raw)).toBeUndefined());

test('rawUsageOf finds the usage of a chunk in every dialect', () => {
  expect(rawUsageOf('openai', { usage: { prompt_tokens: 1 } })).toEqual({ prompt_tokens: 1 });
  expect(rawUsageOf('openai-compatible', { usage: null })).toBeUndefined();
  expect(rawUsageOf('anthropic', { type: 'message_start', message: { usage: { input_tokens: 1 } } })).toEqual(
    {
      input_tokens: 1,
    },
  );
  expect(rawUsageOf('anthropic', { type: 'message_delta', usage: { output_tokens: 2 } })).toEqual({
    output_tokens: 2,
  });
  expect(rawUsageOf('google', { usageMetadata: { promptTokenCount: 1 } })).toEqual({ promptTokenCount: 1 });
  expect(rawUsageOf('google', 'text')).toBeUndefined();
});
