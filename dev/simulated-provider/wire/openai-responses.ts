// OpenAI's Responses API, streamed and whole: one message or one function call a response.

import type { Reply } from '../ask.ts';
import type { JsonObject } from '../body-fields.ts';
import type { ChatDialect } from './chat-endpoint.ts';
import { parseResponsesRequest } from './openai-responses-request.ts';
import { openaiError, openaiStyle } from './openai-style.ts';

export const openaiResponses: ChatDialect = {
  name: 'openai',
  style: openaiStyle,
  tellsCacheWrites: false,
  splitsToolCalls: true,
  parse: parseResponsesRequest,
  whole: (reply) => response(reply, 'ended'),
  stream(reply, pieces) {
    const isCall = reply.answer.content.kind === 'tool_call';
    const kind = isCall ? 'function_call_arguments' : 'output_text';
    const at = { item_id: itemId(reply), output_index: 0, ...(isCall ? {} : { content_index: 0 }) };
    const emptyPart = { type: 'output_text', text: '', annotations: [] };
    const opening = [
      { type: 'response.created', response: response(reply, 'begun') },
      { type: 'response.in_progress', response: response(reply, 'begun') },
      { type: 'response.output_item.added', output_index: 0, item: item(reply, 'begun') },
      ...(isCall ? [] : [{ type: 'response.content_part.added', ...at, part: emptyPart }]),
    ];
    const text = reply.answer.content.text;
    const done = isCall
      ? [{ type: `response.${kind}.done`, ...at, arguments: text }]
      : [
          { type: `response.${kind}.done`, ...at, text },
          { type: 'response.content_part.done', ...at, part: { ...emptyPart, text } },
        ];
    const closing = [
      ...done,
      { type: 'response.output_item.done', output_index: 0, item: item(reply, 'ended') },
      {
        type: isIncomplete(reply) ? 'response.incomplete' : 'response.completed',
        response: response(reply, 'ended'),
      },
    ];
    const first = opening.length;
    return {
      opening: events(opening, 0),
      pieces: pieces.map((delta, index) =>
        events([{ type: `response.${kind}.delta`, ...at, delta }], first + index),
      ),
      closing: events(closing, first + pieces.length),
      error(problem, afterPieces) {
        const error = openaiError(problem)['error'];
        return events([{ ...(error as JsonObject), type: 'error' }], first + afterPieces);
      },
    };
  },
};

function events(list: readonly JsonObject[], firstNumber: number): string {
  return list
    .map((data, index) => {
      const numbered = { ...data, sequence_number: firstNumber + index };
      return `event: ${String(data['type'])}\ndata: ${JSON.stringify(numbered)}\n\n`;
    })
    .join('');
}

function response(reply: Reply, state: 'begun' | 'ended'): JsonObject {
  const isEnded = state === 'ended';
  const reason = reply.answer.ending === 'content_filter' ? 'content_filter' : 'max_output_tokens';
  const endStatus = isIncomplete(reply) ? 'incomplete' : 'completed';
  return {
    id: `resp_${reply.id}`,
    object: 'response',
    created_at: reply.createdAt,
    status: isEnded ? endStatus : 'in_progress',
    error: null,
    incomplete_details: isEnded && isIncomplete(reply) ? { reason } : null,
    model: reply.ask.model,
    output: isEnded ? [item(reply, 'ended')] : [],
    usage: isEnded && reply.usage !== undefined ? usageOf(reply.usage) : null,
  };
}

function item(reply: Reply, state: 'begun' | 'ended'): JsonObject {
  const { content } = reply.answer;
  const isEnded = state === 'ended';
  const fields = { id: itemId(reply), status: isEnded ? 'completed' : 'in_progress' };
  if (content.kind === 'tool_call') {
    const call = { call_id: `call_${reply.id}`, name: content.name, arguments: isEnded ? content.text : '' };
    return { type: 'function_call', ...fields, ...call };
  }
  const part = { type: 'output_text', text: content.text, annotations: [] };
  return { type: 'message', ...fields, role: 'assistant', content: isEnded ? [part] : [] };
}

function itemId(reply: Reply): string {
  return `${reply.answer.content.kind === 'tool_call' ? 'fc' : 'msg'}_${reply.id}`;
}

function isIncomplete(reply: Reply): boolean {
  return reply.answer.ending === 'length' || reply.answer.ending === 'content_filter';
}

function usageOf(usage: NonNullable<Reply['usage']>): JsonObject {
  return {
    input_tokens: usage.inputTokens,
    input_tokens_details: { cached_tokens: usage.cachedInputTokens },
    output_tokens: usage.outputTokens,
    output_tokens_details: { reasoning_tokens: usage.reasoningTokens },
    total_tokens: usage.inputTokens + usage.outputTokens,
  };
}
