// What activities answer and the workflow acts on. Everything here goes through Temporal's history: ids, numbers and short words,
// never a conversation. Pure vocabulary.

import type { Limit } from './budget.ts';
import type { FailureDetails, Fault } from './failure.ts';
import type { UsageTotals } from './usage.ts';

/** Why a call cannot go on now; each becomes the name of a durable timer. */
export type WaitReason = 'rate' | 'provider_limit';

/** Outcome of one visit of a call. Money is a decimal string in USD, durations are milliseconds. */
export type CallOutcome =
  | {
      readonly kind: 'completed';
      readonly callKey: string;
      readonly model: string;
      readonly usage: UsageTotals;
      readonly costUsd: string;
      readonly finishReason: string;
    }
  | { readonly kind: 'wait'; readonly reason: WaitReason; readonly ms: number; readonly limit: string }
  /** Only other calls' holds stand in the way: look again after `ms`, and fail with `failure` once that took too long. */
  | { readonly kind: 'held'; readonly ms: number; readonly limit: string; readonly failure: FailureDetails }
  | {
      readonly kind: 'unavailable';
      readonly reason: string;
      readonly model: string;
      readonly retryAfterMs?: number;
    }
  | { readonly kind: 'refuse'; readonly failure: FailureDetails };

/** The settings that shape one task, taken once by `begin` and recorded, so that a replay sees the same. */
export type TaskSettings = {
  readonly model: string;
  readonly candidates: readonly string[];
  readonly strategy: string;
  readonly maxOutputTokens: number;
  readonly callMaxDurationMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly heldWaitMs: number;
  readonly maxTextBytes: number;
  /** Whether the namespace knows the search attributes; without them nothing is upserted. */
  readonly searchAttributes: boolean;
  /** Whether activities go to the queue of their task's priority. */
  readonly priorityQueues: boolean;
};

/** What configuration says of a valid input: faults, or the settings and limits that the task runs with. */
export type TaskPlan =
  | { readonly kind: 'invalid'; readonly faults: readonly Fault[] }
  | { readonly kind: 'planned'; readonly settings: TaskSettings; readonly limits: readonly Limit[] };

export type BeginOutcome =
  | { readonly kind: 'go'; readonly settings: TaskSettings }
  | { readonly kind: 'invalid'; readonly faults: readonly Fault[] }
  | { readonly kind: 'refuse'; readonly failure: FailureDetails; readonly settings: TaskSettings };
