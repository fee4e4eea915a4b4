// How a task asks somebody to let it pass a budget, and hears of it: at most one approval at a time, decided once, by a person, by time,
// or by not being needed any more. What is decided is recorded by an activity before anything acts on it.

import { CancellationScope, condition, workflowInfo } from '@temporalio/workflow';
import type { RecordDecisionInput, RecordedDecision } from '../activities/approvals.ts';
import { parseDecision, toApprovalName } from '../task/approval.ts';
import type { TaskSettings } from '../task/decision.ts';
import type { BudgetExceededDetails } from '../task/failure.ts';
import type { TaskInput } from '../task/input.ts';
import { toSummary } from '../task/text.ts';
import type { BudgetNews } from './budget-news.ts';
import { taskFailure, updateRefused } from './failure.ts';
import type { ApprovalDecided } from './messages.ts';
import type { Progress } from './progress.ts';
import { localFirst } from './proxies.ts';

/** Who asks, and until when an answer helps. */
export type Question = {
  readonly input: TaskInput;
  readonly settings: TaskSettings;
  readonly stepId: string;
  readonly n: number;
  readonly callKey: string;
  readonly exceeded: BudgetExceededDetails;
  /** Budget news that the last look at the limits had seen. */
  readonly seen: number;
  /** Milliseconds since 1970, Infinity without a deadline. */
  readonly deadlineMs: number;
};

type Open = {
  readonly approvalId: string;
  readonly exceeded: BudgetExceededDetails;
  readonly expiresAtMs: number;
  /** Claimed by the decision that is being recorded: no other is taken. */
  isClaimed: boolean;
  answer: RecordedDecision | undefined;
};

type Asked = { readonly exceeded: BudgetExceededDetails; readonly raised: boolean; readonly seen: number };

/** However often limits are raised by too little, somebody is asked no more often than this. */
const MOST_QUESTIONS = 20;

export class ApprovalDesk {
  readonly #tenantId: string;
  readonly #progress: Progress;
  readonly #news: BudgetNews;
  #open: Open | undefined;
  #last: Asked | undefined;
  #decidedId: string | undefined;
  #questions = 0;

  constructor(tenantId: string, progress: Progress, news: BudgetNews) {
    this.#tenantId = tenantId;
    this.#progress = progress;
    this.#news = news;
  }

  /** Validates a decision as it comes in. @throws what refuses the update; the task goes on */
  check(raw: unknown): void {
    const open = this.#open;
    const parsed = parseDecision(raw, open?.exceeded);
    if (parsed.kind === 'invalid') {
      const faults = parsed.faults.map(
        ({ path, expected, got }) => `${path}: expected ${expected}, got ${got}`,
      );
      throw updateRefused('InvalidUpdate', `invalid decision: ${faults.join('; ')}`, parsed.faults);
    }
    const { approvalId } = parsed.value;
    const isDecided = approvalId === this.#decidedId || (approvalId === open?.approvalId && open.isClaimed);
    if (isDecided) throw updateRefused('AlreadyDecided', `approval ${approvalId} is decided already`);
    if (open === undefined) throw updateRefused('NotPending', 'the task asks for no approval now');
    if (approvalId !== open.approvalId)
      throw updateRefused(
        'NotPending',
        `the task asks for approval ${open.approvalId}, not for ${approvalId}`,
      );
  }

  /** Records a decision that `check` let through. */
  async decide(raw: unknown): Promise<ApprovalDecided> {
    // Between the check and here another decision may have been taken in the same workflow task.
    this.check(raw);
    const open = this.#open;
    const parsed = parseDecision(raw, open?.exceeded);
    if (open === undefined || parsed.kind === 'invalid')
      throw updateRefused('NotPending', 'the task asks for no approval now');
    const { approvalId, decision, ...rest } = parsed.value;
    const status = decision === 'approve' ? 'approved' : 'rejected';
    const answer = await this.#record(open, { status, ...rest });
    return {
      approvalId,
      status: answer.status,
      ...(answer.raiseUsd === undefined ? {} : { raiseUsd: answer.raiseUsd }),
    };
  }

