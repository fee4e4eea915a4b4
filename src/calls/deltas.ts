// Streamed text on its way to readers: collected for a short time or a size, then published as one event. Readers are worth no
// failed call and no waiting: what Redis does not take in time is dropped and counted, and the reader gets the whole answer at the end.

import type { Attempt } from '../stores/ledger.ts';
import { cleanText, utf8Bytes } from '../task/text.ts';
import { BreakerOpen } from './breaker.ts';
import type { CallDependencies, CallRequest } from './call.ts';
import { pause } from './pause.ts';

export type DeltaBatcher = {
  push(text: string): void;
  /** Publishes what is left; resolves when everything is out or was dropped, within `deltaFlushMs`. The batcher takes nothing after it. */
  flush(): Promise<void>;
};

/** `redis`: it did not take the text in time. `full`: too much waits already. `superseded`: a newer attempt streams, or the run is over. */
export type DropReason = 'redis' | 'full' | 'superseded';

export type DeltaParts = Pick<CallDependencies, 'deltaRoom' | 'log'> & {
  readonly events: Pick<CallDependencies['events'], 'publishDeltas'>;
  readonly settings: Pick<CallDependencies['settings'], 'deltaIntervalMs' | 'deltaBytes' | 'deltaFlushMs'>;
  readonly meter: Pick<CallDependencies['meter'], 'deltaDropped'>;
};

/** A text that is under way or was once has to stay as it is: it may be visible although its answer was lost, and is known by its `k`. */
type Batch = { text: string; bytes: number; pieces: number };

/** What goes to Redis at once while a backlog is worked off: a script that runs long holds up everybody. */
const TRIP_BATCHES = 64;
const TRIP_BYTES = 262_144;
const FIRST_RETRY_MS = 50;
const LONGEST_RETRY_MS = 500;

/** @param begun settles when readers were told that the attempt began, or could not be: its text is to follow that */
export function createDeltaBatcher(
  parts: DeltaParts,
  { attemptKey, callKey, stepId }: Origin,
  { task, begun }: { readonly task: CallRequest['task']; readonly begun: Promise<void> },
): DeltaBatcher {
  if (task === undefined) return { push: () => undefined, flush: () => Promise.resolve() };
  return new Batcher(parts, { attemptKey, callKey, stepId }, { task, begun });
}

type Task = NonNullable<CallRequest['task']>;
type Origin = Pick<Attempt, 'attemptKey' | 'callKey' | 'stepId'>;

class Batcher implements DeltaBatcher {
  readonly #parts: DeltaParts;
  readonly #task: Task;
  readonly #origin: Origin;
  /** Undefined once it was waited for. */
  #begun: Promise<void> | undefined;
  /** Oldest first; the first one's number is `#k`. */
  #waiting: Batch[] = [];
  #k = 0;
  /** So many of those that wait were under way before. */
  #tried = 0;
  #failures = 0;
  /** How long Redis is left alone after a failure; 0 while it takes what it is given. Of that, how long the breaker lets nobody try. */
  #retryMs = 0;
  #openMs = 0;
  /** The first half of a character whose second half comes with the next piece. */
  #half = '';
  #timer: NodeJS.Timeout | undefined;
  /** One trip after the other, so that batches arrive in order. */
  #trip: Promise<void> | undefined;
  /**
   * Why nothing more is taken. Pieces after a hole mislead: so the newest text is what is dropped, never the oldest, and after the first
   * drop all the rest of the attempt. What readers have by then is the beginning, and with `call_completed` they get the whole.
   */
  #lost: DropReason | undefined;
  #isClosed = false;

  constructor(parts: DeltaParts, origin: Origin, { task, begun }: { task: Task; begun: Promise<void> }) {
    this.#parts = parts;
    this.#task = task;
    this.#origin = origin;
    this.#begun = begun;
  }

  push(piece: string): void {
    if (this.#lost !== undefined) {
      this.#drop(1, this.#lost);
      return;
    }
    const text = this.#half + piece;
    const isHalf = /[\ud800-\udbff]$/.test(text);
    this.#half = isHalf ? text.slice(-1) : '';
    this.#take(isHalf ? text.slice(0, -1) : text);
  }

