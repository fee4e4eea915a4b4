// The workflow of one task: checks its input, begins, makes its calls, finishes. It reads no configuration, environment, clock or
// metric of its own; what it needs of them comes recorded from `begin`.

import {
  CancellationScope,
  defineQuery,
  isCancellation,
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';
import type { BeginOutcome, TaskSettings } from '../task/decision.ts';
import type { FailureDetails, Fault } from '../task/failure.ts';
import { failureMessage } from '../task/failure.ts';
import { parseTaskInput, type TaskInput, taskIdFault } from '../task/input.ts';
import { messageText } from '../task/message.ts';
import type { EndedStatus } from '../task/status.ts';
import { failureDetailsOf, taskFailure } from './failure.ts';
import { governedCall } from './governed-call.ts';
import { STATUS_QUERY, type TaskResult, type TaskStatusReport } from './messages.ts';
import { Progress } from './progress.ts';
import { localFirst } from './proxies.ts';
import { upsertEnd, upsertMissing } from './search-attributes.ts';

const statusQuery = defineQuery<TaskStatusReport>(STATUS_QUERY);

/** @throws ApplicationFailure with a type of task/failure.ts when the task ends without an answer */
export async function runTask(raw: unknown): Promise<TaskResult> {
  const input = checkInput(raw);
  const title = input.messages.findLast((message) => message.role === 'user') ?? input.messages[0];
  const progress = new Progress(title === undefined ? '' : messageText(title));
  setHandler(statusQuery, () => progress.report);
  const { workflowId: taskId, runId } = workflowInfo();

  const begun = await localFirst<BeginOutcome>('begin', (activities) =>
    activities.begin({ taskId, runId, input }),
  );
  if (begun.kind === 'invalid') throw invalid(begun.faults);
  const { settings } = begun;
  if (settings.searchAttributes) upsertMissing(input, settings.strategy);
  const task: RunningTask = { input, settings, progress };
  if (begun.kind === 'refuse') {
    await finishFailed(task, begun.failure);
    throw taskFailure(begun.failure);
  }
  return runToEnd(task);
}

type RunningTask = {
  readonly input: TaskInput;
  readonly settings: TaskSettings;
  readonly progress: Progress;
};

const STEP_ID = 'answer';

/** The strategy `simple`: one call is the answer. */
async function runToEnd(task: RunningTask): Promise<TaskResult> {
  const { input, settings, progress } = task;
  try {
    const answer = await governedCall({ input, settings, stepId: STEP_ID, n: 1, progress });
    progress.spent(answer.usage, answer.costUsd);
    progress.update({ phase: 'finishing', currentStep: null });
    const finished = await finish(task, {
      status: 'completed',
      answer: { callKey: answer.callKey, stepId: STEP_ID, model: answer.model },
    });
    return {
      taskId: workflowInfo().workflowId,
      status: 'completed',
      text: finished.text,
      ...(finished.textRef === undefined ? {} : { textRef: finished.textRef }),
      usage: finished.usage,
      costUsd: finished.costUsd,
      model: answer.model,
      strategy: settings.strategy,
      steps: [{ stepId: STEP_ID, status: 'completed', model: answer.model }],
    };
  } catch (error) {
    if (isCancellation(error)) await finish(task, { status: 'cancelled' });
    const details = failureDetailsOf(error);
    if (details !== undefined) await finishFailed(task, details);
    throw error;
  }
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
  return CancellationScope.nonCancellable(async () => {
    const finished = await localFirst('finish', (activities) =>
      activities.finish({
        taskId,
        runId,
        tenantId,
        strategy,
        priority: task.input.priority,
        maxTextBytes,
        ...end,
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
