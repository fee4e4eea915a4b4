// Routes of a task's events: what is stored, and what comes.

import { z } from 'zod';
import type { Cursor } from '../task/event.ts';
import { MAX_INPUT_BYTES } from '../task/input.ts';
import { catchUp } from './catch-up.ts';
import type { App, RouteParts } from './parts.ts';
import { eventPage, problemAnswer, queryNumber } from './schemas.ts';
import { sendEvents } from './sse.ts';
import {
  assertKnown,
  endedSilently,
  followRequest,
  readStreamRequest,
  streamQuery,
  taskParams,
} from './stream-request.ts';
import { checkingQueryOnly, submit, submitQuery } from './submit.ts';
import { taskInput } from './task-input-schema.ts';
import { linksOf } from './task-view.ts';

const DEFAULT_PAGE = 200;
const MAX_PAGE = 1_000;
const MAX_SEQ = 999_999_999_999_999;

const streamAnswer = { description: 'The stream', content: { 'text/event-stream': { schema: z.string() } } };

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
  registerSubmitAndStream(app, parts);
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
          'again. A reader that has the last event already gets 204. One that stays too far behind is cut off, and resumes by id.',
        params: taskParams,
        querystring: streamQuery,
        response: {
          200: streamAnswer,
          204: z.undefined().describe('The reader has everything'),
          default: problemAnswer,
        },
      },
    },
    async (request, reply) => {
      const { taskId } = request.params;
      const asked = readStreamRequest(request);
      await assertKnown(parts, taskId);
      if (asked.after !== undefined && (await hasAll(parts, taskId, asked.after)))
        return reply.code(204).send();
      const events = followRequest(parts, taskId, asked);
      await sendEvents(reply, { streams: parts.streams, events });
    },
  );
}

function registerSubmitAndStream(app: App, parts: RouteParts): void {
  app.post(
    '/tasks/stream',
    {
      bodyLimit: MAX_INPUT_BYTES,
      validatorCompiler: checkingQueryOnly,
      schema: {
        tags: ['tasks'],
        summary: 'Submit a task and follow it (server-sent events)',
        description:
          'As `POST /tasks`, then `/stream` from the beginning in the same answer; `Location` is the task. A reader that is cut off goes on ' +
          'at `/tasks/{taskId}/stream`: the task runs on without it.',
        querystring: submitQuery,
        body: taskInput,
        response: { 200: streamAnswer, default: problemAnswer },
      },
    },
    async ({ body, query }, reply) => {
      const { tasks } = parts.stores;
      const taskId = await submit({ ...parts, tasks }, body, query.taskId);
      const events = followRequest(parts, taskId, { after: undefined, types: undefined });
      const headers = { location: linksOf(taskId).self };
      await sendEvents(reply, { streams: parts.streams, events, headers });
    },
  );
}

/** Whether nothing can come after this position. While a store is away nobody knows: then the stream is opened and waits. */
async function hasAll(parts: RouteParts, taskId: string, after: Cursor): Promise<boolean> {
  if (parts.stores.liveFeed.recent(taskId, after) !== undefined) return false;
  try {
    // The position of an end that no event tells.
    if (after.epoch === 0 && (await endedSilently(parts, taskId)) !== undefined) return true;
    const head = await parts.stores.events.head(taskId);
    if (head !== undefined && !head.ended) return false;
    const { isOver, events } = await catchUp(parts.stores, taskId, after);
    return isOver && events.length === 0;
  } catch (error) {
    parts.log.debug('a stream waits for a store', { taskId, error });
    return false;
  }
}
