// YAML files and their overlay: the shipped file, the operator's laid over it key by key, and for every key the file and line that
// it came from. Nothing here knows what a key means.

import { readFileSync } from 'node:fs';
import {
  type Document,
  isAlias,
  isMap as isMapNode,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  type YAMLMap,
} from 'yaml';
import type { ConfigFault } from './fault.ts';
import { isMap, toRecord } from './records.ts';

/** How far a file knows a path, and where its last known part stands (`models.yaml:12`). */
type Place = { readonly depth: number; readonly source: string };

export type YamlFile = {
  readonly value: unknown;
  readonly place: (path: readonly PropertyKey[]) => Place;
};

export type LayeredFile = {
  /** The merged value. Lists are replaced, maps merged; a row that the overlay sets to null is gone. */
  readonly value: unknown;
  /** Where a value came from: the overlay if it has the path, else the shipped file, else the one that knows more of it. */
  readonly locate: (path: readonly PropertyKey[]) => string;
};

/** Reads one file. Undefined when it does not exist (which only an overlay may) or when it is no YAML; the latter is a fault. */
export function readYamlFile(
  path: string,
  faults: ConfigFault[],
  mayBeAbsent: boolean,
): YamlFile | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unreadable';
    if (!(mayBeAbsent && code === 'ENOENT'))
      faults.push({ key: '', expected: 'a readable file', got: code, source: path });
    return undefined;
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const problems = [...document.errors, ...document.warnings];
  for (const { message, pos } of problems)
    faults.push({
      key: '',
      expected: 'YAML',
      // What follows a colon quotes the file, which may hold a secret.
      got: message.split(':')[0] ?? '',
      source: `${path}:${lines.linePos(pos[0]).line}`,
    });
  if (problems.length > 0) return undefined;
  const value = toValue(document, path, faults);
  return { value, place: (parts) => placeIn(document, parts, path, lines) };
}

/**
 * Lays one file over another.
 * @param rowDepth how deep in the file the rows stand that an overlay may remove with null (2 for `models.<name>`)
 */
export function layFiles(shipped: YamlFile, overlay: YamlFile | undefined, rowDepth: number): LayeredFile {
  if (overlay === undefined) return { value: shipped.value, locate: (path) => shipped.place(path).source };
  return {
    value: merge(shipped.value, overlay.value, rowDepth),
    locate: (path) => {
      const [over, under] = [overlay.place(path), shipped.place(path)];
      return over.depth >= under.depth ? over.source : under.source;
    },
  };
}

function toValue(document: Document.Parsed, path: string, faults: ConfigFault[]): unknown {
  try {
    return document.toJS() ?? {};
  } catch (error) {
    // An alias without its anchor, or so many aliases that they are an attack.
    faults.push({
      key: '',
      expected: 'YAML',
      got: error instanceof Error ? error.message : 'unreadable',
      source: path,
    });
    return undefined;
  }
}

/** A section whose lines are all commented out is null as well, and must not remove the section below it. */
function merge(under: unknown, over: unknown, rowDepth: number): unknown {
  if (!isMap(under) || !isMap(over)) return over;
  const merged = toRecord(Object.entries(under));
  for (const [key, value] of Object.entries(over)) {
    if (value === null && rowDepth === 1) delete merged[key];
    else if (value !== null || rowDepth < 1) merged[key] = merge(merged[key], value, rowDepth - 1);
  }
  return merged;
}

function placeIn(
  document: Document.Parsed,
  path: readonly PropertyKey[],
  file: string,
  lines: LineCounter,
): Place {
  let node: unknown = document.contents;
  let offset: number | undefined;
  let depth = 0;
  for (const part of path) {
    const child = childOf(isAlias(node) ? node.resolve(document) : node, part);
    if (child === undefined) break;
    ({ node, offset } = child);
    depth += 1;
  }
  return { depth, source: offset === undefined ? file : `${file}:${lines.linePos(offset).line}` };
}

function childOf(
  node: unknown,
  part: PropertyKey,
): { node: unknown; offset: number | undefined } | undefined {
  if (isSeq(node)) {
    const item: unknown = node.items[Number(part)];
    return item === undefined ? undefined : { node: item, offset: offsetOf(item) };
  }
  const pair = isMapNode(node)
    ? (node as YAMLMap).items.find((item) => isScalar(item.key) && String(item.key.value) === part)
    : undefined;
  return pair === undefined ? undefined : { node: pair.value, offset: offsetOf(pair.key) };
}

function offsetOf(node: unknown): number | undefined {
  const range: unknown = typeof node === 'object' && node !== null ? Reflect.get(node, 'range') : undefined;
  return Array.isArray(range) ? Number(range[0]) : undefined;
}
