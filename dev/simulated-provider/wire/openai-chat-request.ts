// Reads the body of `POST /v1/chat/completions` and refuses what OpenAI would refuse.

import type { Ask, OfferedTool, PromptMessage, ToolChoice } from '../ask.ts';
import {
  isObject,
  type JsonObject,
  optionalFlag,
  optionalList,
  optionalNumber,
  optionalObject,
  optionalText,
  requiredObjects,
  requiredText,
} from '../body-fields.ts';
import { badRequest } from '../problem.ts';

export const MAX_TOKENS = { min: 1, max: 10_000_000, integer: true };

const ROLES: Record<string, PromptMessage['role']> = {
  system: 'system',
  developer: 'system',
  user: 'user',
  assistant: 'assistant',
  tool: 'tool',
  function: 'tool',
};

export function parseChatRequest(body: JsonObject): Ask {
  const model = requiredText(body, 'model');
  const messages = requiredObjects(body, 'messages').map(readMessage);
  optionalNumber(body, 'temperature', { min: 0, max: 2 });
  optionalNumber(body, 'top_p', { min: 0, max: 1 });
  if ((optionalNumber(body, 'n', { min: 1, max: 128, integer: true }) ?? 1) > 1) {
    throw badRequest("'n' above 1 is not supported by this provider", 'n');
  }
  const stream = optionalFlag(body, 'stream') ?? false;
  const streamOptions = optionalObject(body, 'stream_options');
  if (streamOptions !== undefined && !stream) {
    throw badRequest("'stream_options' is only allowed when 'stream' is true", 'stream_options');
  }
  const tools = (optionalList(body, 'tools') ?? []).map(readTool);
  const maxTokens = optionalNumber(body, 'max_tokens', MAX_TOKENS);
  return {
    model,
    messages: messages.map(({ role, text }) => ({ role, text })),
    images: messages.reduce((sum, message) => sum + message.images, 0),
    tools,
    toolChoice: readToolChoice(body['tool_choice'], tools),
    format: readFormat(body),
    maxOutputTokens: optionalNumber(body, 'max_completion_tokens', MAX_TOKENS) ?? maxTokens,
    stream,
    includeUsage: streamOptions
      ? (optionalFlag(streamOptions, 'include_usage', 'stream_options.include_usage') ?? false)
      : false,
    cacheTtl: '5m',
  };
}

function readMessage(message: JsonObject, index: number): PromptMessage & { images: number } {
  const path = `messages[${index}]`;
  const given = message['role'];
  const role = typeof given === 'string' && Object.hasOwn(ROLES, given) ? ROLES[given] : undefined;
  if (role === undefined)
    throw badRequest(`'${path}.role' must be one of ${Object.keys(ROLES).join(', ')}`, `${path}.role`);
  if (given === 'tool') requiredText(message, 'tool_call_id', `${path}.tool_call_id`);
  const calls = (optionalList(message, 'tool_calls', `${path}.tool_calls`) ?? [])
    .filter(isObject)
    .map((call) => {
      const called = optionalObject(call, 'function') ?? {};
      return `${requiredText(called, 'name', `${path}.tool_calls.function.name`)} ${optionalText(called, 'arguments') ?? ''}`;
    });
  const content = readContent(message['content'] ?? undefined, `${path}.content`);
  if (content === undefined && calls.length === 0)
    throw badRequest(`'${path}.content' must be a string or an array`, `${path}.content`);
  return { role, text: [content?.text ?? '', ...calls].join('\n').trim(), images: content?.images ?? 0 };
}

function readContent(content: unknown, path: string): { text: string; images: number } | undefined {
  if (content === undefined) return undefined;
  if (typeof content === 'string') return { text: content, images: 0 };
  if (!Array.isArray(content)) throw badRequest(`'${path}' must be a string or an array`, path);
  const parts = content.map((part: unknown, index) => {
    const partPath = `${path}[${index}]`;
    if (!isObject(part)) throw badRequest(`'${partPath}' must be an object`, partPath);
    return { part, type: requiredText(part, 'type', `${partPath}.type`), partPath };
  });
  const texts = parts
    .filter(({ type }) => type === 'text')
    .map(({ part, partPath }) => optionalText(part, 'text', `${partPath}.text`) ?? '');
  return { text: texts.join('\n'), images: parts.filter(({ type }) => type === 'image_url').length };
}

function readTool(tool: unknown, index: number): OfferedTool {
  const path = `tools[${index}]`;
  if (!isObject(tool)) throw badRequest(`'${path}' must be an object`, path);
  const described = optionalObject(tool, 'function', `${path}.function`);
  if (tool['type'] !== 'function' || described === undefined)
    throw badRequest(`'${path}' must be a function tool`, path);
  return {
    name: requiredText(described, 'name', `${path}.function.name`),
    description: optionalText(described, 'description', `${path}.function.description`) ?? '',
    parameters: optionalObject(described, 'parameters', `${path}.function.parameters`) ?? { type: 'object' },
  };
}

export function readToolChoice(choice: unknown, tools: readonly OfferedTool[]): ToolChoice {
  if (choice === undefined || choice === null) return { kind: 'auto' };
  if (tools.length === 0 && choice !== 'none')
    throw badRequest("'tool_choice' is only allowed with 'tools'", 'tool_choice');
  if (choice === 'auto' || choice === 'none' || choice === 'required') return { kind: choice };
  const named = isObject(choice)
    ? (optionalObject(choice, 'function', 'tool_choice.function') ?? choice)
    : undefined;
  if (named === undefined)
    throw badRequest("'tool_choice' must be none, auto, required or a function", 'tool_choice');
  return { kind: 'named', name: requiredText(named, 'name', 'tool_choice.name') };
}

function readFormat(body: JsonObject): Ask['format'] {
  const format = optionalObject(body, 'response_format');
  switch (format?.['type']) {
    case undefined:
      if (format !== undefined) throw badRequest("'response_format.type' is missing", 'response_format.type');
      return { kind: 'text' };
    case 'text':
      return { kind: 'text' };
    case 'json_object':
      return { kind: 'json' };
    case 'json_schema': {
      const named =
        format === undefined
          ? undefined
          : optionalObject(format, 'json_schema', 'response_format.json_schema');
      const schema = named && optionalObject(named, 'schema', 'response_format.json_schema.schema');
      if (schema === undefined)
        throw badRequest("'response_format.json_schema.schema' is missing", 'response_format');
      return { kind: 'json', schema };
    }
    default:
      throw badRequest(
        "'response_format.type' must be text, json_object or json_schema",
        'response_format.type',
      );
  }
}