  async flush(): Promise<void> {
    const giveUpAt = performance.now() + this.#parts.settings.deltaFlushMs;
    const leftMs = () => giveUpAt - performance.now();
    if (this.#lost === undefined) this.#take(this.#half);
    // Redis may be back by now: one try at least.
    this.#retryMs = this.#openMs;
    while (this.#waiting.length > 0 && this.#retryMs < leftMs()) {
      if (this.#trip === undefined && this.#retryMs > 0) await pause(this.#retryMs);
      await settledWithin(this.#send(), leftMs());
    }
    // A trip that is still under way may arrive yet: then more was counted than was lost.
    this.#close('redis');
  }

  #take(text: string): void {
    if (text === '') return;
    const { settings, deltaRoom } = this.#parts;
    const bytes = utf8Bytes(text);
    const last = this.#waiting.length > this.#tried ? this.#waiting.at(-1) : undefined;
    const open = last !== undefined && last.bytes < settings.deltaBytes ? last : undefined;
    if (!deltaRoom.take(this.#task.taskId, bytes, open === undefined)) {
      this.#lost = 'full';
      this.#drop(1, 'full');
      return;
    }
    const batch = open ?? { text: '', bytes: 0, pieces: 0 };
    if (open === undefined) this.#waiting.push(batch);
    batch.text += text;
    batch.bytes += bytes;
    batch.pieces += 1;
    // A string that grew by pieces keeps them all, each many times its own size; a copy is one text.
    if (batch.bytes >= settings.deltaBytes) batch.text = cleanText(batch.text);
    if (this.#trip === undefined) this.#goOn();
  }

  /** Sends what is due; the rest when its time has come. */
  #goOn(): void {
    const [first, second] = this.#waiting;
    if (first === undefined) return;
    const isDue = second !== undefined || first.bytes >= this.#parts.settings.deltaBytes;
    if (this.#retryMs === 0 && isDue) void this.#send();
    else
      this.#timer ??= setTimeout(
        () => void this.#send(),
        this.#retryMs === 0 ? this.#parts.settings.deltaIntervalMs : this.#retryMs,
      );
  }

  #send(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#waiting.length === 0) return Promise.resolve();
    this.#trip ??= this.#publish(this.#nextTrip()).finally(() => {
      this.#trip = undefined;
      this.#goOn();
    });
    return this.#trip;
  }

  #nextTrip(): readonly Batch[] {
    let bytes = 0;
    const beyond = this.#waiting.findIndex((batch, index) => {
      bytes += batch.bytes;
      return index > 0 && (index >= TRIP_BATCHES || bytes > TRIP_BYTES);
    });
    return this.#waiting.slice(0, beyond === -1 ? this.#waiting.length : beyond);
  }

  async #publish(batches: readonly Batch[]): Promise<void> {
    this.#tried = Math.max(this.#tried, batches.length);
    const deltas = batches.map(({ text }, index) => ({ ...this.#origin, k: this.#k + index, text }));
    // A store that is slow must not cost the text: half of the time stays for it.
    if (this.#begun !== undefined) await settledWithin(this.#begun, this.#parts.settings.deltaFlushMs / 2);
    this.#begun = undefined;
    try {
      const shown = await this.#parts.events.publishDeltas(this.#task, deltas);
      if (this.#isClosed) return;
      this.#failures = 0;
      this.#retryMs = 0;
      this.#openMs = 0;
      const refused = batches.filter((_, index) => shown[index] !== true);
      this.#forget(batches.length);
      if (refused.length === 0) return;
      // A newer attempt streams, or the run has ended, maybe while this process was frozen: it has nothing more to tell.
      this.#drop(piecesOf(refused), 'superseded');
      this.#close('superseded');
    } catch (error) {
      this.#failures += 1;
      this.#openMs = retryAfter(error);
      this.#retryMs = Math.max(this.#openMs, backoff(this.#failures));
      const { attemptKey } = this.#origin;
      this.#parts.log.debug('streamed text not published, tried again', { attempt: attemptKey, error });
    }
  }

  /** Nothing is sent any more, and what still waits is dropped. */
  #close(reason: DropReason): void {
    clearTimeout(this.#timer);
    this.#isClosed = true;
    if (this.#waiting.length > 0) this.#drop(piecesOf(this.#waiting), reason);
    this.#lost ??= reason;
    this.#forget(this.#waiting.length);
  }

  #forget(count: number): void {
    const gone = this.#waiting.splice(0, count);
    this.#k += gone.length;
    this.#tried = Math.max(0, this.#tried - gone.length);
    this.#parts.deltaRoom.giveBack(
      this.#task.taskId,
      gone.length,
      gone.reduce((sum, batch) => sum + batch.bytes, 0),
    );
  }

  #drop(pieces: number, reason: DropReason): void {
    this.#parts.meter.deltaDropped(reason, pieces);
  }
}

function piecesOf(batches: readonly Batch[]): number {
  return batches.reduce((sum, batch) => sum + batch.pieces, 0);
}

function backoff(failures: number): number {
  return Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (failures - 1));
}

/** A breaker says when it lets somebody try. */
function retryAfter(error: unknown): number {
  return error instanceof BreakerOpen ? error.retryAfterMs : 0;
}

async function settledWithin(work: Promise<void>, ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, Math.max(0, ms));
  await Promise.race([work, promise]);
  clearTimeout(timer);
}
