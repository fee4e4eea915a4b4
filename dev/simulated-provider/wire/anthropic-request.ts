// Reads the body of `POST /v1/messages` and refuses what Anthropic would refuse.

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

type Part = { readonly role: PromptMessage['role']; readonly text: string; readonly images: number };

export function parseMessagesRequest(body: JsonObject): Ask {
  const parts = [
    ...readSystem(body['system'] ?? undefined),
    ...requiredObjects(body, 'messages').flatMap(readMessage),
  ];
  const maxTokens = optionalNumber(body, 'max_tokens', { min: 1, max: 10_000_000, integer: true });
  if (maxTokens === undefined) throw badRequest('max_tokens: Field required', 'max_tokens');
  optionalNumber(body, 'temperature', { min: 0, max: 1 });
  const tools = (optionalList(body, 'tools') ?? []).map(readTool).filter((tool) => tool !== undefined);
  return {
    model: requiredText(body, 'model'),
    messages: parts.map(({ role, text }) => ({ role, text })),
    images: parts.reduce((sum, part) => sum + part.images, 0),
    tools,
    toolChoice: readToolChoice(optionalObject(body, 'tool_choice')),
    format: readFormat(body),
    maxOutputTokens: maxTokens,
    stream: optionalFlag(body, 'stream') ?? false,
    includeUsage: true,
    cacheTtl: asksForAnHour(body) ? '1h' : '5m',
  };
}

function readSystem(system: unknown): Part[] {
  if (system === undefined) return [];
  return [{ role: 'system', ...readBlocks(system, 'system') }];
}

/** Results of tools travel inside user messages here; they become messages of their own. */
function readMessage(message: JsonObject, index: number): Part[] {
  const path = `messages.${index}`;
  const role = message['role'];
  if (role !== 'user' && role !== 'assistant' && role !== 'system') {
    throw badRequest(`${path}.role: must be user or assistant`, `${path}.role`);
  }
  const content = message['content'];
  if (!Array.isArray(content)) return [{ role, ...readBlocks(content, `${path}.content`) }];
  const results = content.filter((block) => isObject(block) && block['type'] === 'tool_result');
  const others = content.filter((block) => !results.includes(block));
  const tool = results.map((block): Part => {
    const inside = isObject(block) ? (block['content'] ?? '') : '';
    return { role: 'tool', ...readBlocks(inside, `${path}.content.tool_result`) };
  });
  return others.length === 0 ? tool : [...tool, { role, ...readBlocks(others, `${path}.content`) }];
}

function readBlocks(content: unknown, path: string): { text: string; images: number } {
  if (typeof content === 'string') return { text: content, images: 0 };
  if (!Array.isArray(content)) throw badRequest(`${path}: must be a string or an array of blocks`, path);
  const blocks = content.map((block: unknown, index) => {
    if (!isObject(block)) throw badRequest(`${path}.${index}: must be an object`, `${path}.${index}`);
    return { block, type: requiredText(block, 'type', `${path}.${index}.type`) };
  });
  const texts = blocks.map(({ block, type }) => {
    if (type === 'text') return requiredText(block, 'text', `${path}.text`);
    return type === 'tool_use'
      ? `${requiredText(block, 'name')} ${JSON.stringify(block['input'] ?? {})}`
      : '';
  });
  return { text: texts.join('\n'), images: blocks.filter(({ type }) => type === 'image').length };
}

/** Tools that the provider itself would run have no schema; they are accepted and never called. */
function readTool(tool: unknown, index: number): OfferedTool | undefined {
  const path = `tools.${index}`;
  if (!isObject(tool)) throw badRequest(`${path}: must be an object`, path);
  const name = requiredText(tool, 'name', `${path}.name`);
  const schema = optionalObject(tool, 'input_schema', `${path}.input_schema`);
  if (schema === undefined) {
    if ((tool['type'] ?? 'custom') === 'custom')
      throw badRequest(`${path}.input_schema: Field required`, path);
    return undefined;
  }
  return {
    name,
    description: optionalText(tool, 'description', `${path}.description`) ?? '',
    parameters: schema,
  };
}

function readToolChoice(choice: JsonObject | undefined): ToolChoice {
  switch (choice?.['type'] ?? 'auto') {
    case 'auto':
      return { kind: 'auto' };
    case 'none':
      return { kind: 'none' };
    case 'any':
      return { kind: 'required' };
    case 'tool':
      return {
        kind: 'named',
        name: choice === undefined ? '' : requiredText(choice, 'name', 'tool_choice.name'),
      };
    default:
      throw badRequest('tool_choice.type: must be auto, any, tool or none', 'tool_choice.type');
  }
}

function readFormat(body: JsonObject): Ask['format'] {
  const config = optionalObject(body, 'output_config');
  const format =
    (config && optionalObject(config, 'format', 'output_config.format')) ??
    optionalObject(body, 'output_format');
  if (format === undefined) return { kind: 'text' };
  const schema = optionalObject(format, 'schema', 'output_config.format.schema');
  if (format['type'] !== 'json_schema' || schema === undefined) {
    throw badRequest('output_config.format: must be a json_schema with a schema', 'output_config.format');
  }
  return { kind: 'json', schema };
}

function asksForAnHour(body: JsonObject): boolean {
  return /"cache_control":\{[^}]*"ttl":"1h"/.test(JSON.stringify(body));
}
