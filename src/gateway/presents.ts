// What the stores know of a task just now, read once for all readers that ask at the same time. A reader is never given what was read
// before it asked: an event that became visible in between would be in nothing that it gets.

import type { Events, Standing } from '../stores/events.ts';
import type { TaskEvent } from '../task/event.ts';

/** A task's events at one moment. */
export type Present = {
  /** The number after which the events of its present run begin. */
  readonly origin: number;
  /** The newest epoch that the task was ever in; 0 before the first. */
  readonly newest: number;
  /** Redis' part; undefined where it holds nothing of this run. */
  readonly standing: Standing | undefined;
  /** All milestones of the run, those of the ring among them; read when somebody needs them. */
  readonly history: () => Promise<readonly TaskEvent[]>;
};

export type Presents = {
  /** @throws when a store is away */
  of(taskId: string): Promise<Present>;
};

export function createPresents(events: Pick<Events, 'origin' | 'standing' | 'history'>): Presents {
  return { of: sharing((taskId: string) => readPresent(events, taskId)) };
}

/**
 * The same read, whose callers share one: whoever asks while one is under way gets the next, which begins when that ends.
 */
export function sharing<Result>(read: (key: string) => Promise<Result>): (key: string) => Promise<Result> {
  const running = new Map<string, { now: Promise<Result>; next: Promise<Result> | undefined }>();
  const start = (key: string): Promise<Result> => {
    const entry = { now: read(key), next: undefined as Promise<Result> | undefined };
    running.set(key, entry);
    const end = () => {
      if (entry.next === undefined) running.delete(key);
    };
    entry.now.then(end, end);
    return entry.now;
  };
  return (key) => {
    const entry = running.get(key);
    if (entry === undefined) return start(key);
    entry.next ??= entry.now.then(
      () => start(key),
      () => start(key),
    );
    return entry.next;
  };
}

async function readPresent(
  events: Pick<Events, 'origin' | 'standing' | 'history'>,
  taskId: string,
): Promise<Present> {
  const { seq: origin, runId, epoch: newest } = await events.origin(taskId);
  const found = await standingOrOver(events, taskId, origin);
  // What Redis still holds of a run before is nothing to the readers of this one.
  const standing = found?.runId === runId ? found : undefined;
  let history: Promise<readonly TaskEvent[]> | undefined;
  return {
    origin,
    newest,
    standing,
    history: () => {
      history ??= events.history(taskId, { afterSeq: origin, standing });
      return history;
    },
  };
}

/** Without Redis a task that is over is read from Postgres alone; one that runs cannot be: what lies in the ring would be passed over. */
async function standingOrOver(
  events: Pick<Events, 'standing' | 'history'>,
  taskId: string,
  origin: number,
): Promise<Standing | undefined> {
  try {
    return await events.standing(taskId, origin);
  } catch (error) {
    const history = await events.history(taskId, { afterSeq: origin, standing: undefined });
    if (history.at(-1)?.type !== 'stream_end') throw error;
    return undefined;
  }
}
