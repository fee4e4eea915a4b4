// Names of Redis keys. Everything of one tenant lies in one hash slot, so that one script may touch it; the same for a provider and
// an event shard. Ids were validated before they come here: a brace in one would move the slot.

import type { Scope } from '../task/budget.ts';
import { isId } from '../task/input.ts';

const SCOPE_PART = ':scope:';

/** Slots over which tasks are spread for their events. */
export const EVENT_SHARDS = 16;

/** Key names of one tenant's budgets: holds by call, leases, done markers, counters per scope. */
export function budgetKeys(prefix: string, tenantId: string) {
  const slot = `${prefix}:{t:${checked(tenantId)}}`;
  return {
    holds: `${slot}:holds`,
    leases: `${slot}:leases`,
    done: (attemptKey: string) => `${slot}:done:${attemptKey}`,
    scope: (kind: Scope['kind'], id: string) => `${slot}${SCOPE_PART}${kind}:${id}`,
  };
}

/** As a scope's key ends, and as a record of a hold names it. */
export function nameOfScope({ kind, id }: Scope): string {
  return `${kind}:${id}`;
}

/** Of `nameOfScope`'s names. */
export function scopeOfName(name: string): Scope | undefined {
  const [, kind, id] = /^(tenant|user|session|task|share):(.+)$/.exec(name) ?? [];
  if (kind === undefined || id === undefined) return undefined;
  return { kind: kind as Scope['kind'], id }; // the pattern names the kinds
}

/** Which scope a key of counters belongs to, of those that `budgetKeys` names. */
export function scopeOfKey(key: string): Scope | undefined {
  const at = key.indexOf(SCOPE_PART);
  return at < 0 ? undefined : scopeOfName(key.slice(at + SCOPE_PART.length));
}

/** Key names of one slot of rate control: two buckets, the leases of permits where these are bounded, and what is booked. */
export type RateKeys = {
  readonly outer: string;
  readonly inner: string;
  readonly outerLeases: string;
  readonly innerLeases: string;
  readonly bookings: string;
};

/** A provider's bucket and, inside it, the one of a model. */
export function rateKeys(prefix: string, provider: string, model = ''): RateKeys {
  const slot = `${prefix}:{p:${provider}}`;
  return {
    outer: `${slot}:bucket`,
    inner: `${slot}:bucket:${model}`,
    outerLeases: `${slot}:leases`,
    innerLeases: `${slot}:leases:${model}`,
    bookings: `${slot}:bookings`,
  };
}

/** A tenant's bucket of its plan and, inside it, the one of a tier. Nothing is booked there. */
export function tenantRateKeys(prefix: string, tenantId: string, tier: string): RateKeys {
  const slot = `${prefix}:{t:${checked(tenantId)}}:rate`;
  return {
    outer: `${slot}:plan`,
    inner: `${slot}:tier:${tier}`,
    outerLeases: `${slot}:plan:leases`,
    innerLeases: `${slot}:tier:${tier}:leases`,
    bookings: `${slot}:bookings`,
  };
}

/** Key names of one task's events, and of the feeds of its shard. */
export function eventKeys(prefix: string, taskId: string) {
  const shard = eventShardOf(taskId);
  const slot = eventSlot(prefix, shard);
  return {
    ...feedKeys(prefix, shard),
    ring: `${slot}:ring:${taskId}`,
    meta: `${slot}:meta:${taskId}`,
    text: (callKey: string) => `${slot}:text:${callKey}`,
  };
}

/**
 * Key names of one shard's feeds: `live` has every batch of events, bounded; `log` those milestones whose numbers are not in Postgres
 * yet; `count` is the number of the newest entry of `live`.
 */
export function feedKeys(prefix: string, shard: number) {
  const slot = eventSlot(prefix, shard);
  return { live: `${slot}:live`, log: `${slot}:log`, count: `${slot}:count` };
}

/** The shard in which a task's events lie, from 0 to `EVENT_SHARDS - 1`. */
export function eventShardOf(taskId: string): number {
  return fnv1a(checked(taskId)) % EVENT_SHARDS;
}

function eventSlot(prefix: string, shard: number): string {
  return `${prefix}:{e:${shard}}`;
}

function checked(id: string): string {
  if (!isId(id)) throw new Error(`not an id: ${JSON.stringify(id)}`);
  return id;
}

/** FNV-1a, 32 bit: http://www.isthe.com/chongo/tech/comp/fnv/ */
function fnv1a(id: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < id.length; index += 1)
    hash = Math.imul(hash ^ id.charCodeAt(index), 0x01000193) >>> 0;
  return hash;
}
