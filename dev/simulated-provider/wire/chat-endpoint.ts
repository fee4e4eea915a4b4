// Makes an endpoint of a chat dialect: composes the answer, cuts it into pieces, and counts what is out after each.

import { composeAnswer } from '../answer/compose-answer.ts';
import { type Answer, type Ask, countInputTokens, promptText, type Reply } from '../ask.ts';
import type { JsonObject } from '../body-fields.ts';
import type { CacheUse } from '../prompt-cache.ts';
import type { LoggedUsage } from '../request-log.ts';
import { runningTokens, splitByTokens } from '../tokens.ts';
import type { Composed, Endpoint, Envelope, ErrorStyle, StreamParts } from './endpoint.ts';

export type ChatDialect = {
  readonly name: string;
  readonly style: ErrorStyle;
  /** Whether usage tells of tokens written to the prompt cache. */
  readonly tellsCacheWrites: boolean;
  /** Whether the arguments of a tool call are streamed in pieces. */
  readonly splitsToolCalls: boolean;
  parse(body: JsonObject, model: string | undefined): Ask;
  whole(reply: Reply): JsonObject;
  stream(reply: Reply, pieces: readonly string[]): StreamParts;
};

export function chatEndpoint(dialect: ChatDialect): Endpoint {
  return {
    style: dialect.style,
    read(body, model) {
      const ask = dialect.parse(body, model);
      return {
        model: ask.model,
        prompt: ask.messages.map((message) => message.text).join('\n'),
        stream: ask.stream,
        compose: (shape) => composeChat(dialect, ask, shape),
      };
    },
  };
}

function composeChat(
  dialect: ChatDialect,
  ask: Ask,
  shape: Parameters<ReturnType<Endpoint['read']>['compose']>[0],
): Composed {
  const answer = composeAnswer(ask, shape);
  const inputTokens = countInputTokens(ask);
  const text = answer.content.text;
  const isWhole = answer.content.kind === 'tool_call' && !dialect.splitsToolCalls;
  const pieces = isWhole ? [text] : splitByTokens(text, shape.tokensPerChunk);
  return {
    inputTokens,
    outputTokens: answer.outputTokens,
    tokensAfter: runningTokens(pieces).map((tokens) => answer.reasoningTokens + tokens),
    cacheable: { space: `${dialect.name} ${ask.model}`, text: promptText(ask) },
    deliver(cache, envelope) {
      const usage = usageOf(
        inputTokens,
        answer,
        dialect.tellsCacheWrites ? cache : { ...cache, writtenTokens: 0 },
      );
      const reply = replyOf(ask, answer, envelope, shape.omitUsage ? undefined : usage);
      return { usage, whole: () => dialect.whole(reply), stream: () => dialect.stream(reply, pieces) };
    },
  };
}

function usageOf(inputTokens: number, answer: Answer, cache: CacheUse): LoggedUsage {
  return {
    inputTokens,
    cachedInputTokens: Math.min(cache.readTokens, inputTokens),
    cacheWriteTokens: cache.writtenTokens,
    outputTokens: answer.outputTokens,
    reasoningTokens: answer.reasoningTokens,
  };
}

function replyOf(ask: Ask, answer: Answer, envelope: Envelope, usage: LoggedUsage | undefined): Reply {
  return { ...envelope, ask, answer, usage };
}
