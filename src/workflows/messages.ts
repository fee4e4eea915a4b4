// Names and shapes by which clients talk to a running task. Clients import this file, so it holds nothing else.

import type { FailureDetails } from '../task/failure.ts';
import type { UsageTotals } from '../task/usage.ts';

export const RUN_TASK = 'runTask';
export const STATUS_QUERY = 'status';

/** Answer of the query `status`. Money is a decimal string in USD. */
export type TaskStatusReport = {
  readonly phase: string;
  readonly currentStep: string | null;
  readonly waiting: { readonly reason: string; readonly until: string } | null;
  readonly usage: UsageTotals;
  readonly costUsd: string;
  readonly model: string | null;
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
};

/** The one details object of a typed failure. */
export type TaskFailureDetails = FailureDetails;
