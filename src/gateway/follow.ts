// A task's events as one stream without gap or repeat, from any position, until they end: first what was missed, then the ring as it
// grows. Whatever does not join on to the reader's position sends it back to catching up.

import { pause } from '../calls/pause.ts';
import type { Cursor, EventType, TaskEvent } from '../task/event.ts';
import { type CaughtUp, catchUp, type FollowStores, wholeAnswer } from './catch-up.ts';

export type FollowOptions = {
  /** The last event the reader has; absent: from the beginning. */
  readonly after?: Cursor | undefined;
  /** Only these; `reset` and `stream_end` always come, and `call_snapshot` where `call_delta` does. */
  readonly types?: ReadonlySet<EventType> | undefined;
  /** Ends the stream without an error. */
  readonly signal: AbortSignal;
  /** How a task ended that leaves no events: asked while nothing has come. */
  readonly endedSilently?: () => Promise<string | undefined>;
  /** A store did not answer; the stream goes on when it does. */
  readonly onOutage?: (error: unknown) => void;
};

const BLOCK_MS = 2_000;
const AGAIN_MS = 500;

type Reader = ReturnType<FollowStores['events']['openReader']>;

/** Ends after `stream_end`, at once for a reader that has it already. Never throws for a store that is away: it waits. */
export async function* follow(
  stores: FollowStores,
  taskId: string,
  options: FollowOptions,
): AsyncGenerator<TaskEvent> {
  for await (const event of allEvents(stores, taskId, options)) {
    if (isWanted(event, options)) yield event;
    if (event.type === 'stream_end') return;
  }
}

async function* allEvents(
  stores: FollowStores,
  taskId: string,
  options: FollowOptions,
): AsyncGenerator<TaskEvent> {
  const { signal } = options;
  let reader: Reader | undefined;
  const close = () => reader?.close();
  signal.addEventListener('abort', close, { once: true });
  try {
    let told = options.after;
    for (let idleRounds = 0; !signal.aborted; idleRounds += 1) {
      // What does not join on and is not news either (leftovers of a run before) must not become a busy loop.
      if (idleRounds > 1) await pause(AGAIN_MS, signal);
      const caught = await untilAnswered(options, () => catchUp(stores, taskId, told, signal));
      if (told !== undefined || caught.events.length > 0) told = caught.cursor;
      if (caught.events.length > 0) idleRounds = 0;
      yield* caught.events;
      if (caught.isOver) return;
      const status = told === undefined ? await endedSilently(options) : undefined;
      if (status !== undefined) return yield silentEnd(taskId, status);
      // From here on the signal closes the reader; one that came before would leave it blocking.
      signal.throwIfAborted();
      reader ??= stores.events.openReader(taskId);
      for await (const event of liveFrom(stores, reader, caught, options)) {
        idleRounds = 0;
        told = { epoch: event.epoch, seq: event.seq };
        yield event;
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', close);
    close();
  }
}

/** Events as they come, for as long as each is the next, Redis answers, and the task's counter stands where the reader is. */
async function* liveFrom(
  stores: FollowStores,
  reader: Reader,
  { taskId, cursor, broken }: CaughtUp,
  options: FollowOptions,
): AsyncGenerator<TaskEvent> {
  let at = cursor;
  try {
    for (;;) {
      const events = await reader.read(at, BLOCK_MS);
      // Nothing came: Redis may have been emptied, and then nothing ever comes after this position.
      if (events.length === 0 && !(await isStill(stores, taskId, at))) return;
      for (const event of events) {
        if (event.epoch !== at.epoch || event.seq !== at.seq + 1) return;
        // It carries the number before the answer, so that it moves the reader nowhere.
        if (event.type === 'call_completed' && broken.includes(event.callKey ?? ''))
          yield* await wholeAnswer(stores, event);
        at = { epoch: event.epoch, seq: event.seq };
        yield event;
      }
    }
  } catch (error) {
    if (options.signal.aborted) return;
    options.onOutage?.(error);
    await pause(AGAIN_MS, options.signal);
  }
}

async function isStill(stores: FollowStores, taskId: string, at: Cursor): Promise<boolean> {
  const head = await stores.events.head(taskId);
  return head?.epoch === at.epoch && head.seq === at.seq;
}

/** Repeats until the stores answer, or throws once the signal fires. */
async function untilAnswered<Result>(options: FollowOptions, work: () => Promise<Result>): Promise<Result> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      options.signal.throwIfAborted();
      options.onOutage?.(error);
      await pause(AGAIN_MS, options.signal);
    }
  }
}

/** Temporal's silence is no end. */
async function endedSilently(options: FollowOptions): Promise<string | undefined> {
  try {
    return await options.endedSilently?.();
  } catch (error) {
    options.onOutage?.(error);
    return undefined;
  }
}

function isWanted(event: TaskEvent, { types }: FollowOptions): boolean {
  if (types === undefined || event.type === 'reset' || event.type === 'stream_end') return true;
  return types.has(event.type) || (event.type === 'call_snapshot' && types.has('call_delta'));
}

function silentEnd(taskId: string, status: string): TaskEvent {
  return { taskId, epoch: 0, seq: 0, type: 'stream_end', at: new Date().toISOString(), data: { status } };
}
