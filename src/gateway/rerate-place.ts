// Where a re-rating goes on, as a text that its caller hands back.

import type { ReratePlace } from '../stores/rerate-rows.ts';

export function formatPlace({ heldAt, attemptKey }: ReratePlace): string {
  return Buffer.from(`${heldAt.getTime()} ${attemptKey}`).toString('base64url');
}

/** Undefined for what is no such text. */
export function parsePlace(text: string): ReratePlace | undefined {
  const match = /^(\d{1,15}) (.+)$/.exec(Buffer.from(text, 'base64url').toString());
  const [, heldAtMs, attemptKey] = match ?? [];
  return heldAtMs === undefined || attemptKey === undefined
    ? undefined
    : { heldAt: new Date(Number(heldAtMs)), attemptKey };
}
