// Reads the body of `POST /v1/responses`. References to items of earlier responses are accepted and count for nothing, since this
// provider stores none.

import type { Ask, OfferedTool, PromptMessage } from '../ask.ts';
import {
  isObject,
  type JsonObject,
  optionalFlag,
  optionalList,
  optionalNumber,
  optionalObject,
  optionalText,
  requiredText,
} from '../body-fields.ts';
import { badRequest } from '../problem.ts';
import { MAX_TOKENS, readToolChoice } from './openai-chat-request.ts';

type Item = PromptMessage & { readonly images: number };

export function parseResponsesRequest(body: JsonObject): Ask {
  const instructions = optionalText(body, 'instructions');
  const items = readInput(body['input']);
  const system: Item[] =
    instructions === undefined ? [] : [{ role: 'system', text: instructions, images: 0 }];
  optionalNumber(body, 'temperature', { min: 0, max: 2 });
  const tools = (optionalList(body, 'tools') ?? []).map(readTool).filter((tool) => tool !== undefined);
  return {
    model: requiredText(body, 'model'),
    messages: [...system, ...items].map(({ role, text }) => ({ role, text })),
    images: items.reduce((sum, item) => sum + item.images, 0),
    tools,
    toolChoice: readToolChoice(body['tool_choice'], tools),
    format: readFormat(body),
    maxOutputTokens: optionalNumber(body, 'max_output_tokens', MAX_TOKENS),
    stream: optionalFlag(body, 'stream') ?? false,
    includeUsage: true,
    cacheTtl: '5m',
  };
}

function readInput(input: unknown): Item[] {
  if (typeof input === 'string' && input !== '') return [{ role: 'user', text: input, images: 0 }];
  if (!Array.isArray(input) || input.length === 0) {
    throw badRequest("'input' must be a non-empty string or array", 'input');
  }
  return input.map(readItem).filter((item) => item !== undefined);
}

function readItem(item: unknown, index: number): Item | undefined {
  const path = `input[${index}]`;
  if (!isObject(item)) throw badRequest(`'${path}' must be an object`, path);
  switch (item['type'] ?? 'message') {
    case 'message':
      return readMessage(item, path);
    case 'function_call':
      return {
        role: 'assistant',
        text: `${requiredText(item, 'name')} ${optionalText(item, 'arguments') ?? ''}`,
        images: 0,
      };
    case 'function_call_output':
      return { role: 'tool', ...readContent(item['output'], `${path}.output`) };
    default:
      return undefined;
  }
}

function readMessage(item: JsonObject, path: string): Item {
  const content = readContent(item['content'], `${path}.content`);
  switch (item['role']) {
    case 'system':
    case 'developer':
      return { role: 'system', ...content };
    case 'user':
    case 'assistant':
      return { role: item['role'], ...content };
    default:
      throw badRequest(`'${path}.role' must be system, developer, user or assistant`, `${path}.role`);
  }
}

function readContent(content: unknown, path: string): { text: string; images: number } {
  if (typeof content === 'string') return { text: content, images: 0 };
  if (!Array.isArray(content)) throw badRequest(`'${path}' must be a string or an array`, path);
  const parts = content.filter(isObject);
  const texts = parts.map((part) => part['text']).filter((text) => typeof text === 'string');
  return { text: texts.join('\n'), images: parts.filter((part) => part['type'] === 'input_image').length };
}

/** Tools that the provider itself would run are accepted and never called. */
function readTool(tool: unknown, index: number): OfferedTool | undefined {
  const path = `tools[${index}]`;
  if (!isObject(tool)) throw badRequest(`'${path}' must be an object`, path);
  if (requiredText(tool, 'type', `${path}.type`) !== 'function') return undefined;
  return {
    name: requiredText(tool, 'name', `${path}.name`),
    description: optionalText(tool, 'description', `${path}.description`) ?? '',
    parameters: optionalObject(tool, 'parameters', `${path}.parameters`) ?? { type: 'object' },
  };
}

function readFormat(body: JsonObject): Ask['format'] {
  const text = optionalObject(body, 'text');
  const format = text === undefined ? undefined : optionalObject(text, 'format', 'text.format');
  switch (format?.['type'] ?? 'text') {
    case 'text':
      return { kind: 'text' };
    case 'json_object':
      return { kind: 'json' };
    case 'json_schema': {
      const schema = format && optionalObject(format, 'schema', 'text.format.schema');
      if (schema === undefined) throw badRequest("'text.format.schema' is missing", 'text.format.schema');
      return { kind: 'json', schema };
    }
    default:
      throw badRequest("'text.format.type' must be text, json_object or json_schema", 'text.format.type');
  }
}
