// What a parked task writes down: that it asks, what was decided, and by how much its own budget was raised. Each may be repeated: its
// keys come from the workflow.

import type { Logger } from '../log.ts';
import type { Approvals } from '../stores/approvals.ts';
import type { Events } from '../stores/events.ts';
import type { ApprovalStatus } from '../task/approval.ts';
import type { Limit } from '../task/budget.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import { formatUsd, parseUsd } from '../task/money.ts';

type Task = { readonly taskId: string; readonly runId: string; readonly tenantId: string };

export type RequestApprovalInput = Task & {
  readonly userId: string;
  readonly approvalId: string;
  readonly stepId: string;
  readonly callKey: string;
  readonly exceeded: BudgetExceededDetails;
  readonly onTimeout: 'reject' | 'approve';
  /** ISO 8601. */
  readonly expiresAt: string;
};

/** Without `by` nobody decided: time did, or the task went on without an answer. */
export type RecordDecisionInput = Task & {
  readonly approvalId: string;
  readonly status: Exclude<ApprovalStatus, 'pending'>;
  readonly raiseUsd?: string;
  readonly comment?: string;
  readonly by?: string;
};

/** An approval as it stands after a decision, this one or an earlier one. */
export type RecordedDecision = {
  readonly status: ApprovalStatus;
  readonly raiseUsd?: string;
  readonly comment?: string;
  readonly by: string;
};

export type RaiseBudgetInput = Task & {
  readonly usd?: string;
  readonly tokens?: number;
  readonly by: string;
  readonly changeKey: string;
};

export type RaiseBudgetOutcome =
  | {
      readonly kind: 'raised';
      readonly limits: readonly {
        readonly unit: Limit['unit'];
        readonly window: string;
        readonly amount: string;
      }[];
    }
  | { readonly kind: 'nothing' | 'too_much'; readonly unit: Limit['unit'] };

export type ApprovalActivityDependencies = {
  readonly approvals: Pick<Approvals, 'request' | 'decide' | 'raise'>;
  readonly events: Pick<Events, 'publishPending'>;
  readonly log: Logger;
};

/** In the record of what no person decided. */
const NOBODY = 'weir';

export function createApprovalActivities({ approvals, events, log }: ApprovalActivityDependencies) {
  return {
    /** Parks the task in the open: a row that can be decided about, an event, and the task's own row. */
    async requestApproval(input: RequestApprovalInput): Promise<void> {
      const { taskId, runId, tenantId, expiresAt, ...approval } = input;
      const task = { taskId, runId, tenantId };
      await approvals.request({ ...approval, task, expiresAt: new Date(expiresAt) });
      await publish(task);
    },

    /** Ends an approval once; a second decision answers what the first one was. */
    async recordDecision(input: RecordDecisionInput): Promise<RecordedDecision> {
      const { taskId, runId, tenantId, approvalId, status, raiseUsd, comment, by = NOBODY } = input;
      const raise = raiseUsd === undefined ? undefined : parseUsd(raiseUsd);
      const row = await approvals.decide({
        approvalId,
        status,
        by,
        ...(raise === undefined ? {} : { raiseNanoUsd: raise }),
        ...(comment === undefined ? {} : { comment }),
      });
      if (row === undefined) throw new Error(`approval ${approvalId} has no row`);
      await publish({ taskId, runId, tenantId });
      return {
        status: row.status,
        ...(row.raiseNanoUsd === undefined ? {} : { raiseUsd: formatUsd(row.raiseNanoUsd) }),
        ...(row.comment === undefined ? {} : { comment: row.comment }),
        by: row.decidedBy ?? NOBODY,
      };
    },

    /** Adds to the task's own limits, once per `changeKey`. */
    async raiseBudget(input: RaiseBudgetInput): Promise<RaiseBudgetOutcome> {
      const { taskId, tenantId, usd, tokens, by, changeKey } = input;
      const nanoUsd = usd === undefined ? undefined : parseUsd(usd);
      const outcome = await approvals.raise({
        task: { taskId, tenantId },
        by,
        changeKey,
        ...(nanoUsd === undefined ? {} : { nanoUsd }),
        ...(tokens === undefined ? {} : { tokens }),
      });
      if (outcome.kind !== 'raised') return outcome;
      const limits = outcome.limits.map(({ unit, window, amount }) => ({
        unit,
        window,
        amount: unit === 'usd' ? formatUsd(amount) : amount.toString(),
      }));
      return { kind: 'raised', limits };
    },
  };

  /** Visible soon; what cannot be published now is found by the sweeper. */
  async function publish(task: Task): Promise<void> {
    await events.publishPending(task).catch((error: unknown) => {
      log.warn('events left to the sweeper', { taskId: task.taskId, error });
    });
  }
}
