// Google's `generateContent` and `streamGenerateContent`. Errors carry their hint in the body alone, as Google's do, and there are
// no headers about limits.

import type { Reply } from '../ask.ts';
import type { JsonObject } from '../body-fields.ts';
import type { Problem } from '../problem.ts';
import type { ChatDialect } from './chat-endpoint.ts';
import type { ErrorStyle } from './endpoint.ts';
import { parseGenerateRequest } from './google-request.ts';

const STATUS_NAMES: Record<number, string> = {
  400: 'INVALID_ARGUMENT',
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  429: 'RESOURCE_EXHAUSTED',
  499: 'CANCELLED',
  503: 'UNAVAILABLE',
  504: 'DEADLINE_EXCEEDED',
};

const FINISH_REASONS = { stop: 'STOP', tool_call: 'STOP', length: 'MAX_TOKENS', content_filter: 'SAFETY' };

const style: ErrorStyle = {
  idHeader: 'x-request-id',
  body: errorOf,
  headers: () => ({}),
  rateHeaders: () => ({}),
};

/** One dialect for whole answers, one for streams: the path decides, not the body. */
export function googleGenerate(stream: boolean): ChatDialect {
  return {
    name: 'google',
    style,
    tellsCacheWrites: false,
    splitsToolCalls: false,
    parse: (body, model) => parseGenerateRequest(body, model ?? '', stream),
    whole: (reply) => chunk(reply, [part(reply, reply.answer.content.text)], 'ended'),
    stream: (reply, pieces) => ({
      opening: '',
      pieces: pieces.map((piece) => event(chunk(reply, [part(reply, piece)], 'running'))),
      closing: event(chunk(reply, [{ text: '' }], 'ended')),
      error: (problem) => event(errorOf(problem)),
    }),
  };
}

function event(data: JsonObject): string {
  return `data: ${JSON.stringify(data)}\r\n\r\n`;
}

function chunk(reply: Reply, parts: readonly JsonObject[], state: 'running' | 'ended'): JsonObject {
  const isEnded = state === 'ended';
  const finish = isEnded ? { finishReason: FINISH_REASONS[reply.answer.ending] } : {};
  const usage = isEnded && reply.usage !== undefined ? { usageMetadata: usageOf(reply.usage) } : {};
  return {
    candidates: [{ content: { parts, role: 'model' }, index: 0, ...finish }],
    ...usage,
    modelVersion: reply.ask.model,
    responseId: reply.id,
  };
}

function part(reply: Reply, text: string): JsonObject {
  const { content } = reply.answer;
  if (content.kind === 'text') return { text };
  return { functionCall: { name: content.name, args: argumentsOf(text) } };
}

function argumentsOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Cut at `maxOutputTokens`: the wire has no room for half an object, and the finish reason says what happened.
    return {};
  }
}

/** `candidatesTokenCount` is without the thoughts. */
function usageOf(usage: NonNullable<Reply['usage']>): JsonObject {
  return {
    promptTokenCount: usage.inputTokens,
    candidatesTokenCount: usage.outputTokens - usage.reasoningTokens,
    totalTokenCount: usage.inputTokens + usage.outputTokens,
    cachedContentTokenCount: usage.cachedInputTokens,
    thoughtsTokenCount: usage.reasoningTokens,
  };
}

function errorOf(problem: Problem): JsonObject {
  const usual = problem.status >= 500 ? 'INTERNAL' : 'INVALID_ARGUMENT';
  const retry =
    problem.retryAfterMs === undefined
      ? []
      : [
          {
            '@type': 'type.googleapis.com/google.rpc.RetryInfo',
            retryDelay: `${problem.retryAfterMs / 1000}s`,
          },
        ];
  return {
    error: {
      code: problem.status,
      message: problem.message,
      status: STATUS_NAMES[problem.status] ?? usual,
      ...(retry.length > 0 ? { details: retry } : {}),
    },
  };
}
