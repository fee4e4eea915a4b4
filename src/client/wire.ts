// Shapes of the HTTP API as its clients read them. The gateway's schemas are held against these types, so that neither can move alone.
// Money is a decimal string in USD, times are ISO 8601 in UTC.

import type { ApprovalStatus } from '../task/approval.ts';
import type { BreakerKind, BreakerSettings, BreakerState } from '../task/breaker.ts';
import type { Pressure } from '../task/decision.ts';
import type { Degradation, DegradationLevel } from '../task/degradation.ts';
import type { TaskEvent } from '../task/event.ts';
import type { BudgetExceededDetails, Fault } from '../task/failure.ts';
import type { Priority } from '../task/input.ts';
import type { Backlog } from '../task/queue-count.ts';
import type { RateDimension } from '../task/rate-reading.ts';
import type { RateBucketKind } from '../task/rate-report.ts';
import type { TaskStatus } from '../task/status.ts';
import type { UsageTotals } from '../task/usage.ts';

/** Paths below the gateway's URL. */
export type TaskLinks = {
  readonly self: string;
  readonly events: string;
  readonly stream: string;
  readonly cancel: string;
};

/** Answer to a submission. */
export type TaskAccepted = {
  readonly taskId: string;
  readonly status: TaskStatus;
  readonly links: TaskLinks;
};

type TaskStepView = {
  readonly stepId: string;
  readonly status: string;
  readonly callKey?: string;
  readonly model?: string;
};

export type TaskView = {
  readonly taskId: string;
  readonly status: TaskStatus;
  readonly phase: string;
  /** Empty for a task that was started past the gateway and has not begun yet, where nobody knows it. The same for `userId`. */
  readonly tenantId: string;
  readonly userId: string;
  readonly sessionId?: string;
  readonly strategy: string;
  readonly priority: string;
  readonly tier?: string;
  readonly model?: string;
  readonly createdAt: string;
  readonly startedAt?: string;
  readonly endedAt?: string;
  readonly usage: UsageTotals;
  readonly costUsd: string;
  /** What was down when it began, and what it was given instead of what it asked for; absent: nothing was. */
  readonly degradation?: Degradation;
  readonly result?: { readonly text: string; readonly steps: readonly TaskStepView[] };
  readonly error?: { readonly type: string; readonly message: string; readonly details?: unknown };
  readonly waiting?: { readonly reason: string; readonly until?: string };
  readonly links: TaskLinks;
};

/** One page of a listing, newest first. `next` is the cursor of the next page, absent on the last one. */
export type TaskPage = { readonly tasks: readonly TaskView[]; readonly next?: string };

/** Stored milestones after a number. `next` is the number to go on after, absent when there was nothing more. */
export type EventPage = { readonly events: readonly TaskEvent[]; readonly next?: number };

/** `amount` is a decimal in USD or a whole number of tokens, by `unit`; without `zone` the window begins in the configured one. */
export type LimitView = {
  readonly unit: 'usd' | 'tokens';
  readonly window: string;
  readonly zone?: string;
  readonly amount: string;
  readonly hard: boolean;
  readonly warnAt: number;
};

/** `isDefault`: nobody set limits on this scope, the configured ones hold. */
export type BudgetView = {
  readonly scope: string;
  readonly id: string;
  readonly tenantId: string;
  readonly limits: readonly LimitView[];
  readonly isDefault: boolean;
};

/** Scopes whose limits somebody set, changed last first. `truncated`: there are more than were asked for. */
export type BudgetPage = { readonly budgets: readonly BudgetView[]; readonly truncated?: true };

/** A limit as `PUT` takes it; left out: window `total`, the configured zone, hard, warned at 0.8. */
export type LimitInput = {
  readonly unit: 'usd' | 'tokens';
  readonly window?: string;
  readonly zone?: string;
  readonly amount: string | number;
  readonly hard?: boolean;
  readonly warnAt?: number;
};

/** What is settled and held in the limit's present window, which ends at `resetsAt`. */
export type ExplainedLimit = {
  readonly unit: 'usd' | 'tokens';
  readonly window: string;
  readonly zone?: string;
  readonly amount: string;
  readonly hard: boolean;
  readonly settled: string;
  readonly held: string;
  readonly remaining: string;
  readonly pressure: Pressure;
  readonly resetsAt?: string;
};

type LastRefusal = Readonly<Record<string, unknown>> & { readonly at: string };

/** The limits that bind a scope now, and why it was refused last. */
export type BudgetExplanation = {
  readonly scope: string;
  readonly id: string;
  readonly limits: readonly ExplainedLimit[];
  readonly lastRefusal?: LastRefusal;
};

/** Every limit that binds a task, over all its scopes, with what was granted to it; what it waits for; why it was refused last. */
export type TaskExplanation = {
  readonly taskId: string;
  readonly status: TaskStatus;
  readonly waiting?: { readonly reason: string; readonly until?: string };
  readonly limits: readonly (ExplainedLimit & { readonly scope: string; readonly id: string })[];
  readonly lastRefusal?: LastRefusal;
};

export type UsageSums = {
  /** Each call once, where its last attempt is: groups add up to the total. */
  readonly calls: number;
  /** Requests that reached a provider, or may have. */
  readonly attempts: number;
  /** A number; decimal text beyond 2^53, which JSON numbers do not count exactly. */
  readonly usage: { readonly [Part in keyof UsageTotals]: number | string };
  readonly costUsd: string;
  readonly billableUsd: string;
};

