// What a reader has missed, from its position to this moment: the ring where it reaches back far enough, else Postgres and then the
// ring, with snapshots in place of streamed text that is gone. A position that cannot be honoured is answered with `reset`.

import { pause } from '../calls/pause.ts';
import type { Events, Standing } from '../stores/events.ts';
import type { Ledger } from '../stores/ledger.ts';
import type { Cursor, TaskEvent } from '../task/event.ts';
import { brokenCalls, findLostTexts, type LostText } from './lost-text.ts';

export type FollowStores = {
  readonly events: Pick<Events, 'standing' | 'stored' | 'origin' | 'head' | 'openReader'>;
  /** Answers of calls, for readers that come when Redis has forgotten them. */
  readonly ledger: Pick<Ledger, 'result'>;
};

export type CaughtUp = {
  readonly taskId: string;
  /** In order; their epoch is the present one, so that each is a place to resume from. */
  readonly events: readonly TaskEvent[];
  /** Where the reader stands after them. */
  readonly cursor: Cursor;
  /** Calls under way of whose text the reader cannot have all. */
  readonly broken: readonly string[];
  /** Nothing comes after these. */
  readonly isOver: boolean;
};

const PAGE = 500;
const WRITE_BACK_POLL_MS = 50;
/** The sweeper repairs a write-back that was cut off; a row that is not there after this is not coming. */
const WRITE_BACK_FOR_MS = 10_000;

/** @param cursor undefined: from the beginning of the task's present run. @throws when a store is away */
export async function catchUp(
  stores: FollowStores,
  taskId: string,
  cursor: Cursor | undefined,
  signal: AbortSignal,
): Promise<CaughtUp> {
  const giveUpAt = performance.now() + WRITE_BACK_FOR_MS;
  for (;;) {
    const view = await look(stores, taskId, cursor);
    if (isWritten(view) || performance.now() > giveUpAt) return tell(stores, taskId, cursor, view);
    await pause(WRITE_BACK_POLL_MS, signal);
  }
}

type View = {
  readonly origin: number;
  readonly standing: Standing | undefined;
  /** The reader goes on after this number. */
  readonly from: number;
  readonly isReset: boolean;
  readonly epoch: number;
  readonly stored: readonly TaskEvent[];
  readonly ring: readonly TaskEvent[];
};

async function look(stores: FollowStores, taskId: string, cursor: Cursor | undefined): Promise<View> {
  const { seq: origin, runId } = await stores.events.origin(taskId);
  const found = await standingOrOver(stores, taskId, origin);
  // What Redis still holds of a run before is nothing to the readers of this one.
  const standing = found?.runId === runId ? found : undefined;
  if (standing !== undefined && (cursor === undefined || isOf(standing, origin, cursor))) {
    const from = cursor?.seq ?? origin;
    const ring = standing.ring.filter((event) => event.seq > from);
    const isContinuous = (ring[0]?.seq ?? standing.seq + 1) === from + 1;
    if (isContinuous)
      return { origin, standing, from, isReset: false, epoch: standing.epoch, stored: [], ring };
  }
  const stored = await allStored(stores, taskId, origin);
  const last = stored.at(-1);
  const isHonoured =
    cursor === undefined ||
    (standing === undefined ? isKept(last, origin, cursor) : isOf(standing, origin, cursor));
  const first = standing?.ring[0]?.seq ?? Number.POSITIVE_INFINITY;
  const from = isHonoured ? (cursor?.seq ?? origin) : origin;
  return {
    origin,
    standing,
    from,
    isReset: !isHonoured,
    epoch: standing?.epoch ?? Math.max(last?.epoch ?? 0, isHonoured ? (cursor?.epoch ?? 0) : 0),
    stored: stored.filter((event) => event.seq < first),
    ring: standing?.ring.filter((event) => event.seq > from) ?? [],
  };
}

/** Without Redis a task that is over is read from Postgres alone; one that runs cannot be: what lies in the ring would be passed over. */
async function standingOrOver(
  stores: FollowStores,
  taskId: string,
  origin: number,
): Promise<Standing | undefined> {
  try {
    return await stores.events.standing(taskId, origin);
  } catch (error) {
    const last = (await allStored(stores, taskId, origin)).at(-1);
    if (last?.type !== 'stream_end') throw error;
    return undefined;
  }
}

async function allStored(
  stores: FollowStores,
  taskId: string,
  origin: number,
): Promise<readonly TaskEvent[]> {
  const all: TaskEvent[] = [];
  for (;;) {
    const page = await stores.events.stored(taskId, all.at(-1)?.seq ?? origin, PAGE);
    all.push(...page);
    if (page.length < PAGE) return all;
  }
}

function isOf(standing: Standing, origin: number, cursor: Cursor): boolean {
  return cursor.epoch === standing.epoch && cursor.seq >= origin && cursor.seq <= standing.seq;
}

/** With nothing in Redis: a running task will begin a new epoch, and its readers are told then; an ended one is what is stored. */
function isKept(last: TaskEvent | undefined, origin: number, cursor: Cursor): boolean {
  if (cursor.seq < origin) return false;
  if (last === undefined) return true;
  if (last.type === 'stream_end') return cursor.epoch === last.epoch && cursor.seq <= last.seq;
  return cursor.epoch >= last.epoch;
}

