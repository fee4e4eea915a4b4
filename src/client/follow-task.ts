// A task's events over SSE: one connection after the other, each going on after the last event that was received whole. What was
// received is neither reordered nor judged; the gateway tells `reset` when it cannot honour a position.

import { setTimeout as pause } from 'node:timers/promises';
import { formatCursor, parseCursor, type TaskEvent } from '../task/event.ts';
import { createEventStreamParser, type ServerSentEvent } from './event-stream.ts';
import type { FollowTaskOptions } from './gateway-client.ts';
import { cutOff, GatewayError, toGatewayError, unreachable } from './gateway-error.ts';
import { reconnectDelay } from './reconnect-delay.ts';

export type StreamTarget = {
  /** As the caller wrote it, for messages. */
  readonly url: string;
  readonly base: URL;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
};

/** Three heartbeats: a connection that says nothing for so long is dead, whatever its socket claims. */
const SILENCE_MS = 45_000;

/** The answer to a reader that has the last event already. */
const NOTHING_MORE = 204;

/** Where a reader stands, and how it got there. */
type Position = {
  lastEventId: string;
  /** The gateway answered once: from then on its absence is waited for. */
  isKnown: boolean;
  isOpen: boolean;
  isOver: boolean;
  /** Connections since the last event. */
  tries: number;
  retryMs: number | undefined;
};

/** Ends after `stream_end`, or when the signal fires: then nothing comes any more, not even what was received already. */
export async function* followTask(
  target: StreamTarget,
  options: FollowTaskOptions,
): AsyncGenerator<TaskEvent> {
  const { signal, onOutage } = options;
  const lastEventId = toEventId(options.after);
  const position: Position = {
    ...{ lastEventId, isKnown: false, isOpen: false, isOver: false },
    ...{ tries: 0, retryMs: undefined },
  };
  const isDone = () => position.isOver || signal?.aborted === true;
  while (!isDone()) {
    let lost = new GatewayError(`the stream from ${target.url} ended before the task did`);
    try {
      for await (const event of readStream(target, options, position)) {
        position.tries = 0;
        yield event;
        if (isDone()) return;
      }
    } catch (error) {
      if (!isDone()) lost = passing(error, position.isKnown);
    }
    if (isDone()) return;
    onOutage?.(lost);
    const { tries, retryMs } = position;
    position.tries += 1;
    const { retryAfterMs } = lost;
    await sleep(reconnectDelay({ tries, retryMs, retryAfterMs, random: Math.random() }), signal);
  }
}

/** @throws GatewayError when the text is no position: it is not sent, since a gateway would refuse it all the same */
function toEventId(after: FollowTaskOptions['after']): string {
  if (after === undefined) return '';
  const cursor = typeof after === 'string' ? parseCursor(after) : after;
  if (cursor === undefined)
    throw new GatewayError(`"${after}" is no position of an event: expected one such as 1-42`);
  return formatCursor(cursor);
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
  const silence = createSilence();
  const anySignal = AbortSignal.any(signal === undefined ? [silence.signal] : [silence.signal, signal]);
  try {
    const { lastEventId } = position;
    position.isOpen = false;
    silence.watch();
    const response = await open(target, { types, lastEventId, signal: anySignal });
    position.isKnown = true;
    position.isOpen = true;
    position.isOver = response.status === NOTHING_MORE;
    const parser = createEventStreamParser();
    // Nothing is read ahead of the caller but what the socket's own buffers hold: the gateway notices a caller that does not keep up.
    for await (const bytes of response.body ?? []) {
      silence.stop(); // for as long as the caller takes, nobody listens
      const parts = parser.push(bytes);
      position.retryMs = parser.retryMs ?? position.retryMs;
      for (const part of parts) {
        const event = toTaskEvent(part, target.url);
        if (part.id !== '') position.lastEventId = part.id;
        position.isOver = event.type === 'stream_end';
        yield event;
      }
      silence.watch();
    }
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    if (error instanceof RangeError)
      throw new GatewayError(`what ${target.url} sends is no stream of events: ${error.message}`, {
        status: 200,
        cause: error,
      });
    throw position.isOpen ? cutOff(target.url, error) : unreachable(target.url, error);
  } finally {
    silence.stop();
  }
}

/** Fires when nothing came for too long while it was watched for. */
function createSilence() {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const stop = () => clearTimeout(timer);
  return {
    signal: controller.signal,
    stop,
    watch() {
      stop();
      const fault = `nothing came for ${SILENCE_MS / 1000} s`;
      timer = setTimeout(() => controller.abort(new Error(fault)), SILENCE_MS);
    },
  };
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
