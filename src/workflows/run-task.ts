// The workflow of one task: checks its input, begins, makes its calls, finishes. It reads no configuration, environment, clock or
// metric of its own; what it needs of them comes recorded from `begin`.

import {
  allHandlersFinished,
  CancellationScope,
  CancelledFailure,
  condition,
  defineQuery,
  defineSignal,
  defineUpdate,
  isCancellation,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { BeginOutcome, LeftBooking, RateDelay, TaskSettings } from '../task/decision.ts';
import { endedStatus } from '../task/degradation.ts';
import type { FailureDetails, Fault } from '../task/failure.ts';
import { failureMessage } from '../task/failure.ts';
import { parseTaskInput, type TaskInput, taskIdFault } from '../task/input.ts';
import { messageText } from '../task/message.ts';
import type { EndedStatus } from '../task/status.ts';
import { ApprovalDesk } from './approvals.ts';
import { BudgetNews } from './budget-news.ts';
import { BudgetRaises } from './budget-raises.ts';
import { failureDetailsOf, taskFailure } from './failure.ts';
import { governedCall } from './governed-call.ts';
import {
  type ApprovalDecided,
  type ApprovalDecision,
  BUDGET_CHANGED_SIGNAL,
  type BudgetRaise,
  type BudgetRaised,
  DECIDE_APPROVAL_UPDATE,
  RAISE_BUDGET_UPDATE,
  STATUS_QUERY,
  type TaskResult,
  type TaskStatusReport,
} from './messages.ts';
import { Progress } from './progress.ts';
import { localFirst } from './proxies.ts';
import { upsertEnd, upsertMissing } from './search-attributes.ts';

const statusQuery = defineQuery<TaskStatusReport>(STATUS_QUERY);
const decideApprovalUpdate = defineUpdate<ApprovalDecided, [ApprovalDecision]>(DECIDE_APPROVAL_UPDATE);
const raiseBudgetUpdate = defineUpdate<BudgetRaised, [BudgetRaise]>(RAISE_BUDGET_UPDATE);
const budgetChangedSignal = defineSignal(BUDGET_CHANGED_SIGNAL);

/** @throws ApplicationFailure with a type of task/failure.ts when the task ends without an answer */
export async function runTask(raw: unknown): Promise<TaskResult> {
  const input = checkInput(raw);
  const title = input.messages.findLast((message) => message.role === 'user');
  const progress = new Progress(title === undefined ? '' : messageText(title));
  const news = new BudgetNews();
  const approvals = new ApprovalDesk(input.tenantId, progress, news);
  const raises = new BudgetRaises(input.tenantId, news);
  // Before the first await: what comes in with the start finds them.
  setHandler(statusQuery, () => progress.report);
  setHandler(budgetChangedSignal, () => news.tell());
  setHandler(decideApprovalUpdate, (decision) => approvals.decide(decision), {
    validator: (decision) => approvals.check(decision),
  });
  setHandler(raiseBudgetUpdate, (raise) => raises.raise(raise), {
    validator: (raise) => raises.check(raise),
  });
  const { workflowId: taskId, runId } = workflowInfo();

  const begun = await localFirst<BeginOutcome>('begin', (activities) =>
    activities.begin({ taskId, runId, input, queuedAtMs: workflowInfo().startTime.getTime() }),
  );
  if (begun.kind === 'invalid') throw invalid(begun.faults);
  const { settings } = begun;
  if (settings.searchAttributes) upsertMissing(input, settings.strategy);
  const task: RunningTask = { input, settings, progress, news, approvals, raises, left: [] };
  if (begun.kind === 'refuse') {
    await finishFailed(task, begun.failure);
    throw taskFailure(begun.failure);
  }
  raises.open();
  return runToEnd(begun.rateDelay === undefined ? task : { ...task, delay: begun.rateDelay });
}

type RunningTask = {
  readonly input: TaskInput;
  readonly settings: TaskSettings;
  readonly progress: Progress;
  readonly news: BudgetNews;
  readonly approvals: ApprovalDesk;
  readonly raises: BudgetRaises;
  readonly delay?: RateDelay;
  /** Places in rate control that calls have booked and do not come for. */
  readonly left: LeftBooking[];
};

const STEP_ID = 'answer';

async function runToEnd(task: RunningTask): Promise<TaskResult> {
  try {
    return await answer(task);
  } catch (error) {
    if (isCancellation(error) && !(error instanceof AnsweredAndCancelled))
      await finish(task, { status: 'cancelled' });
    const details = failureDetailsOf(error);
    if (details !== undefined) await finishFailed(task, details);
    throw error;
  }
}

/** The task was cancelled and has finished with the answer that its call brought home. */
class AnsweredAndCancelled extends CancelledFailure {}

/** The strategy `simple`: one call is the answer. */
async function answer(task: RunningTask): Promise<TaskResult> {
  const { settings, progress } = task;
  const call = await governedCall({ ...task, stepId: STEP_ID, n: 1 });
  const { callKey, model, clampedTo, degradedTo } = call;
  progress.spent(call.usage, call.costUsd);
  progress.update({ phase: 'finishing', currentStep: null });
  const end = { answer: { callKey, stepId: STEP_ID, model } };
  // A call that was let finish, or that won the race, is kept; the task is cancelled all the same.
  if (CancellationScope.current().consideredCancelled) {
    await finish(task, { status: 'cancelled', ...end });
    throw new AnsweredAndCancelled('the task was cancelled');
  }
  const steps = [{ stepId: STEP_ID, status: 'completed', model }];
  const { strategy, degradation } = settings;
  const ended = endedStatus(steps, { strategy, level: degradation?.level ?? 'none' });
  // Never failed: a call without an answer has thrown.
  const status = ended === 'completed' ? ended : 'partial';
  const finished = await finish(task, { status, ...end });
  return {
    taskId: workflowInfo().workflowId,
    status,
    text: finished.text,
    ...(finished.textRef === undefined ? {} : { textRef: finished.textRef }),
    usage: finished.usage,
    costUsd: finished.costUsd,
    model,
    strategy,
    steps,
    ...(clampedTo === undefined ? {} : { clampedTo }),
    ...(degradedTo === undefined ? {} : { degradedTo }),
    ...(degradation === undefined ? {} : { degradation }),
  };
}

function finishFailed(task: RunningTask, details: FailureDetails) {
  return finish(task, {
    status: 'failed',
    error: { type: details.type, message: failureMessage(details), details },
  });
}

type End = {
  readonly status: EndedStatus;
  readonly answer?: { readonly callKey: string; readonly stepId: string; readonly model: string };
  readonly error?: { readonly type: string; readonly message: string; readonly details: FailureDetails };
};

/** Runs also in a task that is being cancelled: its end belongs to the record. */
function finish(task: RunningTask, end: End) {
  const { workflowId: taskId, runId } = workflowInfo();
  const { tenantId } = task.input;
  const { strategy, maxTextBytes } = task.settings;
  task.approvals.end();
  task.raises.close();
  return CancellationScope.nonCancellable(async () => {
    // Who decided or raised in the last moment gets an answer, and its record comes before the end.
    await condition(allHandlersFinished);
    const finished = await localFirst('finish', (activities) =>
      activities.finish({
        taskId,
        runId,
        tenantId,
        strategy,
        priority: task.input.priority,
        maxTextBytes,
        ...end,
        ...(task.left.length === 0 ? {} : { left: task.left }),
      }),
    );
    const tokens = finished.usage.inputTokens + finished.usage.outputTokens;
    if (task.settings.searchAttributes) upsertEnd({ status: end.status, costUsd: finished.costUsd, tokens });
    task.progress.update({
      phase: end.status,
      usage: finished.usage,
      costUsd: finished.costUsd,
      waiting: null,
    });
    return finished;
  });
}

/** The first thing of a run. What is wrong with an input ends the workflow, it never repeats a workflow task. */
function checkInput(raw: unknown): TaskInput {
  const parsed = parseTaskInput(raw);
  const idFault = taskIdFault(workflowInfo().workflowId);
  const faults = [
    ...(idFault === undefined ? [] : [idFault]),
    ...(parsed.kind === 'invalid' ? parsed.faults : []),
  ];
  if (faults.length > 0 || parsed.kind === 'invalid') throw invalid(faults);
  return parsed.input;
}

function invalid(faults: readonly Fault[]) {
  return taskFailure({ type: 'InvalidTask', faults });
}
