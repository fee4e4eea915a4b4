// `begin` and `finish`: a task's first and last step. Both run as local activities first and may be repeated: everything they write is
// idempotent per run.

import { toBudgetExceeded } from '../calls/exceeded.ts';
import type { Logger } from '../log.ts';
import type { Accounts } from '../stores/accounts.ts';
import type { Events } from '../stores/events.ts';
import type { Ledger } from '../stores/ledger.ts';
import type { Limits } from '../stores/limits.ts';
import type { Tasks } from '../stores/tasks.ts';
import type { Payer } from '../task/budget.ts';
import type { BeginOutcome, LeftBooking, TaskPlan } from '../task/decision.ts';
import type { Health } from '../task/degradation.ts';
import type { EventDraft } from '../task/event.ts';
import { type FailureDetails, tooManyTasks } from '../task/failure.ts';
import type { TaskInput } from '../task/input.ts';
import { messageText } from '../task/message.ts';
import { formatUsd } from '../task/money.ts';
import type { EndedStatus } from '../task/status.ts';
import { toSummary, utf8Bytes } from '../task/text.ts';
import type { UsageTotals } from '../task/usage.ts';
import { degradedEvents, planDegraded } from './degraded-plan.ts';
import { giveUpPlaces, type RateActivityDependencies, rateDelay } from './rate.ts';

export type BeginInput = {
  readonly taskId: string;
  readonly runId: string;
  readonly input: TaskInput;
  /** Since when the task waits, by Temporal's clock; in milliseconds since 1970. Absent in old histories. */
  readonly queuedAtMs?: number;
};

export type FinishInput = {
  readonly taskId: string;
  readonly runId: string;
  readonly tenantId: string;
  readonly strategy: string;
  readonly priority: string;
  readonly maxTextBytes: number;
  readonly status: EndedStatus;
  readonly answer?: { readonly callKey: string; readonly stepId: string; readonly model: string };
  readonly error?: { readonly type: string; readonly message: string; readonly details: FailureDetails };
  /** Places in rate control that nobody comes for any more. */
  readonly left?: readonly LeftBooking[];
};

export type FinishOutcome = {
  readonly text: string;
  /** Set when the text is larger than may go through a history. */
  readonly textRef?: string;
  readonly usage: UsageTotals;
  readonly costUsd: string;
};

export type TaskMeter = {
  started(task: { strategy: string; priority: string }): void;
  ended(task: { strategy: string; status: string; seconds: number; tokens: number; usd: number }): void;
};

export type TaskActivityDependencies = RateActivityDependencies & {
  readonly plan: (input: TaskInput) => TaskPlan;
  /** Of what this process depends on, at the moment. */
  readonly health: () => Health;
  readonly tasks: Tasks;
  readonly limits: Limits;
  readonly accounts: Pick<Accounts, 'settled'>;
  readonly ledger: Pick<Ledger, 'result' | 'gate'>;
  readonly events: Pick<Events, 'publishPending' | 'append'>;
  readonly meter: TaskMeter;
  readonly log: Logger;
};

/** More than clocks of one fleet differ by. */
const TURNS_SOON_MS = 10_000;

export function createTaskActivities(dependencies: TaskActivityDependencies) {
  return {
    begin: (given: BeginInput): Promise<BeginOutcome> => begin(dependencies, given),
    finish: (given: FinishInput): Promise<FinishOutcome> => finish(dependencies, given),
  };
}

async function begin(dependencies: TaskActivityDependencies, given: BeginInput): Promise<BeginOutcome> {
  const { taskId, runId, input } = given;
  const plan = planDegraded(dependencies.plan, input, dependencies.health());
  if (plan.kind === 'invalid') return plan;
  const { settings } = plan;
  await dependencies.ledger.gate(input.tenantId);
  const title = input.messages.findLast((message) => message.role === 'user');
  const events: readonly EventDraft[] = [
    {
      id: `${runId}:begin`,
      type: 'task_started',
      message: title === undefined ? '' : toSummary(messageText(title)),
      data: { strategy: settings.strategy, model: settings.model, priority: input.priority },
    },
    ...degradedEvents(runId, plan),
    { id: `${runId}:step:answer`, type: 'step_started', stepId: 'answer' },
  ];
  const isNew = await dependencies.tasks.begin(
    {
      taskId,
      runId,
      input,
      strategy: settings.strategy,
      model: settings.model,
      limits: plan.limits,
      degradation: settings.degradation,
    },
    events,
  );
  if (isNew) dependencies.meter.started({ strategy: settings.strategy, priority: input.priority });
  await publish(dependencies, given, input.tenantId);
  const { tenantId, userId, sessionId } = input;
  // Whoever starts a task past the gateway meets its tenant's cap here.
  if (await dependencies.tasks.isOverCap({ tenantId, taskId }))
    return { kind: 'refuse', settings, failure: tooManyTasks(tenantId, dependencies.tasks.maxQueued ?? 0) };
  const failure =
    settings.onExceeded === 'refuse'
      ? await exhausted(dependencies, { tenantId, userId, sessionId, taskId }, plan.isFree === true)
      : undefined;
  if (failure !== undefined) return { kind: 'refuse', settings, failure };
  const { queuedAtMs } = given;
  const delay = await rateDelay(dependencies, {
    ...{ taskId, runId, input, settings, queuedAtMs },
    stepId: 'answer',
  });
  return { kind: 'go', settings, ...(delay === undefined ? {} : { rateDelay: delay }) };
}

