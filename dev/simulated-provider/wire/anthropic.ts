// Anthropic's messages, streamed and whole. Long prompts are always cached, as if every request asked for it.

import type { Reply } from '../ask.ts';
import type { JsonObject } from '../body-fields.ts';
import type { Problem } from '../problem.ts';
import type { LimitState } from '../rate-limits.ts';
import { parseMessagesRequest } from './anthropic-request.ts';
import type { ChatDialect } from './chat-endpoint.ts';
import type { ErrorStyle } from './endpoint.ts';
import { retryHeaders } from './openai-style.ts';

const ERROR_TYPES: Record<number, string> = {
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  504: 'timeout_error',
  529: 'overloaded_error',
};

const STOP_REASONS = {
  stop: 'end_turn',
  length: 'max_tokens',
  tool_call: 'tool_use',
  content_filter: 'refusal',
};

const style: ErrorStyle = {
  idHeader: 'request-id',
  body: (problem, requestId) => ({ type: 'error', error: errorOf(problem), request_id: requestId }),
  headers: (problem) => retryHeaders(problem.retryAfterMs),
  rateHeaders: (state) => ({
    ...limitHeaders('requests', state.requests),
    ...limitHeaders('tokens', state.tokens),
  }),
};

export const anthropicMessages: ChatDialect = {
  name: 'anthropic',
  style,
  tellsCacheWrites: true,
  splitsToolCalls: true,
  parse: parseMessagesRequest,
  whole: (reply) => ({
    ...message(reply),
    content: [block(reply, reply.answer.content.text)],
    stop_reason: STOP_REASONS[reply.answer.ending],
    usage: { ...inputUsage(reply), ...outputUsage(reply) },
  }),
  stream(reply, pieces) {
    const isCall = reply.answer.content.kind === 'tool_call';
    const start = {
      ...message(reply),
      content: [],
      stop_reason: null,
      usage: { ...inputUsage(reply), output_tokens: 1 },
    };
    const delta = (piece: string) =>
      isCall ? { type: 'input_json_delta', partial_json: piece } : { type: 'text_delta', text: piece };
    return {
      opening:
        event({ type: 'message_start', message: start }) +
        event({ type: 'content_block_start', index: 0, content_block: block(reply, undefined) }) +
        event({ type: 'ping' }),
      pieces: pieces.map((piece) => event({ type: 'content_block_delta', index: 0, delta: delta(piece) })),
      closing:
        event({ type: 'content_block_stop', index: 0 }) +
        event({
          type: 'message_delta',
          delta: { stop_reason: STOP_REASONS[reply.answer.ending], stop_sequence: null },
          usage: { ...inputUsage(reply), ...outputUsage(reply) },
        }) +
        event({ type: 'message_stop' }),
      error: (problem) => event({ type: 'error', error: errorOf(problem) }),
    };
  },
};

function event(data: JsonObject): string {
  return `event: ${String(data['type'])}\ndata: ${JSON.stringify(data)}\n\n`;
}

function errorOf(problem: Problem): JsonObject {
  const usual = problem.status >= 500 ? 'api_error' : 'invalid_request_error';
  const asked = problem.code?.endsWith('_error') === true ? problem.code : undefined;
  const quota = problem.code === 'insufficient_quota' ? 'billing_error' : undefined;
  return { type: asked ?? quota ?? ERROR_TYPES[problem.status] ?? usual, message: problem.message };
}

function message(reply: Reply): JsonObject {
  return {
    id: `msg_${reply.id}`,
    type: 'message',
    role: 'assistant',
    model: reply.ask.model,
    stop_sequence: null,
  };
}

/** The one block of an answer; without a text, as it stands at the start of a stream. */
function block(reply: Reply, text: string | undefined): JsonObject {
  const { content } = reply.answer;
  if (content.kind === 'text') return { type: 'text', text: text ?? '' };
  const input = text === undefined ? {} : argumentsOf(text);
  return { type: 'tool_use', id: `toolu_${reply.id}`, name: content.name, input };
}

function argumentsOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Cut at `max_tokens`: the wire has no room for half an object, and the stop reason says what happened.
    return {};
  }
}

/** `input_tokens` is what was neither read from the cache nor written to it. */
function inputUsage(reply: Reply): JsonObject {
  const usage = reply.usage;
  const [total, read, written] = [
    usage?.inputTokens ?? 0,
    usage?.cachedInputTokens ?? 0,
    usage?.cacheWriteTokens ?? 0,
  ];
  const isHour = reply.ask.cacheTtl === '1h';
  return {
    input_tokens: total - read - written,
    cache_read_input_tokens: read,
    cache_creation_input_tokens: written,
    cache_creation: {
      ephemeral_5m_input_tokens: isHour ? 0 : written,
      ephemeral_1h_input_tokens: isHour ? written : 0,
    },
    service_tier: 'standard',
  };
}

function outputUsage(reply: Reply): JsonObject {
  return {
    output_tokens: reply.usage?.outputTokens ?? 0,
    output_tokens_details: { thinking_tokens: reply.usage?.reasoningTokens ?? 0 },
  };
}

function limitHeaders(name: string, state: LimitState): Record<string, string> {
  if (state.limit === Infinity) return {};
  return {
    [`anthropic-ratelimit-${name}-limit`]: String(state.limit),
    [`anthropic-ratelimit-${name}-remaining`]: String(state.remaining),
    [`anthropic-ratelimit-${name}-reset`]: new Date(Date.now() + state.resetMs).toISOString(),
  };
}
