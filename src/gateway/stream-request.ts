// What a request for a task's stream asks for, over SSE and WebSocket alike: from where on, which types, and whether there is such a task.

import { z } from 'zod';
import { type Cursor, EVENT_TYPES, type EventType, parseCursor } from '../task/event.ts';
import type { StreamReader } from './deliver.ts';
import { invalidRequest, notFound } from './errors.ts';
import type { EventBatch } from './event-batch.ts';
import { follow } from './follow.ts';
import type { RouteParts } from './parts.ts';
import { id, queryList, toList } from './schemas.ts';
import { toStatus } from './task-view.ts';

export const taskParams = z.object({ taskId: id });

export const streamQuery = z.strictObject({
  after: z
    .string()
    .optional()
    .describe('The id of the last event the reader has; the header `Last-Event-ID` wins'),
  types: queryList
    .optional()
    .describe('Only these types; `reset` and `stream_end` always come, `call_snapshot` with `call_delta`'),
});

export type StreamRequest = {
  readonly after: Cursor | undefined;
  /** Undefined: all. */
  readonly types: ReadonlySet<EventType> | undefined;
};

type Asked = {
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly query: z.infer<typeof streamQuery>;
};

/** @throws HttpProblem 400 */
export function readStreamRequest({ headers, query }: Asked): StreamRequest {
  return { after: readCursor(headers['last-event-id'], query.after), types: readTypes(query.types) };
}

/** @throws HttpProblem 404 */
export async function assertKnown(parts: RouteParts, taskId: string): Promise<void> {
  if (!(await parts.isKnown(taskId))) throw notFound(`there is no task ${taskId}`);
}

/** The events that a request asks for. */
export function followRequest(
  parts: RouteParts,
  taskId: string,
  request: StreamRequest,
): (reader: StreamReader) => AsyncIterable<EventBatch> {
  return (reader) =>
    follow(parts.stores, taskId, {
      ...request,
      ...reader,
      endedSilently: () => endedSilently(parts, taskId),
      onOutage: (error) => parts.log.debug('a stream waits for a store', { taskId, error }),
    });
}

/** How a task ended that has no row, and so no events. */
export async function endedSilently(parts: RouteParts, taskId: string): Promise<string | undefined> {
  if ((await parts.stores.tasks.get(taskId)) !== undefined) return undefined;
  const execution = await parts.client.describe(taskId);
  const status = execution === undefined ? undefined : toStatus(execution.status);
  return status === 'queued' ? undefined : status;
}

function readCursor(
  header: string | readonly string[] | undefined,
  after: string | undefined,
): Cursor | undefined {
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
