// How a task stands among others: its queue, the order inside a queue, and its tenant's share of it. Pure; the client says it at the
// start, the workflow for each activity.

import type { Priority } from './input.ts';

/** Temporal's `priority`: the lowest key goes first; among tasks of one key each tenant gets its share. */
export type QueuePriority = {
  readonly priorityKey: number;
  readonly fairnessKey: string;
  readonly fairnessWeight: number;
};

export const PRIORITY_KEYS = { critical: 1, high: 2, normal: 3, low: 4 } as const satisfies Record<
  Priority,
  number
>;

/** Temporal's bound on a key. Ids are ASCII, so that characters are bytes. */
const MAX_KEY_BYTES = 64;
const HASH_DIGITS = 16;

/** @param fairnessWeight the plan's share of a queue in which others wait as well, 0.001 to 1000 */
export function toQueuePriority(priority: Priority, tenantId: string, fairnessWeight: number): QueuePriority {
  return { priorityKey: PRIORITY_KEYS[priority], fairnessKey: toFairnessKey(tenantId), fairnessWeight };
}

/** Without a priority of its own a task has the key 3; keys beyond ours come from others who use the queue. */
export function priorityOfKey(key: number): Priority {
  if (key <= PRIORITY_KEYS.critical) return 'critical';
  if (key === PRIORITY_KEYS.high) return 'high';
  return key === PRIORITY_KEYS.normal ? 'normal' : 'low';
}

/** The queue's name. Off: all priorities share one, and the key alone decides. */
export function toQueue(prefix: string, priority: Priority, priorityQueues: boolean): string {
  return `${prefix}-${priorityQueues ? priority : 'normal'}`;
}

/** The tenant's id; of a long one its beginning and a hash of the whole. */
export function toFairnessKey(tenantId: string): string {
  if (tenantId.length <= MAX_KEY_BYTES) return tenantId;
  return `${tenantId.slice(0, MAX_KEY_BYTES - HASH_DIGITS - 1)}#${hash(tenantId)}`;
}

/** FNV-1a of 64 bits: the sandbox has no crypto. Two tenants of one key would share one share, no more. */
function hash(text: string): string {
  let value = 0xcbf29ce484222325n;
  for (const character of text)
    value = BigInt.asUintN(64, (value ^ BigInt(character.charCodeAt(0))) * 0x100000001b3n);
  return value.toString(16).padStart(HASH_DIGITS, '0');
}
