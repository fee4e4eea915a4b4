// What milestones say of the streamed text of their call: an attempt begins it anew, it is void, it is complete. Each is a place in the
// order of the call's attempts, below which text is refused.

import type { EventType } from '../task/event.ts';
import { attemptOrder } from '../task/keys.ts';

export type Turn = {
  readonly kind: 'begins' | 'void' | 'complete';
  readonly callKey: string;
  /** The attempt of which it is told. */
  readonly attempt: string;
  readonly order: number;
};

export const TURN_TYPES: readonly EventType[] = ['call_started', 'attempt_reset', 'call_completed'];

/** Above that of any attempt; below 2^53, so that Lua writes it in full. */
const AFTER_ALL = 9e15;

/** Undefined for a milestone that says nothing of a text. */
export function turnOf(type: EventType, body: Readonly<Record<string, unknown>>): Turn | undefined {
  const callKey = body['callKey'];
  if (typeof callKey !== 'string') return undefined;
  const attempt = String(body['attempt'] ?? '');
  if (type === 'call_completed') return { kind: 'complete', callKey, attempt, order: AFTER_ALL };
  const order = attemptOrder(attempt);
  if (order === undefined) return undefined;
  if (type === 'call_started') return { kind: 'begins', callKey, attempt, order };
  // Above this attempt, and below the next.
  return type === 'attempt_reset' ? { kind: 'void', callKey, attempt, order: order + 0.5 } : undefined;
}