/**
 * Refuses before any call only what no release and no wait can help: settled spend alone fills a hard limit, and the task does not want
 * anything but a refusal then.
 */
async function exhausted(
  dependencies: TaskActivityDependencies,
  payer: Payer,
  isFree: boolean,
): Promise<FailureDetails | undefined> {
  const limits = (await dependencies.limits.binding(payer)).filter((limit) => limit.hard);
  const nowMs = Date.now();
  for (const limit of limits) {
    const interval = dependencies.limits.intervalOf(limit, nowMs);
    // This clock is not the one that holds are made by: close to a turn, only the hold knows which window it is in.
    if (interval.endMs - nowMs < TURNS_SOON_MS) continue;
    const spent = await dependencies.accounts.settled(payer.tenantId, limit.scope, interval);
    const settled = limit.unit === 'usd' ? spent.nanoUsd : spent.tokens;
    if (settled < limit.amount) continue;
    // What costs nothing fits into a limit that is used up to the last, as long as there is one.
    if (isFree && limit.unit === 'usd' && settled === limit.amount && limit.amount > 0n) continue;
    const details = toBudgetExceeded({ limit, settled, held: 0n, interval }, { nanoUsd: 0n, tokens: 0 });
    await dependencies.limits.noteRefusal(payer.tenantId, details);
    return details;
  }
  return undefined;
}

async function finish(dependencies: TaskActivityDependencies, given: FinishInput): Promise<FinishOutcome> {
  const { taskId, runId, status } = given;
  await giveUpPlaces(dependencies, given.left ?? []);
  const answer =
    given.answer === undefined ? undefined : await dependencies.ledger.result(given.answer.callKey);
  if (given.answer !== undefined && answer === undefined)
    throw new Error(`call ${given.answer.callKey} of a completed task has no result`);
  const text = answer?.text ?? '';
  const isFirst = await dependencies.tasks.end(
    { taskId, runId },
    {
      status,
      ...(answer === undefined ? {} : { resultText: text }),
      steps: [
        {
          stepId: 'answer',
          // A cancelled task keeps the answer that its call brought home.
          status: status === 'cancelled' && given.answer !== undefined ? 'completed' : status,
          ...(given.answer === undefined ? {} : { callKey: given.answer.callKey, model: given.answer.model }),
        },
      ],
      ...(given.error === undefined ? {} : { error: given.error }),
    },
    endEvents(given),
  );
  const row = await dependencies.tasks.get(taskId);
  if (row === undefined) throw new Error(`task ${taskId} has no row`);
  if (isFirst) {
    const seconds =
      ((row.endedAt ?? new Date()).getTime() - (row.startedAt ?? row.createdAt).getTime()) / 1000;
    const tokens = row.usage.inputTokens + row.usage.outputTokens;
    dependencies.meter.ended({
      strategy: given.strategy,
      status,
      seconds,
      tokens,
      usd: Number(row.nanoUsd) / 1e9,
    });
  }
  await publish(dependencies, given, given.tenantId);
  const fits = utf8Bytes(text) <= given.maxTextBytes;
  return {
    text: fits ? text : '',
    ...(fits ? {} : { textRef: `task:${taskId}` }),
    usage: row.usage,
    costUsd: formatUsd(row.nanoUsd),
  };
}

function endEvents(given: FinishInput): readonly EventDraft[] {
  const { runId, status } = given;
  const isGood = status === 'completed' || status === 'partial';
  const isAnswered = isGood || given.answer !== undefined;
  const data =
    given.error === undefined ? {} : { data: { type: given.error.type, details: given.error.details } };
  const message = given.error === undefined ? {} : { message: given.error.message };
  return [
    { id: `${runId}:step:answer:end`, type: isAnswered ? 'step_completed' : 'step_failed', stepId: 'answer' },
    {
      id: `${runId}:finish`,
      type: isGood ? 'task_completed' : status === 'cancelled' ? 'task_cancelled' : 'task_failed',
      ...message,
      ...data,
    },
    { id: `${runId}:stream_end`, type: 'stream_end', data: { status } },
  ];
}

/** Visible soon; what cannot be published now is found by the sweeper. */
async function publish(
  dependencies: TaskActivityDependencies,
  task: { taskId: string; runId: string },
  tenantId: string,
): Promise<void> {
  const { taskId, runId } = task;
  await dependencies.events.publishPending({ taskId, runId, tenantId }).catch((error: unknown) => {
    dependencies.log.warn('events left to the sweeper', { taskId, error });
  });
}
