// Reads the body of Google's `generateContent`. The model comes from the path, and so does whether it streams.

import type { Ask, OfferedTool, PromptMessage, ToolChoice } from '../ask.ts';
import {
  isObject,
  type JsonObject,
  optionalList,
  optionalNumber,
  optionalObject,
  optionalText,
  requiredObjects,
  requiredText,
} from '../body-fields.ts';
import { badRequest } from '../problem.ts';

type Part = { readonly role: PromptMessage['role']; readonly text: string; readonly images: number };

const ROLES: Record<string, PromptMessage['role']> = {
  user: 'user',
  model: 'assistant',
  function: 'tool',
  system: 'system',
};

export function parseGenerateRequest(body: JsonObject, model: string, stream: boolean): Ask {
  const system = optionalObject(body, 'systemInstruction') ?? optionalObject(body, 'system_instruction');
  const contents = requiredObjects(body, 'contents');
  const parts = [
    ...(system === undefined ? [] : readContent({ ...system, role: 'system' }, 'systemInstruction')),
    ...contents.flatMap((content, index) => readContent(content, `contents[${index}]`)),
  ];
  const config = optionalObject(body, 'generationConfig') ?? {};
  optionalNumber(config, 'temperature', { min: 0, max: 2 });
  return {
    model,
    messages: parts.map(({ role, text }) => ({ role, text })),
    images: parts.reduce((sum, part) => sum + part.images, 0),
    tools: (optionalList(body, 'tools') ?? []).flatMap(readTools),
    toolChoice: readToolChoice(body),
    format: readFormat(config),
    maxOutputTokens: optionalNumber(config, 'maxOutputTokens', { min: 1, max: 10_000_000, integer: true }),
    stream,
    includeUsage: true,
    cacheTtl: '5m',
  };
}

/** Results of functions travel inside user contents here; they become messages of their own. */
function readContent(content: JsonObject, path: string): Part[] {
  const given = content['role'] ?? 'user';
  const role = typeof given === 'string' && Object.hasOwn(ROLES, given) ? ROLES[given] : undefined;
  if (role === undefined) throw badRequest(`${path}.role: must be user or model`, `${path}.role`);
  const parts = requiredObjects(content, 'parts', `${path}.parts`);
  const results = parts.map((part) => part['functionResponse']).filter(isObject);
  const texts = parts.filter((part) => part['functionResponse'] === undefined).map(textOf);
  const images = parts.filter((part) => 'inlineData' in part || 'fileData' in part).length;
  const tool = results.map(
    (result): Part => ({ role: 'tool', text: JSON.stringify(result['response'] ?? {}), images: 0 }),
  );
  const hasOnlyResults = results.length === parts.length;
  return hasOnlyResults ? tool : [...tool, { role, text: texts.join('\n').trim(), images }];
}

function textOf(part: JsonObject): string {
  const call = part['functionCall'];
  if (isObject(call)) return `${String(call['name'])} ${JSON.stringify(call['args'] ?? {})}`;
  return optionalText(part, 'text', 'parts.text') ?? '';
}

/** Google's own tools, such as search, are accepted and never called. */
function readTools(tool: unknown, index: number): OfferedTool[] {
  if (!isObject(tool)) throw badRequest(`tools[${index}]: must be an object`, `tools[${index}]`);
  const declared = (optionalList(tool, 'functionDeclarations') ?? []).filter(isObject);
  return declared.map((declaration) => ({
    name: requiredText(declaration, 'name', `tools[${index}].functionDeclarations.name`),
    description: optionalText(declaration, 'description') ?? '',
    parameters: optionalObject(declaration, 'parametersJsonSchema') ??
      optionalObject(declaration, 'parameters') ?? { type: 'object' },
  }));
}

function readToolChoice(body: JsonObject): ToolChoice {
  const config = optionalObject(optionalObject(body, 'toolConfig') ?? {}, 'functionCallingConfig') ?? {};
  const allowed = optionalList(config, 'allowedFunctionNames') ?? [];
  switch (config['mode'] ?? 'AUTO') {
    case 'NONE':
      return { kind: 'none' };
    case 'ANY':
      return allowed.length === 1 && typeof allowed[0] === 'string'
        ? { kind: 'named', name: allowed[0] }
        : { kind: 'required' };
    default:
      return { kind: 'auto' };
  }
}

function readFormat(config: JsonObject): Ask['format'] {
  if (config['responseMimeType'] !== 'application/json') return { kind: 'text' };
  const schema = optionalObject(config, 'responseJsonSchema') ?? optionalObject(config, 'responseSchema');
  return schema === undefined ? { kind: 'json' } : { kind: 'json', schema };
}