/** Whether every milestone that is visible and no longer in the ring has its number in Postgres: the publisher writes it back late. */
function isWritten({ standing, stored, ring, from }: View): boolean {
  const first = ring[0]?.seq ?? (standing?.seq ?? 0) + 1;
  const known = new Set(stored.map((event) => event.seq));
  return (
    standing === undefined ||
    standing.milestones.every((seq) => seq <= from || seq >= first || known.has(seq))
  );
}

async function tell(
  stores: FollowStores,
  taskId: string,
  cursor: Cursor | undefined,
  view: View,
): Promise<CaughtUp> {
  const { from, epoch, standing } = view;
  const known = [...view.stored, ...view.ring];
  const missed = known.filter((event) => event.seq > from);
  const lost = view.stored.length === 0 ? [] : findLostTexts(known, from, epoch);
  const snapshots = await Promise.all(lost.map((text) => toSnapshot(stores, taskId, view, text)));
  const events = weave(
    missed,
    snapshots.flatMap((snapshot) => snapshot ?? []),
  );
  if (view.isReset) events.unshift(toReset(taskId, view, cursor));
  const end = missed.at(-1)?.seq ?? from;
  return {
    taskId,
    isOver: standing === undefined ? isEndOf(view.stored, end) : standing.ended && standing.seq === end,
    events: events.map((event) => ({ ...event, epoch })),
    cursor: { epoch, seq: end },
    // The ring alone cannot tell in which epoch a call began, nor need it: then the reader has all of this epoch.
    broken: [
      ...brokenCalls(view.stored, standing?.epoch ?? epoch),
      ...snapshots.flatMap((snapshot) =>
        snapshot?.event.data?.['incomplete'] === true ? [snapshot.event.callKey ?? ''] : [],
      ),
    ],
  };
}

function isEndOf(stored: readonly TaskEvent[], seq: number): boolean {
  const last = stored.at(-1);
  return last?.type === 'stream_end' && last.seq === seq;
}

type Snapshot = { readonly event: TaskEvent; readonly since: number };

async function toSnapshot(
  stores: FollowStores,
  taskId: string,
  view: View,
  lost: LostText,
): Promise<Snapshot | undefined> {
  const { callKey, attempt, following } = lost;
  const streamed =
    view.standing?.texts.find((text) => text.callKey === callKey && text.attempt === attempt)?.text ?? '';
  const answer = lost.isCompleted || streamed === '' ? await answerOf(stores, callKey, attempt) : undefined;
  const whole = answer ?? streamed;
  // The text in Redis is capped: then the deltas that follow are not its end.
  const isCut = !whole.endsWith(following);
  const text = isCut ? whole : whole.slice(0, whole.length - following.length);
  if (text === '') return undefined;
  const isIncomplete = isCut || (answer === undefined && lost.isBroken);
  return {
    since: lost.since,
    event: snapshotEvent(taskId, view.epoch, lost, { text, ...(isIncomplete ? { incomplete: true } : {}) }),
  };
}

function snapshotEvent(
  taskId: string,
  epoch: number,
  of: { callKey: string; attempt: string; stepId: string | undefined; upTo: number },
  data: { text: string; incomplete?: boolean },
): TaskEvent {
  const { callKey, attempt, stepId, upTo } = of;
  const step = stepId === undefined ? {} : { stepId };
  return {
    taskId,
    epoch,
    seq: upTo,
    type: 'call_snapshot',
    at: new Date().toISOString(),
    ...step,
    callKey,
    attempt,
    data,
  };
}

/** The whole answer of a call, where there is one, as a snapshot just before the event that completes it. */
export async function wholeAnswer(stores: FollowStores, completed: TaskEvent): Promise<readonly TaskEvent[]> {
  const { callKey = '', attempt = '', stepId, epoch, taskId, seq } = completed;
  const text = await answerOf(stores, callKey, attempt);
  return text === undefined
    ? []
    : [snapshotEvent(taskId, epoch, { callKey, attempt, stepId, upTo: seq - 1 }, { text })];
}

async function answerOf(stores: FollowStores, callKey: string, attempt: string): Promise<string | undefined> {
  const result = await stores.ledger.result(callKey);
  return result?.attemptKey === attempt ? result.text : undefined;
}

/**
 * Puts each snapshot after the last event that it stands behind. Of several in one place only the last carries the number up to which
 * they reach: a reader that leaves between them comes back to all of them.
 */
function weave(missed: readonly TaskEvent[], snapshots: readonly Snapshot[]): TaskEvent[] {
  const waiting = snapshots.toSorted((left, right) => left.event.seq - right.event.seq);
  const woven: TaskEvent[] = [];
  const put = (before: number) => {
    for (let next = waiting[0]; next !== undefined && next.event.seq < before; next = waiting[0]) {
      waiting.shift();
      const isLast = waiting[0]?.event.seq !== next.event.seq;
      woven.push(isLast ? next.event : { ...next.event, seq: next.since });
    }
  };
  for (const event of missed) {
    put(event.seq);
    woven.push(event);
  }
  put(Number.POSITIVE_INFINITY);
  return woven;
}

function toReset(taskId: string, view: View, cursor: Cursor | undefined): TaskEvent {
  const asked =
    cursor === undefined
      ? ''
      : `the position ${cursor.epoch}-${cursor.seq} is not one of the present stream; `;
  return {
    taskId,
    epoch: view.epoch,
    seq: view.origin,
    type: 'reset',
    at: new Date().toISOString(),
    message: `${asked}the events are told again from the beginning`,
  };
}
