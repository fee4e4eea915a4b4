// Makes a plan from a query: the parts it asks for as steps, and a last step that brings them together. Pure.

import { subjectsOf } from './keywords.ts';

export type PlanStep = {
  readonly description: string;
  /** Indexes of the steps that must be done before. */
  readonly needs: readonly number[];
};

const JOINTS = /([;,.?!\n]+(?=\s|$)|\bthen\b|\band\b|\bas well as\b)/i;
const JOINT = /^(?:[;,.?!\n]+|then|and|as well as)$/i;
const MOST_PARTS = 4;

/** Between `min` and `max` steps where those are given, else two to five. Always acyclic: a step needs earlier ones only. */
export function planFor(
  query: string,
  bounds: { readonly min?: number; readonly max?: number } = {},
): PlanStep[] {
  const max = Math.max(bounds.max ?? MOST_PARTS + 1, bounds.min ?? 0);
  const parts = partsOf(query).slice(0, Math.max(0, Math.min(MOST_PARTS, max - 1)));
  const steps: PlanStep[] = (parts.length >= 2 ? parts : standardParts(query).slice(0, max - 1)).map(
    (part) => ({
      description: part,
      needs: [],
    }),
  );
  while (steps.length + 1 < (bounds.min ?? 0)) {
    steps.push({
      description: `Check the result of step ${steps.length}`,
      needs: [steps.length - 1].filter(isIndex),
    });
  }
  if (steps.length >= max) return steps.slice(0, max);
  return [
    ...steps,
    { description: 'Bring the findings together into one answer', needs: steps.map((_, index) => index) },
  ];
}

/**
 * What a query asks for, one part each: the clauses between its commas, stops and `and`s. Fewer than three words make no clause
 * and stay with what follows (`compare A and B for C`).
 */
export function partsOf(query: string): string[] {
  const parts: string[] = [];
  let open = '';
  for (const piece of query.slice(0, 2_000).split(JOINTS)) {
    if (JOINT.test(piece) && wordCount(open) >= 3) {
      parts.push(open);
      open = '';
    } else if (open !== '' || !JOINT.test(piece)) open += piece;
  }
  return [...parts, open]
    .map((part) =>
      part
        .replaceAll(/\s+/g, ' ')
        .replace(/^\s*(?:(?:and|then)\s+)+/i, '')
        .trim(),
    )
    .filter((part) => wordCount(part) >= 3)
    .map((part) => part.charAt(0).toUpperCase() + part.slice(1));
}

function wordCount(text: string): number {
  return text.split(/\s+/).filter((word) => word !== '').length;
}

function standardParts(query: string): string[] {
  const subject = subjectsOf(query, 2).join(' and ') || 'the question';
  return [`Collect the facts about ${subject}`, `Look for what speaks against them: ${subject}`];
}

function isIndex(index: number): boolean {
  return index >= 0;
}
