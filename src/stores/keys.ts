// Names of Redis keys. Everything of one tenant lies in one hash slot, so that one script may touch it; the same for a provider and
// an event shard. Ids were validated before they come here: a brace in one would move the slot.

import type { Scope } from '../task/budget.ts';
import { isId } from '../task/input.ts';

const EVENT_SHARDS = 16;

/** Key names of one tenant's budgets: holds, leases, newest attempt per call, done markers, counters per scope. */
export function budgetKeys(prefix: string, tenantId: string) {
  const slot = `${prefix}:{t:${checked(tenantId)}}`;
  return {
    holds: `${slot}:holds`,
    leases: `${slot}:leases`,
    call: (callKey: string) => `${slot}:call:${callKey}`,
    done: (attemptKey: string) => `${slot}:done:${attemptKey}`,
    scope: (kind: Scope['kind'], id: string) => `${slot}:scope:${kind}:${id}`,
  };
}

/** Key names of one provider's rate control: buckets, permits, leases of permits. */
export function rateKeys(prefix: string, provider: string) {
  const slot = `${prefix}:{p:${provider}}`;
  return { bucket: `${slot}:bucket`, permits: `${slot}:permits`, leases: `${slot}:leases` };
}

/** Key names of one task's events. Tasks are spread over a fixed number of slots. */
export function eventKeys(prefix: string, taskId: string) {
  const slot = `${prefix}:{e:${shardOf(checked(taskId))}}`;
  return {
    ring: `${slot}:ring:${taskId}`,
    meta: `${slot}:meta:${taskId}`,
    text: (callKey: string) => `${slot}:text:${callKey}`,
  };
}

function checked(id: string): string {
  if (!isId(id)) throw new Error(`not an id: ${JSON.stringify(id)}`);
  return id;
}

/** FNV-1a, 32 bit: http://www.isthe.com/chongo/tech/comp/fnv/ */
function shardOf(id: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < id.length; index += 1)
    hash = Math.imul(hash ^ id.charCodeAt(index), 0x01000193) >>> 0;
  return hash % EVENT_SHARDS;
}
