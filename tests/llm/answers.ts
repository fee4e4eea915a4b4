// A short good answer of each dialect, as raw bytes: thinking, two pieces of text, usage with cached and reasoning tokens.

import { anthropicSse, chunk, sse, usageChunk } from './wire.ts';

export const OPENAI_ANSWER = sse(
  chunk({ role: 'assistant', content: '' }),
  chunk({ content: 'Hel' }),
  chunk({ content: 'lo.' }),
  chunk({}, 'stop'),
  usageChunk({
    prompt_tokens: 100,
    completion_tokens: 20,
    total_tokens: 120,
    prompt_tokens_details: { cached_tokens: 60 },
    completion_tokens_details: { reasoning_tokens: 12 },
  }),
  'data: [DONE]',
);

export const ANTHROPIC_ANSWER = anthropicSse(
  {
    type: 'message_start',
    message: {
      id: 'msg_1',
      type: 'message',
      role: 'assistant',
      model: 'm',
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: {
        input_tokens: 25,
        cache_read_input_tokens: 300,
        cache_creation_input_tokens: 150,
        cache_creation: { ephemeral_5m_input_tokens: 50, ephemeral_1h_input_tokens: 100 },
        output_tokens: 1,
      },
    },
  },
  {
    type: 'content_block_start',
    index: 0,
    content_block: { type: 'thinking', thinking: '', signature: '' },
  },
  { type: 'ping' },
  { type: 'content_block_delta', index: 0, delta: { type: 'thinking_delta', thinking: 'Hm.' } },
  { type: 'content_block_stop', index: 0 },
  { type: 'content_block_start', index: 1, content_block: { type: 'text', text: '' } },
  { type: 'content_block_delta', index: 1, delta: { type: 'text_delta', text: 'Hel' } },
  { type: 'content_block_delta', index: 1, delta: { type: 'text_delta', text: 'lo.' } },
  { type: 'content_block_stop', index: 1 },
  {
    type: 'message_delta',
    delta: { stop_reason: 'end_turn', stop_sequence: null },
    usage: { output_tokens: 15 },
  },
  { type: 'message_stop' },
);

export const googleChunk = (parts: object[], usageMetadata: object, finishReason?: string) => ({
  candidates: [{ content: { role: 'model', parts }, index: 0, ...(finishReason ? { finishReason } : {}) }],
  usageMetadata,
  modelVersion: 'm',
  responseId: 'r1',
});

export const GOOGLE_ANSWER = sse(
  googleChunk([{ text: 'Hm.', thought: true }], { promptTokenCount: 100, totalTokenCount: 100 }),
  googleChunk([{ text: 'Hel' }], { promptTokenCount: 100, candidatesTokenCount: 2 }),
  googleChunk(
    [{ text: 'lo.' }],
    { promptTokenCount: 100, cachedContentTokenCount: 40, candidatesTokenCount: 4, thoughtsTokenCount: 9 },
    'STOP',
  ),
);
