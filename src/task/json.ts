// Checks of JSON values that must hold before anything recursive (JSON.stringify, a store, a provider) touches them. Pure.

import { isCleanText } from './text.ts';

/** Deepest nesting of an input. JSON.parse takes any depth, JSON.stringify overflows the stack: checked before it is called. */
export const MAX_JSON_DEPTH = 64;

/** Whether a parsed JSON value is nested deeper than `MAX_JSON_DEPTH`. Walks without recursion. */
export function isTooDeep(value: unknown): boolean {
  return walk(value, (_, depth) => depth > MAX_JSON_DEPTH);
}

/** Whether any key or text inside holds a NUL or a lone surrogate. */
export function hasUncleanText(value: unknown): boolean {
  return walk(value, (inner) => {
    if (typeof inner === 'string') return !isCleanText(inner);
    return typeof inner === 'object' && inner !== null && Object.keys(inner).some((key) => !isCleanText(key));
  });
}

function walk(value: unknown, found: (inner: unknown, depth: number) => boolean): boolean {
  const pending: { inner: unknown; depth: number }[] = [{ inner: value, depth: 0 }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (found(next.inner, next.depth)) return true;
    if (typeof next.inner !== 'object' || next.inner === null) continue;
    for (const child of Object.values(next.inner)) pending.push({ inner: child, depth: next.depth + 1 });
  }
  return false;
}
