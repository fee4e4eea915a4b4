// Names and shapes by which clients talk to a running task. Clients import this file, so it holds nothing else.

import type { ApprovalStatus } from '../task/approval.ts';
import type { Pressure } from '../task/decision.ts';
import type { Degradation } from '../task/degradation.ts';
import type { BudgetExceededDetails, FailureDetails } from '../task/failure.ts';
import type { UsageTotals } from '../task/usage.ts';

export const RUN_TASK = 'runTask';
export const STATUS_QUERY = 'status';
export const DECIDE_APPROVAL_UPDATE = 'decideApproval';
export const RAISE_BUDGET_UPDATE = 'raiseBudget';
export const BUDGET_CHANGED_SIGNAL = 'budgetChanged';

/** Argument of the update `decideApproval`. `raiseUsd` is a decimal in USD and counts for this task only. */
export type ApprovalDecision = {
  readonly approvalId: string;
  readonly decision: 'approve' | 'reject';
  readonly raiseUsd?: string | number;
  readonly comment?: string;
  readonly by: string;
};

/** Argument of the update `raiseBudget`: what is added to the task's own limits. */
export type BudgetRaise = { readonly usd?: string | number; readonly tokens?: number; readonly by: string };

/** What became of a decision. `raiseUsd` is what the limit was raised by, for this task alone. */
export type ApprovalDecided = {
  readonly approvalId: string;
  readonly status: ApprovalStatus;
  readonly raiseUsd?: string;
};

/** The task's own limits after a raise. Amounts are decimal strings: USD, or a count of tokens, by `unit`. */
export type BudgetRaised = {
  readonly limits: readonly {
    readonly unit: 'usd' | 'tokens';
    readonly window: string;
    readonly amount: string;
  }[];
};

/** Why an update was refused, as the type of its failure; `InvalidUpdate` carries its faults as details. */
export const UPDATE_REFUSALS = [
  'InvalidUpdate',
  'NotPending',
  'AlreadyDecided',
  'NothingToRaise',
  'NotRunning',
] as const;
export type UpdateRefusal = (typeof UPDATE_REFUSALS)[number];

/** What a parked task asks for. Times are ISO 8601 in UTC. */
export type PendingApproval = {
  readonly approvalId: string;
  readonly exceeded: BudgetExceededDetails;
  readonly expiresAt: string;
};

/** Answer of the query `status`. Money is a decimal string in USD. */
export type TaskStatusReport = {
  readonly phase: string;
  readonly currentStep: string | null;
  readonly waiting: { readonly reason: string; readonly until: string } | null;
  readonly usage: UsageTotals;
  readonly costUsd: string;
  readonly model: string | null;
  readonly pressure: Pressure | null;
  readonly pendingApproval: PendingApproval | null;
};

/** Result of `runTask`. Above 64 KB the text stays in Postgres and `textRef` names it. */
export type TaskResult = {
  readonly taskId: string;
  readonly status: 'completed' | 'partial';
  readonly text: string;
  readonly textRef?: string;
  readonly usage: UsageTotals;
  readonly costUsd: string;
  readonly model: string;
  readonly strategy: string;
  readonly steps: readonly { readonly stepId: string; readonly status: string; readonly model: string }[];
  /** The output that still fitted into the budget, where that was less than what was asked for. */
  readonly clampedTo?: number;
  /** The cheaper model that answered, because the budget had no room for the one that was asked for. */
  readonly degradedTo?: string;
  /** What was down when the task began, and what it was given instead of what it asked for. */
  readonly degradation?: Degradation;
};

/** The one details object of a typed failure. */
export type TaskFailureDetails = FailureDetails;
