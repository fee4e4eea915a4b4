// Decides whether a request is answered by calling one of its tools: because it says so, or because a tool's name, description or
// arguments fit the words of the prompt. Pure.

import type { Ask, OfferedTool } from '../ask.ts';
import { isObject } from '../body-fields.ts';
import { badRequest } from '../problem.ts';
import type { Hints } from './hints.ts';
import { contentWords, stem } from './keywords.ts';

/** Words that many tools carry in their name and that say nothing about what they are for. */
const GENERIC = new Set([
  'tool',
  'call',
  'run',
  'get',
  'fetch',
  'execute',
  'api',
  'function',
  'data',
  'info',
  'user',
  'json',
]);

/** The tool to call, or undefined to answer in words. After a tool's answer to the last user message no tool fits any more. */
export function chooseTool(ask: Ask, hints: Hints, wasAnswered: boolean): OfferedTool | undefined {
  const choice = ask.toolChoice;
  if (choice.kind === 'named') return namedTool(ask, choice.name);
  if (choice.kind === 'none' || ask.tools.length === 0) return undefined;
  const ranked = ask.tools
    .map((tool) => ({ tool, fit: fitOf(tool, hints) }))
    .toSorted((left, right) => right.fit - left.fit);
  const best = ranked[0];
  if (choice.kind === 'required') return best?.tool;
  return best !== undefined && best.fit >= 2 && !wasAnswered ? best.tool : undefined;
}

function namedTool(ask: Ask, name: string): OfferedTool {
  const found = ask.tools.find((tool) => tool.name === name);
  if (found === undefined)
    throw badRequest(`tool choice names '${name}', which is not among the tools`, 'tool_choice');
  return found;
}

/** 2 for each word of the name that the prompt has, 1 for each of the description, 2 for arguments that the prompt brings. */
function fitOf(tool: OfferedTool, hints: Hints): number {
  const prompt = new Set(contentWords(hints.query).map(stem));
  const name = tool.name.replaceAll(/([a-z])([A-Z])/g, '$1 $2').replaceAll(/[_.-]/g, ' ');
  const hits = (text: string) =>
    new Set(
      contentWords(text)
        .map(stem)
        .filter((word) => !GENERIC.has(word) && prompt.has(word)),
    ).size;
  return 2 * hits(name) + hits(tool.description) + (bringsArguments(tool, hints) ? 2 : 0);
}

function bringsArguments(tool: OfferedTool, hints: Hints): boolean {
  const properties = isObject(tool.parameters['properties'])
    ? Object.keys(tool.parameters['properties'])
    : [];
  const has = (pattern: RegExp) => properties.some((property) => pattern.test(property));
  return (
    (hints.url !== undefined && has(/^(?:url|uri|link)$/i)) ||
    (hints.arithmetic !== undefined && has(/^(?:expression|formula)$/i)) ||
    (hints.code !== undefined && has(/^(?:code|script)$/i))
  );
}
