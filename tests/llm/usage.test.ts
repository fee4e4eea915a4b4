// Usage of each dialect in disjoint buckets: nothing twice, zero kept apart from absent, and nonsense taken for absent.

import { expect, test } from 'vitest';
import type { Protocol } from '../../src/llm/protocol.ts';
import { rawUsageOf, toUsage } from '../../src/llm/usage.ts';
import { NO_USAGE, type Usage } from '../../src/task/usage.ts';

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
