// A task's events over SSE: one connection after the other, each going on after the last event that was received whole. What was
// received is neither reordered nor judged; the gateway tells `reset` when it cannot honour a position.

import { setTimeout as pause } from 'node:timers/promises';
import { formatCursor, type TaskEvent } from '../task/event.ts';
import { createEventStreamParser, type ServerSentEvent } from './event-stream.ts';
import type { FollowTaskOptions } from './gateway-client.ts';
import { cutOff, GatewayError, toGatewayError, unreachable } from './gateway-error.ts';

export type StreamTarget = {
  /** As the caller wrote it, for messages. */
  readonly url: string;
  readonly base: URL;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
};

const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 5_000;
/** Three heartbeats: a connection that says nothing for so long is dead, whatever its socket claims. */
const SILENCE_MS = 45_000;

/** The answer to a reader that has the last event already. */
const NOTHING_MORE = 204;

/** Where a reader stands, and how it got there. */
type Position = { lastEventId: string; isKnown: boolean; isOpen: boolean; isOver: boolean };

/** Ends after `stream_end`, or when the signal fires. */
export async function* followTask(
  target: StreamTarget,
  options: FollowTaskOptions,
): AsyncGenerator<TaskEvent> {
  const { signal, onOutage } = options;
  const lastEventId = options.after === undefined ? '' : formatCursor(options.after);
  const position: Position = { lastEventId, isKnown: false, isOpen: false, isOver: false };
  const isDone = () => position.isOver || signal?.aborted === true;
  let backoffMs = FIRST_BACKOFF_MS;
  while (!isDone()) {
    let lost = new GatewayError(`the stream from ${target.url} ended before the task did`);
    try {
      for await (const event of readStream(target, options, position)) {
        backoffMs = FIRST_BACKOFF_MS;
        yield event;
        if (position.isOver) return;
      }
    } catch (error) {
      if (!isDone()) lost = passing(error, position.isKnown);
    }
    if (isDone()) return;
    onOutage?.(lost);
    await sleep(backoffMs, signal);
    backoffMs = Math.min(MAX_BACKOFF_MS, backoffMs * 2);
  }
}

/** A failure after which it is worth coming back: the gateway was there and is gone, or cannot serve at the moment. @throws others */
function passing(error: unknown, isKnown: boolean): GatewayError {
  if (!(error instanceof GatewayError)) throw error;
  const { status } = error;
  const isGone = status === undefined || status >= 500;
  if ((isKnown && isGone) || status === 429 || status === 503) return error;
  throw error;
}

/** The events of one connection, which move the position. @throws GatewayError when it breaks */
async function* readStream(
  target: StreamTarget,
  { types, signal }: FollowTaskOptions,
  position: Position,
): AsyncGenerator<TaskEvent> {
  const silence = new AbortController();
  const watch = setTimeout(
    () => silence.abort(new Error(`nothing came for ${SILENCE_MS / 1000} s`)),
    SILENCE_MS,
  );
  const anySignal = AbortSignal.any(signal === undefined ? [silence.signal] : [silence.signal, signal]);
  try {
    const { lastEventId } = position;
    position.isOpen = false;
    const response = await open(target, { types, lastEventId, signal: anySignal });
    position.isKnown = true;
    position.isOpen = true;
    position.isOver = response.status === NOTHING_MORE;
    const parser = createEventStreamParser();
    for await (const bytes of response.body ?? []) {
      watch.refresh();
      for (const part of parser.push(bytes)) {
        const event = toTaskEvent(part, target.url);
        if (part.id !== '') position.lastEventId = part.id;
        position.isOver = event.type === 'stream_end';
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    throw position.isOpen ? cutOff(target.url, error) : unreachable(target.url, error);
  } finally {
    clearTimeout(watch);
  }
}

async function open(
  target: StreamTarget,
  how: { types: FollowTaskOptions['types']; lastEventId: string; signal: AbortSignal },
): Promise<Response> {
  const address = new URL(target.path, target.base);
  if (how.types !== undefined) address.searchParams.set('types', how.types.join(','));
  const position = how.lastEventId === '' ? {} : { 'last-event-id': how.lastEventId };
  const response = await fetch(address, {
    headers: { ...target.headers, ...position, accept: 'text/event-stream' },
    signal: how.signal,
  });
  if (!response.ok) throw await toGatewayError(response);
  const type = response.headers.get('content-type') ?? 'nothing';
  if (type.startsWith('text/event-stream') || response.status === NOTHING_MORE) return response;
  await response.body?.cancel();
  throw new GatewayError(
    `what answers at ${target.url} is no Weir gateway: expected an event stream, got ${type}`,
    {
      status: response.status,
    },
  );
}

function toTaskEvent({ data, type }: ServerSentEvent, url: string): TaskEvent {
  try {
    return JSON.parse(data) as TaskEvent; // the gateway's own envelope
  } catch (cause) {
    throw new GatewayError(`an event of type ${type} from ${url} is no JSON`, { status: 200, cause });
  }
}

/** Ends early, without an error, when the signal fires. */
async function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await pause(ms, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
}
