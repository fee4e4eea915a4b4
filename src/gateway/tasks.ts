// Routes of tasks: submit, list, one, cancel.

import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import type { TaskView } from '../client/wire.ts';
import { MAX_INPUT_BYTES } from '../task/input.ts';
import { isEnded, TASK_STATUSES } from '../task/status.ts';
import { BY_API, raised, raiseInput } from './approval-schemas.ts';
import { conflict, invalidRequest, notFound } from './errors.ts';
import { follow } from './follow.ts';
import type { App, RouteParts } from './parts.ts';
import { MAX_WAIT_SECONDS, preferredWait } from './prefer.ts';
import { id, problemAnswer, queryNumber, task, taskAccepted, taskPage } from './schemas.ts';
import { checkingQueryOnly, submit, submitQuery } from './submit.ts';
import { taskInput } from './task-input-schema.ts';
import { findTask, linksOf, toTaskView } from './task-view.ts';

const DEFAULT_PAGE = 50;
const MAX_PAGE = 200;
const CURSOR = /^(\d{1,15})\.(.+)$/;

const taskParams = z.object({ taskId: id });

export function registerTasks(app: App, parts: RouteParts): void {
  const { tasks } = parts.stores;
  const sources = { tasks, client: parts.client };
  registerSubmit(app, parts);
  registerRaise(app, parts);

  app.get(
    '/tasks',
    {
      schema: {
        tags: ['tasks'],
        summary: 'List tasks, newest first',
        querystring: z.strictObject({
          tenantId: id.optional(),
          user: id.optional(),
          session: id.optional(),
          status: z.enum(TASK_STATUSES).optional(),
          limit: queryNumber(1, MAX_PAGE).optional(),
          cursor: z.string().max(300).optional().describe('`next` of the page before'),
        }),
        response: { 200: taskPage, default: problemAnswer },
      },
    },
    async ({ query }) => {
      const limit = Number(query.limit ?? DEFAULT_PAGE);
      const { tenantId, user: userId, session: sessionId, status } = query;
      // One more than asked for tells whether there is a next page.
      const rows = await tasks.list({
        tenantId,
        userId,
        sessionId,
        status,
        after: readCursor(query.cursor),
        limit: limit + 1,
      });
      const page = rows.slice(0, limit);
      const last = page.at(-1);
      const next = rows.length > limit && last !== undefined ? { next: toCursor(last) } : {};
      return { tasks: page.map(toTaskView), ...next };
    },
  );

  app.get(
    '/tasks/:taskId',
    {
      schema: {
        tags: ['tasks'],
        summary: 'One task, with its result, usage and cost',
        params: taskParams,
        response: { 200: task, default: problemAnswer },
      },
    },
    async ({ params }) => (await findTask(sources, params.taskId)) ?? unknownTask(params.taskId),
  );

  app.post(
    '/tasks/:taskId/cancel',
    {
      schema: {
        tags: ['tasks'],
        summary: 'Ask a task to stop',
        description: '202 when it was asked, 200 when it had ended before.',
        params: taskParams,
        response: { 200: task, 202: task, default: problemAnswer },
      },
    },
    async ({ params }, reply) => {
      const isAsked = await parts.client.cancel(params.taskId);
      const found = (await findTask(sources, params.taskId)) ?? unknownTask(params.taskId);
      // Temporal takes the wish also for a workflow that has ended.
      if (isEnded(found.status)) return reply.code(200).send(found);
      if (!isAsked) throw conflict('NotStarted', `the workflow of ${params.taskId} has not started yet`);
      return reply.code(202).send(found);
    },
  );
}

function registerRaise(app: App, parts: RouteParts): void {
  app.post(
    '/tasks/:taskId/budget',
    {
      schema: {
        tags: ['tasks'],
        summary: "Raise a running task's own limits",
        description:
          'A call that waits for one of them looks again. 409 when the task does not run, or has no limit of the unit.',
        params: taskParams,
        body: raiseInput,
        response: { 200: raised, default: problemAnswer },
      },
    },
    async ({ params: { taskId }, body }) => {
      const found = (await findTask({ ...parts, ...parts.stores }, taskId)) ?? unknownTask(taskId);
      if (isEnded(found.status)) throw conflict('NotRunning', `the task ${taskId} has ended`);
      return { taskId, ...(await parts.client.raiseBudget(taskId, { by: BY_API, ...body })) };
    },
  );
}

function registerSubmit(app: App, parts: RouteParts): void {
  const { tasks } = parts.stores;
  app.post(
    '/tasks',
    {
      bodyLimit: MAX_INPUT_BYTES,
      validatorCompiler: checkingQueryOnly,
      schema: {
        tags: ['tasks'],
        summary: 'Submit a task',
        description:
          `202 once it is accepted. With \`Prefer: wait=N\` (seconds, at most ${MAX_WAIT_SECONDS}) 200 with the task and its result when it ` +
          'ends in time. An id that was used by a task that has ended may be used again.',
        querystring: submitQuery,
        body: taskInput,
        response: { 200: task, 202: taskAccepted, default: problemAnswer },
      },
    },
    async ({ body, query, headers, raw }, reply) => {
      const wait = preferredWait(headers['prefer']);
      const taskId = await submit({ ...parts, tasks }, body, query.taskId);
      if (wait !== undefined) reply.header('preference-applied', `wait=${wait}`);
      const isOver =
        wait !== undefined && (await endsWithin(parts, taskId, { seconds: wait, client: raw.socket }));
      const row = await tasks.get(taskId);
      if (isOver && row !== undefined && isEnded(row.status)) return reply.code(200).send(toTaskView(row));
      return accepted(reply, taskId, row?.status ?? 'queued');
    },
  );
}

function accepted(reply: FastifyReply, taskId: string, status: TaskView['status']) {
  const links = linksOf(taskId);
  return reply.code(202).header('location', links.self).send({ taskId, status, links });
}

/** Waits for the end of a task's events; false when that did not come in time, or nobody waits any more. */
async function endsWithin(
  parts: RouteParts,
  taskId: string,
  { seconds, client }: { readonly seconds: number; readonly client: NodeJS.EventEmitter },
): Promise<boolean> {
  const gone = new AbortController();
  const onClose = () => gone.abort();
  client.once('close', onClose);
  const signal = AbortSignal.any([AbortSignal.timeout(seconds * 1000), gone.signal, parts.streams.closing]);
  try {
    for await (const _ of follow(parts.stores, taskId, { signal, types: new Set() })) return true;
    return false;
  } finally {
    client.off('close', onClose);
  }
}

function unknownTask(taskId: string): never {
  throw notFound(`there is no task ${taskId}`);
}

function toCursor({ createdAt, taskId }: { readonly createdAt: Date; readonly taskId: string }): string {
  return Buffer.from(`${createdAt.getTime()}.${taskId}`).toString('base64url');
}

function readCursor(cursor: string | undefined): { createdAt: Date; taskId: string } | undefined {
  if (cursor === undefined) return undefined;
  const [, ms, taskId] = CURSOR.exec(Buffer.from(cursor, 'base64url').toString()) ?? [];
  if (ms === undefined || taskId === undefined)
    throw invalidRequest([
      { path: 'cursor', expected: '`next` of a page', got: JSON.stringify(cursor.slice(0, 100)) },
    ]);
  return { createdAt: new Date(Number(ms)), taskId };
}
