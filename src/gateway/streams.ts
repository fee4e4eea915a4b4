// Routes of a task's events: what is stored, and what comes.

import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { type Cursor, EVENT_TYPES, type EventType, parseCursor } from '../task/event.ts';
import { catchUp } from './catch-up.ts';
import { invalidRequest, notFound } from './errors.ts';
import { follow } from './follow.ts';
import type { App, RouteParts } from './parts.ts';
import { eventPage, id, problemAnswer, queryList, queryNumber, toList } from './schemas.ts';
import { sendEvents } from './sse.ts';
import { findTask, toStatus } from './task-view.ts';

const DEFAULT_PAGE = 200;
const MAX_PAGE = 1_000;
const MAX_SEQ = 999_999_999_999_999;

const taskParams = z.object({ taskId: id });

const streamQuery = z.strictObject({
  after: z
    .string()
    .optional()
    .describe('The id of the last event the reader has; the header `Last-Event-ID` wins'),
  types: queryList
    .optional()
    .describe('Only these types; `reset` and `stream_end` always come, `call_snapshot` with `call_delta`'),
});

export function registerStreams(app: App, parts: RouteParts): void {
  app.get(
    '/tasks/:taskId/events',
    {
      schema: {
        tags: ['tasks'],
        summary: 'Stored events of a task, oldest first',
        description:
          'Milestones only: streamed text is in the stream and in the result. Numbers that are missing are those of deltas.',
        params: taskParams,
        querystring: z.strictObject({
          after: queryNumber(0, MAX_SEQ).optional().describe('Only events with a higher `seq`'),
          limit: queryNumber(1, MAX_PAGE).optional(),
        }),
        response: { 200: eventPage, default: problemAnswer },
      },
    },
    async ({ params, query }) => {
      await assertKnown(parts, params.taskId);
      const limit = Number(query.limit ?? DEFAULT_PAGE);
      const events = await parts.stores.events.stored(params.taskId, Number(query.after ?? 0), limit + 1);
      const page = events.slice(0, limit);
      const last = page.at(-1);
      return { events: page, ...(events.length > limit && last !== undefined ? { next: last.seq } : {}) };
    },
  );
  registerStream(app, parts);
}

function registerStream(app: App, parts: RouteParts): void {
  app.get(
    '/tasks/:taskId/stream',
    {
      exposeHeadRoute: false,
      schema: {
        tags: ['tasks'],
        summary: 'Follow a task (server-sent events)',
        description:
          'From the beginning, or after the event that `Last-Event-ID` or `?after=` names; ends after `stream_end`. Text that is no longer ' +
          'at hand piece by piece comes as one `call_snapshot` that replaces what the reader has of that call. `reset`: everything is told ' +
          'again. A reader that has the last event already gets 204.',
        params: taskParams,
        querystring: streamQuery,
        response: {
          200: { description: 'The stream', content: { 'text/event-stream': { schema: z.string() } } },
          204: z.undefined().describe('The reader has everything'),
          default: problemAnswer,
        },
      },
    },
    async (request, reply) => {
      const { taskId } = request.params;
      const after = readCursor(request, request.query.after);
      const types = readTypes(request.query.types);
      await assertKnown(parts, taskId);
      if (after !== undefined && (await hasAll(parts, taskId, after))) return reply.code(204).send();
      await parts.streams.run(reply.raw, () =>
        sendEvents(reply, {
          heartbeatMs: parts.settings.heartbeatMs,
          closing: parts.streams.closing,
          events: (signal) =>
            follow(parts.stores, taskId, {
              after,
              types,
              signal,
              endedSilently: () => endedSilently(parts, taskId),
              onOutage: (error) => parts.log.debug('a stream waits for a store', { taskId, error }),
            }),
        }),
      );
    },
  );
}

async function assertKnown(parts: RouteParts, taskId: string): Promise<void> {
  const sources = { tasks: parts.stores.tasks, client: parts.client };
  if ((await findTask(sources, taskId)) === undefined) throw notFound(`there is no task ${taskId}`);
}

/** Whether nothing can come after this position. While a store is away nobody knows: then the stream is opened and waits. */
async function hasAll(parts: RouteParts, taskId: string, after: Cursor): Promise<boolean> {
  try {
    const { isOver, events } = await catchUp(parts.stores, taskId, after, parts.streams.closing);
    return isOver && events.length === 0;
  } catch (error) {
    parts.log.debug('a stream waits for a store', { taskId, error });
    return false;
  }
}

/** How a task ended that has no row, and so no events. */
async function endedSilently(parts: RouteParts, taskId: string): Promise<string | undefined> {
  if ((await parts.stores.tasks.get(taskId)) !== undefined) return undefined;
  const execution = await parts.client.describe(taskId);
  const status = execution === undefined ? undefined : toStatus(execution.status);
  return status === 'queued' ? undefined : status;
}

function readCursor(request: FastifyRequest, after: string | undefined): Cursor | undefined {
  const header = request.headers['last-event-id'];
  const [path, text] =
    typeof header === 'string' && header !== '' ? ['Last-Event-ID', header] : ['after', after];
  if (text === undefined || text === '') return undefined;
  const cursor = parseCursor(text);
  if (cursor === undefined)
    throw invalidRequest([
      { path, expected: 'the id of an event, as in 1-42', got: JSON.stringify(text.slice(0, 100)) },
    ]);
  return cursor;
}

function readTypes(given: string | readonly string[] | undefined): ReadonlySet<EventType> | undefined {
  const names = toList(given);
  if (names.length === 0) return undefined;
  const known = EVENT_TYPES.filter((type) => names.includes(type));
  const unknown = names.filter((name) => !known.some((type) => type === name));
  if (unknown.length > 0)
    throw invalidRequest(
      unknown.map((name) => ({
        path: 'types',
        expected: `some of ${EVENT_TYPES.join(', ')}`,
        got: JSON.stringify(name.slice(0, 100)),
      })),
    );
  return new Set(known);
}
