// OpenAI's chat completions, streamed and whole.

import type { Reply } from '../ask.ts';
import type { JsonObject } from '../body-fields.ts';
import type { ChatDialect } from './chat-endpoint.ts';
import { parseChatRequest } from './openai-chat-request.ts';
import { openaiError, openaiStyle } from './openai-style.ts';

export const openaiChat: ChatDialect = {
  name: 'openai',
  style: openaiStyle,
  tellsCacheWrites: false,
  splitsToolCalls: true,
  parse: parseChatRequest,
  whole(reply) {
    const { content } = reply.answer;
    const isCall = content.kind === 'tool_call';
    const call = {
      id: callId(reply),
      type: 'function',
      function: { name: isCall ? content.name : '', arguments: content.text },
    };
    const message = isCall
      ? { role: 'assistant', content: null, refusal: null, tool_calls: [call] }
      : { role: 'assistant', content: content.text, refusal: null };
    return {
      ...envelope(reply, 'chat.completion'),
      choices: [{ index: 0, message, logprobs: null, finish_reason: finishReason(reply) }],
      ...(reply.usage === undefined ? {} : { usage: usageOf(reply) }),
    };
  },
  stream(reply, pieces) {
    const { content } = reply.answer;
    const isCall = content.kind === 'tool_call';
    const chunk = (delta: JsonObject, finish: string | null = null) =>
      event({
        ...envelope(reply, 'chat.completion.chunk'),
        choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }],
        ...(reply.ask.includeUsage ? { usage: null } : {}),
      });
    const callStart = isCall
      ? chunk({
          tool_calls: [
            {
              index: 0,
              id: callId(reply),
              type: 'function',
              function: { name: content.name, arguments: '' },
            },
          ],
        })
      : '';
    const usage =
      reply.ask.includeUsage && reply.usage !== undefined
        ? event({ ...envelope(reply, 'chat.completion.chunk'), choices: [], usage: usageOf(reply) })
        : '';
    return {
      opening: chunk({ role: 'assistant', content: isCall ? null : '' }) + callStart,
      pieces: pieces.map((piece) =>
        chunk(isCall ? { tool_calls: [{ index: 0, function: { arguments: piece } }] } : { content: piece }),
      ),
      closing: `${chunk({}, finishReason(reply))}${usage}data: [DONE]\n\n`,
      error: (problem) => event(openaiError(problem)),
    };
  },
};

function event(data: JsonObject): string {
  return `data: ${JSON.stringify(data)}\n\n`;
}

function envelope(reply: Reply, object: string): JsonObject {
  return {
    id: `chatcmpl-${reply.id}`,
    object,
    created: reply.createdAt,
    model: reply.ask.model,
    system_fingerprint: 'fp_simulated',
  };
}

function callId(reply: Reply): string {
  return `call_${reply.id}`;
}

function finishReason(reply: Reply): string {
  return reply.answer.ending === 'tool_call' ? 'tool_calls' : reply.answer.ending;
}

function usageOf(reply: Reply): JsonObject {
  const usage = reply.usage;
  return {
    prompt_tokens: usage?.inputTokens,
    completion_tokens: usage?.outputTokens,
    total_tokens: (usage?.inputTokens ?? 0) + (usage?.outputTokens ?? 0),
    prompt_tokens_details: { cached_tokens: usage?.cachedInputTokens, audio_tokens: 0 },
    completion_tokens_details: {
      reasoning_tokens: usage?.reasoningTokens,
      audio_tokens: 0,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  };
}
