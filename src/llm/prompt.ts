// A conversation and the wanted shape of the answer in the AI SDK's terms. Pure. It must not change what was asked, only where it
// stands on the wire.

import { type JSONSchema7, type ModelMessage, Output, type OutputInterface } from 'ai';
import { type Message, messageText, type ResponseFormat } from '../task/message.ts';
import type { Protocol } from './protocol.ts';

/** Anthropic has no word for "any JSON object"; this stands in for it. */
const JSON_INSTRUCTION = 'Answer with one JSON object and nothing else.';

/** Protocols that take instructions only ahead of the conversation. */
const SYSTEM_FIRST: ReadonlySet<Protocol> = new Set(['anthropic', 'google']);

/** Anthropic keeps no prefix below 1,024 tokens, which are about so many bytes. */
const LEAST_CACHED_BYTES = 4_096;
const CACHED = { anthropic: { cacheControl: { type: 'ephemeral' } } } as const;

/** The messages in the order that the protocol takes them, with marks where it wants to be told what to cache. */
export function toModelMessages(
  protocol: Protocol,
  messages: readonly Message[],
  {
    responseFormat,
    isCached,
  }: { readonly responseFormat: ResponseFormat | undefined; readonly isCached: boolean },
): ModelMessage[] {
  const asked = messages.map(toModelMessage);
  const isBareJson = protocol === 'anthropic' && responseFormat?.type === 'json';
  const all = isBareJson ? [...asked, { role: 'system', content: JSON_INSTRUCTION } as const] : asked;
  if (!SYSTEM_FIRST.has(protocol)) return all;
  const ordered = [
    ...all.filter(({ role }) => role === 'system'),
    ...all.filter(({ role }) => role !== 'system'),
  ];
  return protocol === 'anthropic' && isCached ? markPrefixes(ordered) : ordered;
}

/**
 * The others cache by themselves. Writing costs more than reading fresh, so that only what is likely to come again is marked: long
 * instructions, and a long conversation up to its newest message.
 */
function markPrefixes(messages: readonly ModelMessage[]): ModelMessage[] {
  const ends = [messages.findLastIndex(({ role }) => role === 'system'), messages.length - 2];
  const marked = ends.filter((end) => end >= 0 && bytesUntil(messages, end) >= LEAST_CACHED_BYTES);
  return messages.map((message, index) =>
    marked.includes(index) ? { ...message, providerOptions: CACHED } : message,
  );
}

function bytesUntil(messages: readonly ModelMessage[], end: number): number {
  return messages
    .slice(0, end + 1)
    .reduce((sum, { content }) => sum + (typeof content === 'string' ? Buffer.byteLength(content) : 0), 0);
}

/**
 * How the answer's shape is asked for; undefined for free text. The AI SDK's own JSON outputs parse the whole text again at every
 * chunk and hold chunks back: this one lets the text through as it comes.
 */
export function toOutput(
  responseFormat: ResponseFormat | undefined,
): OutputInterface<string, string, never> | undefined {
  switch (responseFormat?.type) {
    case undefined:
    case 'text':
      return undefined;
    case 'json':
      return { ...Output.text(), responseFormat: Promise.resolve({ type: 'json' }) };
    case 'json_schema': {
      const { name, schema } = responseFormat;
      // Checked as far as a JSON object; what it says as a schema is the provider's to judge.
      const jsonSchema = schema as JSONSchema7;
      return {
        ...Output.text(),
        responseFormat: Promise.resolve({
          type: 'json',
          schema: jsonSchema,
          ...(name === undefined ? {} : { name }),
        }),
      };
    }
    default:
      return responseFormat satisfies never;
  }
}

/**
 * Whether OpenAI can hold an answer to the schema strictly: it refuses any whose objects are open or have optional properties. Others
 * are sent as a wish.
 */
export function isStrictSchema(schema: unknown): boolean {
  if (Array.isArray(schema)) return schema.every(isStrictSchema);
  if (typeof schema !== 'object' || schema === null) return true;
  const { properties, additionalProperties, required } = schema as Record<string, unknown>;
  if (typeof properties === 'object' && properties !== null) {
    const names: readonly unknown[] = Array.isArray(required) ? required : [];
    const isClosed = additionalProperties === false;
    if (!isClosed || !Object.keys(properties).every((name) => names.includes(name))) return false;
  }
  return Object.values(schema).every(isStrictSchema);
}

function toModelMessage(message: Message): ModelMessage {
  const content = messageText(message);
  // A tool's answer without the call that it answers has no place of its own on any wire: the model reads it as text.
  if (message.role === 'tool') return { role: 'user', content };
  return { role: message.role, content };
}