  /** Waits for an answer; returns when the call may be tried again. @throws the task's typed failure */
  async ask(question: Question): Promise<void> {
    const { exceeded } = question;
    if (this.#open !== undefined && !isSameLimit(this.#open.exceeded, exceeded)) await this.withdraw();
    const open = this.#open ?? (await this.#request(question));
    const answer = await this.#answered(open, question);
    if (answer === undefined) return;
    this.#close(open, answer);
    const { approvalId } = open;
    const reason = toApprovalName(exceeded);
    const { by, comment } = answer;
    if (answer.status === 'rejected')
      throw taskFailure({
        type: 'ApprovalRejected',
        approvalId,
        reason,
        by,
        ...(comment === undefined ? {} : { comment }),
        exceeded,
      });
    if (answer.status === 'timed_out' && question.settings.approval.onTimeout === 'reject')
      throw taskFailure({ type: 'ApprovalTimedOut', approvalId, reason, exceeded });
  }

  /** Takes back what nobody needs to answer any more. */
  async withdraw(): Promise<void> {
    const open = this.#open;
    if (open === undefined) return;
    if (open.isClaimed)
      await CancellationScope.nonCancellable(() => condition(() => open.answer !== undefined));
    else await this.#record(open, { status: 'withdrawn' });
    if (open.answer !== undefined) this.#close(open, open.answer);
  }

  /** From here on no decision is taken; the task's end withdraws in the stores what is still pending. */
  end(): void {
    this.#open = undefined;
    this.#progress.update({ pendingApproval: null });
  }

  async #request(question: Question): Promise<Open> {
    const { input, settings, stepId, n, callKey, exceeded } = question;
    const last = this.#last;
    // The same limit again, and nothing was raised since somebody let it pass: asking again would change nothing.
    const isInVain =
      last !== undefined &&
      isSameLimit(last.exceeded, exceeded) &&
      !last.raised &&
      last.seen === this.#news.count;
    if (isInVain || this.#questions >= MOST_QUESTIONS) throw taskFailure(exceeded);
    this.#questions += 1;
    const { workflowId: taskId, runId } = workflowInfo();
    const { timeoutSeconds, onTimeout } = settings.approval;
    const approvalId = `${runId}.${stepId}.${n}.${this.#questions}`;
    const expiresAtMs = Math.min(Date.now() + timeoutSeconds * 1_000, question.deadlineMs);
    const expiresAt = new Date(expiresAtMs).toISOString();
    await localFirst('ask for an approval', (activities) =>
      activities.requestApproval({
        ...{ taskId, runId, tenantId: this.#tenantId, userId: input.userId },
        ...{ approvalId, stepId, callKey, exceeded, onTimeout, expiresAt },
      }),
    );
    const open: Open = { approvalId, exceeded, expiresAtMs, isClaimed: false, answer: undefined };
    this.#open = open;
    this.#progress.update({ pendingApproval: { approvalId, exceeded, expiresAt } });
    return open;
  }

  /** Undefined: a budget changed, and the call is to be tried again with the approval still open. */
  async #answered(open: Open, { seen }: Question): Promise<RecordedDecision | undefined> {
    const limit = toApprovalName(open.exceeded);
    const until = new Date(open.expiresAtMs).toISOString();
    this.#progress.update({ phase: 'waiting', waiting: { reason: limit, until } });
    const isOver = () => open.isClaimed || this.#news.count !== seen;
    const leftMs = Math.max(0, open.expiresAtMs - Date.now());
    if (!isOver() && leftMs > 0)
      await condition(isOver, leftMs, { summary: toSummary(`waits for ${limit}`) });
    if (open.isClaimed) await condition(() => open.answer !== undefined);
    else if (this.#news.count === seen) await this.#record(open, { status: 'timed_out' });
    return open.answer;
  }

  /** Claims first, so that of a decision and the end of its time only one is recorded; then records, whatever is cancelled. */
  async #record(
    open: Open,
    decision: Pick<RecordDecisionInput, 'status' | 'raiseUsd' | 'comment' | 'by'>,
  ): Promise<RecordedDecision> {
    open.isClaimed = true;
    const { workflowId: taskId, runId } = workflowInfo();
    const { approvalId } = open;
    const answer = await CancellationScope.nonCancellable(() =>
      localFirst('record a decision', (activities) =>
        activities.recordDecision({ taskId, runId, tenantId: this.#tenantId, approvalId, ...decision }),
      ),
    );
    open.answer = answer;
    return answer;
  }

  #close({ approvalId, exceeded }: Open, answer: RecordedDecision): void {
    // What was taken back was not answered, and may be asked again.
    if (answer.status !== 'withdrawn')
      this.#last = { exceeded, raised: answer.raiseUsd !== undefined, seen: this.#news.count };
    this.#decidedId = approvalId;
    this.#open = undefined;
    this.#progress.update({ pendingApproval: null });
  }
}

function isSameLimit(one: BudgetExceededDetails, other: BudgetExceededDetails): boolean {
  return (
    one.scope === other.scope && one.id === other.id && one.unit === other.unit && one.window === other.window
  );
}
