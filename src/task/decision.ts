// What activities answer and the workflow acts on. Everything here goes through Temporal's history: ids, numbers and short words,
// never a conversation. Pure vocabulary.

import type { ExceededPolicy, Limit } from './budget.ts';
import type { Degradation } from './degradation.ts';
import type { BudgetExceededDetails, FailureDetails, Fault } from './failure.ts';
import type { AbortPolicy, ApprovalPolicy, Tier } from './input.ts';
import type { UsageTotals } from './usage.ts';

/** Why a call cannot go on now; each becomes the name of a durable timer. */
export type WaitReason = 'rate' | 'provider_limit' | 'backpressure';

/** How near a call's tightest limit is: below 50 % low, 75 % medium, 90 % high, else critical. */
export const PRESSURES = ['low', 'medium', 'high', 'critical'] as const;
export type Pressure = (typeof PRESSURES)[number];

/** Outcome of one visit of a call. Money is a decimal string in USD, durations are milliseconds. */
export type CallOutcome =
  | {
      readonly kind: 'completed';
      readonly callKey: string;
      readonly model: string;
      readonly usage: UsageTotals;
      readonly costUsd: string;
      readonly finishReason: string;
      /** The output that still fitted into the budget, where that was less than what was asked for. */
      readonly clampedTo?: number;
      readonly pressure?: Pressure;
    }
  | {
      readonly kind: 'wait';
      readonly reason: WaitReason;
      readonly ms: number;
      readonly limit: string;
      /** A place is kept for the call when the wait is over, and not for long after it. */
      readonly isBooked?: true;
      /** What was spent inside the visit on back-pressure, which a call serves once. */
      readonly slowedMs?: number;
    }
  /** Only other calls' holds stand in the way: look again after `ms`, and fail with `failure` once that took too long. */
  | {
      readonly kind: 'held';
      readonly ms: number;
      readonly limit: string;
      readonly failure: BudgetExceededDetails;
    }
  /** A budget is used up and `onExceeded` says what now: wait until its window turns … */
  | {
      readonly kind: 'budget_wait';
      readonly ms: number;
      readonly limit: string;
      readonly failure: BudgetExceededDetails;
    }
  /** … ask somebody … */
  | { readonly kind: 'ask'; readonly failure: BudgetExceededDetails }
  /** … or take the next cheaper model. */
  | { readonly kind: 'degrade'; readonly failure: BudgetExceededDetails }
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
  /** The size class that was asked for; absent for a model that no tier has. */
  readonly tier?: Tier;
  /** In the order in which they are tried, as the tier's strategy had it when the task began. */
  readonly candidates: readonly string[];
  /** A provider that says "not before" is waited for so long although another candidate is left. */
  readonly shortHintMs: number;
  /** Models of lower tiers, dearest first: where `onExceeded: degrade` goes once the candidates are through. */
  readonly cheaper: readonly string[];
  readonly onExceeded: ExceededPolicy;
  readonly approval: ApprovalPolicy;
  readonly abort: AbortPolicy;
  readonly strategy: string;
  readonly maxOutputTokens: number;
  readonly callMaxDurationMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly heldWaitMs: number;
  readonly maxTextBytes: number;
  /** Whether the namespace knows the search attributes; without them nothing is upserted. */
  readonly searchAttributes: boolean;
  /** What was down when the task began, and what it was given for it; absent: nothing was. */
  readonly degradation?: Degradation;
  /** Whether activities go to the queue of their task's priority. */
  readonly priorityQueues: boolean;
  /** The tenant's share of a queue in which others wait as well, by its plan. */
  readonly fairnessWeight: number;
};

/** What configuration says of a valid input: faults, or the settings and limits that the task runs with. */
export type TaskPlan =
  | { readonly kind: 'invalid'; readonly faults: readonly Fault[] }
  | {
      readonly kind: 'planned';
      readonly settings: TaskSettings;
      readonly limits: readonly Limit[];
      /** A call to the first candidate costs nothing. */
      readonly isFree?: boolean;
    };

/** How long a task's first call waits for its slot before it is made at all. */
export type RateDelay = { readonly ms: number; readonly limit: string; readonly isBooked: boolean };

/** A place in rate control that a call has booked and will not come for. */
export type LeftBooking = {
  readonly callKey: string;
  readonly model: string;
  readonly candidate: number;
};

export type BeginOutcome =
  | { readonly kind: 'go'; readonly settings: TaskSettings; readonly rateDelay?: RateDelay }
  | { readonly kind: 'invalid'; readonly faults: readonly Fault[] }
  | { readonly kind: 'refuse'; readonly failure: FailureDetails; readonly settings: TaskSettings };
