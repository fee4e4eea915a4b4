// Shapes of the HTTP API as its clients read them. The gateway's schemas are held against these types, so that neither can move alone.
// Money is a decimal string in USD, times are ISO 8601 in UTC.

import type { TaskEvent } from '../task/event.ts';
import type { Fault } from '../task/failure.ts';
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
  readonly result?: { readonly text: string; readonly steps: readonly TaskStepView[] };
  readonly error?: { readonly type: string; readonly message: string; readonly details?: unknown };
  readonly waiting?: { readonly reason: string; readonly until?: string };
  readonly links: TaskLinks;
};

/** One page of a listing, newest first. `next` is the cursor of the next page, absent on the last one. */
export type TaskPage = { readonly tasks: readonly TaskView[]; readonly next?: string };

/** Stored milestones after a number. `next` is the number to go on after, absent when there was nothing more. */
export type EventPage = { readonly events: readonly TaskEvent[]; readonly next?: number };

/** `amount` is a decimal in USD or a whole number of tokens, by `unit`. */
export type LimitView = {
  readonly unit: 'usd' | 'tokens';
  readonly window: string;
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

/** A limit as `PUT` takes it; left out: window `total`, hard, warned at 0.8. */
export type LimitInput = {
  readonly unit: 'usd' | 'tokens';
  readonly window?: string;
  readonly amount: string | number;
  readonly hard?: boolean;
  readonly warnAt?: number;
};

type ExplainedLimit = {
  readonly unit: 'usd' | 'tokens';
  readonly window: string;
  readonly amount: string;
  readonly hard: boolean;
  readonly settled: string;
  readonly held: string;
  readonly remaining: string;
  readonly resetsAt?: string;
};

/** The limits that bind a scope now, and why it was refused last. */
export type BudgetExplanation = {
  readonly scope: string;
  readonly id: string;
  readonly limits: readonly ExplainedLimit[];
  readonly lastRefusal?: Readonly<Record<string, unknown>> & { readonly at: string };
};

export type UsageSums = {
  readonly calls: number;
  /** Requests that reached a provider, or may have. */
  readonly attempts: number;
  readonly usage: UsageTotals;
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
