// Accepts a task: checks it, writes its row, starts its workflow. A task that was accepted can be read at once, whatever happens next.

import { randomUUID } from 'node:crypto';
import type { FastifySchemaCompiler } from 'fastify';
import { validatorCompiler } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { TaskClient } from '../client/task-client.ts';
import type { Logger } from '../log.ts';
import type { Tasks } from '../stores/tasks.ts';
import type { TaskPlan } from '../task/decision.ts';
import { tooManyTasks } from '../task/failure.ts';
import { parseTaskInput, type TaskInput, taskIdFault } from '../task/input.ts';
import { isEnded } from '../task/status.ts';
import { conflict, refusal } from './errors.ts';

export type SubmitParts = {
  readonly tasks: Pick<Tasks, 'get' | 'queue' | 'unqueue' | 'maxQueued'>;
  readonly client: Pick<TaskClient, 'start' | 'describe'>;
  readonly plan: (input: TaskInput) => TaskPlan;
  readonly log: Logger;
};

export const submitQuery = z.strictObject({
  taskId: z.string().optional().describe('An id of your own; it is no part of the input'),
});

/** The schema of the body is there to be read; task/input.ts decides. */
export const checkingQueryOnly: FastifySchemaCompiler<unknown> = (route) =>
  route.httpPart === 'body'
    ? (value: unknown) => ({ value })
    : validatorCompiler({ ...route, schema: submitQuery });

/** Answers the id of the task that now runs. @throws HttpProblem 400, 409 and 429 · what stores and Temporal throw */
export async function submit(
  parts: SubmitParts,
  body: unknown,
  givenId: string | undefined,
): Promise<string> {
  const taskId = givenId ?? `task-${randomUUID()}`;
  const { input, settings, limits } = checked(parts, body, taskId);
  if (givenId !== undefined) await refuseWhileRunning(parts, givenId);
  const { strategy, model } = settings;
  const queued = await parts.tasks.queue({ taskId, runId: undefined, input, strategy, model, limits });
  if (queued === 'taken') throw exists(taskId);
  if (queued === 'full') throw refusal(tooManyTasks(input.tenantId, parts.tasks.maxQueued ?? 0));
  try {
    await parts.client.start(body, taskId);
  } catch (error) {
    // The start may have reached Temporal and only its answer be lost: then `begin` writes the row again.
    await parts.tasks.unqueue(taskId).catch((cause: unknown) => {
      parts.log.warn('row of a task that was not started is left to the reconciler', {
        taskId,
        error: cause,
      });
    });
    throw error;
  }
  return taskId;
}

function checked(parts: SubmitParts, body: unknown, taskId: string) {
  const idFault = taskIdFault(taskId);
  const parsed = parseTaskInput(body);
  const faults = [
    ...(idFault === undefined ? [] : [idFault]),
    ...(parsed.kind === 'invalid' ? parsed.faults : []),
  ];
  if (parsed.kind === 'invalid' || faults.length > 0) throw refusal({ type: 'InvalidTask', faults });
  const plan = parts.plan(parsed.input);
  if (plan.kind === 'invalid') throw refusal({ type: 'InvalidTask', faults: plan.faults });
  return { input: parsed.input, settings: plan.settings, limits: plan.limits };
}

/**
 * An ended row is overwritten by the next task of its id. Between the end of a task's row and that of its workflow a start would be
 * refused, and taking the new row back would leave nothing of the old task.
 */
async function refuseWhileRunning(parts: SubmitParts, taskId: string): Promise<void> {
  const row = await parts.tasks.get(taskId);
  if (row === undefined) return;
  if (!isEnded(row.status)) throw exists(taskId);
  const execution = await parts.client.describe(taskId);
  if (execution?.status === 'running') throw exists(taskId);
}

function exists(taskId: string) {
  return conflict('TaskExists', `a task with the id ${taskId} is running`);
}