/** Each group has one key per group asked for, null where a call had none. `truncated`: there are more groups than were asked for. */
export type UsageReport = {
  readonly groups: readonly (UsageSums & { readonly [group: string]: unknown })[];
  readonly total: UsageSums;
  readonly truncated?: true;
};

/** RFC 9457. `type` is a word of a closed list; refusals carry their details beside it. */
export type Problem = {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail?: string;
  readonly faults?: readonly Fault[];
  readonly [extension: string]: unknown;
};

/** What a re-rating did, or would do. `next`: where to go on; absent when the period is done. */
export type RerateView = {
  readonly priceHash: string;
  readonly attempts: number;
  readonly adjusted: number;
  readonly differenceUsd: string;
  readonly models: readonly {
    readonly model: string;
    readonly adjusted: number;
    readonly differenceUsd: string;
  }[];
  /** Their price is not known: they stay as they are. */
  readonly unknownPrices: readonly { readonly model: string; readonly attempts: number }[];
  /** This very list was applied to them before, and another one since: they stay as they are. */
  readonly appliedBefore: number;
  readonly next?: string;
};

/** How many texts are gone. `running`: tasks still under way, to be erased again when they have ended. */
export type ErasedView = {
  readonly tasks: number;
  readonly events: number;
  readonly calls: number;
  readonly running: number;
};

/** What a parked task asks somebody. `raiseUsd` is what the limit was raised by, for that task alone. */
export type ApprovalView = {
  readonly approvalId: string;
  readonly taskId: string;
  readonly tenantId: string;
  readonly userId: string;
  readonly status: ApprovalStatus;
  /** The limit that the task asks to pass. */
  readonly exceeded: BudgetExceededDetails;
  readonly onTimeout: 'reject' | 'approve';
  readonly requestedAt: string;
  readonly expiresAt: string;
  readonly decidedAt?: string;
  readonly decidedBy?: string;
  readonly raiseUsd?: string;
  readonly comment?: string;
};

/** At most 100: those that wait oldest first, all others newest first. */
export type ApprovalList = { readonly approvals: readonly ApprovalView[] };

/** Body of a decision. `by` left out: `api`. */
export type DecisionInput = {
  readonly decision: 'approve' | 'reject';
  readonly raiseUsd?: string | number;
  readonly comment?: string;
  readonly by?: string;
};

/** What is added to the task's own limits. `by` left out: `api`. */
export type RaiseInput = { readonly usd?: string | number; readonly tokens?: number; readonly by?: string };

/** The task's own limits after a raise. */
export type RaisedView = {
  readonly taskId: string;
  readonly limits: readonly {
    readonly unit: 'usd' | 'tokens';
    readonly window: string;
    readonly amount: string;
  }[];
};

/** One of the four queues. `backlog` waits for a slot, `quotaWaiting` for a limit that more workers would not lift. */
export type QueueView = {
  readonly queue: string;
  readonly priority: Priority;
  readonly backlog: number;
  readonly quotaWaiting: number;
  readonly workflows: Backlog;
  readonly activities: Backlog;
  readonly byPriority: readonly {
    readonly priority: Priority;
    readonly backlog: number;
    readonly quotaWaiting: number;
  }[];
};

/** `at` is when it was counted. */
export type QueuesView = { readonly at: string; readonly queues: readonly QueueView[] };

/** Durations are milliseconds. `scope`: whether all processes share it, or the gateway tells of its own. */
export type BreakerView = {
  readonly name: string;
  readonly kind: BreakerKind;
  readonly scope: 'process' | 'fleet';
  readonly state: BreakerState;
  /** Of its last change; absent when it has never changed. ISO 8601 in UTC. */
  readonly since?: string;
  /** Until somebody may try; 0 unless it is open. */
  readonly retryAfterMs: number;
  /** Within the interval, failures among them. */
  readonly calls: number;
  readonly failures: number;
  readonly settings: BreakerSettings;
};

/** `down` names the dependencies whose breaker is open; a provider once for all of its models. */
export type BreakersView = {
  readonly level: DegradationLevel;
  readonly down: readonly string[];
  readonly breakers: readonly BreakerView[];
};

/** One limit of a bucket, per minute or, of `maxParallel`, at a time. */
export type RateLimitView = {
  readonly dimension: RateDimension | 'maxParallel';
  /** Absent: nothing is configured. */
  readonly configured?: number;
  /** What headers and refusals of the provider taught, as it stood then; it recovers from there. `stated` is the provider's own word. */
  readonly learnt?: { readonly limit: number; readonly stated?: number; readonly at: string };
  /** What holds now: never more than what is configured. Absent: nothing binds. */
  readonly effective?: number;
  /** What could be taken at this moment. */
  readonly remaining?: number;
  /** What the provider last said remained with it. It shows, and admits nothing. */
  readonly heard?: { readonly remaining: number; readonly at: string };
};

/** `name` is a provider, `provider/model`, a tier, or of a plan the tenant whose plan it is. */
export type RateBucketView = {
  readonly bucket: RateBucketKind;
  readonly name: string;
  readonly tenantId?: string;
  /** The provider refused, or said that nothing remains: nobody asks before. ISO 8601 in UTC. */
  readonly blockedUntil?: string;
  readonly limits: readonly RateLimitView[];
};

export type RateLimitsView = { readonly buckets: readonly RateBucketView[] };
