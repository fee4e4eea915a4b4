// What waits, as somebody who scales workers needs it: for a slot, which more workers would give, or for a quota, which they would not.
// Pure vocabulary.

import type { Priority } from './input.ts';

/** Temporal's figures of one queue; the number is approximate, the rates are of the last half minute. */
export type Backlog = {
  /** Tasks that no worker has taken yet. */
  readonly waiting: number;
  readonly oldestSeconds: number;
  readonly addedPerSecond: number;
  readonly takenPerSecond: number;
};

export type QueueCount = {
  /** The whole name, as Temporal knows it. */
  readonly queue: string;
  /** Whose slots serve it. */
  readonly priority: Priority;
  readonly workflows: Backlog;
  readonly activities: Backlog;
  /** Both kinds together, by the priority that each task was queued with. */
  readonly backlog: Readonly<Record<Priority, number>>;
  /** Tasks that sleep until a provider or a rate limit has room: they hold no slot and no place in the queue. */
  readonly quotaWaiting: Readonly<Record<Priority, number>>;
};

export type QueueCounts = {
  /** ISO 8601, by Postgres' clock. */
  readonly at: string;
  readonly queues: readonly QueueCount[];
};

/** Reasons of waits that end when a limit has room again, as the rows of waiting tasks name them. */
export const QUOTA_WAITS = ['rate', 'provider_limit'] as const;
