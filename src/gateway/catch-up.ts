// What a reader has missed, from its position to this moment: the ring where it reaches back far enough, else Postgres and then the
// ring, with snapshots in place of streamed text that is gone. A position that cannot be honoured is answered with `reset`.

import type { Standing } from '../stores/events.ts';
import type { Ledger } from '../stores/ledger.ts';
import { type Cursor, formatCursor, type TaskEvent } from '../task/event.ts';
import { EventBatch } from './event-batch.ts';
import { brokenCalls, findLostTexts, type LostText } from './lost-text.ts';
import type { Present, Presents } from './presents.ts';

export type CatchUpStores = {
  readonly presents: Presents;
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

/** @param cursor undefined: from the beginning of the task's present run. @throws when a store is away */
export async function catchUp(
  stores: CatchUpStores,
  taskId: string,
  cursor: Cursor | undefined,
): Promise<CaughtUp> {
  const present = await stores.presents.of(taskId);
  const from = cursor === undefined ? '' : formatCursor(cursor);
  const known = caughtUp.get(present) ?? new Map<string, Promise<CaughtUp>>();
  caughtUp.set(present, known);
  let caught = known.get(from);
  if (caught === undefined) {
    caught = look(present, cursor).then((view) => tell(stores, taskId, cursor, view));
    known.set(from, caught);
  }
  return caught;
}

/** Readers that come together from one place are told the same objects: what a wire makes of them is made once. */
const caughtUp = new WeakMap<Present, Map<string, Promise<CaughtUp>>>();

type View = {
  readonly origin: number;
  readonly standing: Standing | undefined;
  /** The reader goes on after this number. */
  readonly from: number;
  readonly isReset: boolean;
  readonly epoch: number;
  /** Of Postgres, up to where the ring begins; undefined where the ring alone tells everything. */
  readonly stored: readonly TaskEvent[] | undefined;
  readonly ring: readonly TaskEvent[];
};

async function look(
  { origin, newest, standing, history }: Present,
  cursor: Cursor | undefined,
): Promise<View> {
  if (standing !== undefined && (cursor === undefined || isOf(standing, origin, cursor))) {
    const from = cursor?.seq ?? origin;
    const ring = standing.ring.filter((event) => event.seq > from);
    // All numbers up to the last one: deltas may have left the ring, or never come into it where memory is short.
    if (ring.length === standing.seq - from)
      return { origin, standing, from, isReset: false, epoch: standing.epoch, stored: undefined, ring };
  }
  const all = await history();
  const last = all.at(-1);
  const isHonoured =
    cursor === undefined ||
    (standing === undefined
      ? cursor.epoch <= newest && isKept(last, origin, cursor)
      : isOf(standing, origin, cursor));
  // Postgres was asked after Redis, and may know more by now: that comes by the live feed, and would be told twice.
  const first = standing?.ring[0]?.seq ?? (standing?.seq ?? Number.POSITIVE_INFINITY) + 1;
  const from = isHonoured ? (cursor?.seq ?? origin) : origin;
  return {
    origin,
    standing,
    from,
    isReset: !isHonoured,
    epoch: standing?.epoch ?? Math.max(last?.epoch ?? 0, isHonoured ? (cursor?.epoch ?? 0) : 0),
    stored: all.filter((event) => event.seq < first),
    ring: standing?.ring.filter((event) => event.seq > origin) ?? [],
  };
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

async function tell(
  stores: CatchUpStores,
  taskId: string,
  cursor: Cursor | undefined,
  view: View,
): Promise<CaughtUp> {
  const { from, epoch, standing, stored = [] } = view;
  const known = [...stored, ...view.ring];
  const missed = known.filter((event) => event.seq > from);
  const end = standing?.seq ?? missed.at(-1)?.seq ?? from;
  const lost = view.stored === undefined ? [] : findLostTexts(known, { from, upTo: end, epoch });
  const snapshots = (await Promise.all(lost.map((text) => toSnapshot(stores, taskId, view, text)))).flatMap(
    (snapshot) => snapshot ?? [],
  );
  const told = new Set(snapshots.map(({ event }) => event.callKey));
  const lacking = lackingText(missed, []).filter(({ callKey }) => !told.has(callKey));
  const events = weave(await withAnswersIn(stores, missed, lacking), snapshots).map(withoutMark);
  if (view.isReset) events.unshift(toReset(taskId, view, cursor));
  return {
    taskId,
    isOver: standing === undefined ? isEndOf(stored, end) : standing.ended,
    events: events.map((event) => (event.epoch === epoch ? event : { ...event, epoch })),
    cursor: { epoch, seq: end },
    // The ring alone cannot tell in which epoch a call began, nor need it: then the reader has all of this epoch.
    broken: [
      ...brokenCalls(stored, standing?.epoch ?? epoch),
      ...snapshots.flatMap(({ event }) => (event.data?.['incomplete'] === true ? [event.callKey ?? ''] : [])),
    ],
  };
}

function isEndOf(stored: readonly TaskEvent[], seq: number): boolean {
  const last = stored.at(-1);
  return last?.type === 'stream_end' && last.seq === seq;
}

type Snapshot = { readonly event: TaskEvent; readonly since: number };

async function toSnapshot(
  stores: CatchUpStores,
  taskId: string,
  view: View,
  lost: LostText,
): Promise<Snapshot | undefined> {
  const { callKey, attempt, following } = lost;
  const streamed =
    view.standing?.texts.find((text) => text.callKey === callKey && text.attempt === attempt)?.text ?? '';
  const answer =
    lost.completedAt !== undefined || streamed === '' ? await answerOf(stores, callKey, attempt) : undefined;
  const whole = answer ?? streamed;
  // The text in Redis is capped, or pieces of it were dropped: then the deltas that follow are not its end.
  const isCut = !whole.endsWith(following);
  if (isCut && answer !== undefined && lost.completedAt !== undefined) {
    const before = lost.completedAt - 1;
    return {
      since: before,
      event: snapshotEvent(taskId, view.epoch, { ...lost, upTo: before }, { text: answer }),
    };
  }
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

/** Completed calls whose text a reader cannot have all: some was lost on the way to Redis, or they are among the broken ones. */
export function lackingText(events: readonly TaskEvent[], broken: readonly string[]): readonly TaskEvent[] {
  return events.filter(
    (event) => event.type === 'call_completed' && (isTextLost(event) || broken.includes(event.callKey ?? '')),
  );
}

/** The batch with the whole answer, where there is one, right before each of these events. @throws when a store is away */
export function withAnswers(
  stores: CatchUpStores,
  batch: EventBatch,
  lacking: readonly TaskEvent[],
): Promise<EventBatch> {
  const key = lacking.map(({ seq }) => seq).join();
  return batch.derive(key, async () => new EventBatch(await withAnswersIn(stores, batch.events, lacking)));
}

async function withAnswersIn(
  stores: CatchUpStores,
  events: readonly TaskEvent[],
  lacking: readonly TaskEvent[],
): Promise<readonly TaskEvent[]> {
  if (lacking.length === 0) return events;
  const answers = new Map<TaskEvent, TaskEvent | undefined>();
  for (const event of lacking) answers.set(event, await wholeAnswer(stores, event));
  return events.flatMap((event) => {
    const answer = answers.get(event);
    return answer === undefined ? [withoutMark(event)] : [answer, withoutMark(event)];
  });
}

/** It carries the number before the event, so that it moves the reader nowhere. */
async function wholeAnswer(stores: CatchUpStores, completed: TaskEvent): Promise<TaskEvent | undefined> {
  const { callKey = '', attempt = '', stepId, epoch, taskId, seq } = completed;
  const text = await answerOf(stores, callKey, attempt);
  if (text === undefined) return undefined;
  return snapshotEvent(taskId, epoch, { callKey, attempt, stepId, upTo: seq - 1 }, { text });
}

/** The publishing script's mark at a completed call whose text did not reach Redis whole. It is between us and the script. */
function isTextLost(event: TaskEvent): boolean {
  return Reflect.get(event, 'textLost') === true;
}

function withoutMark(event: TaskEvent): TaskEvent {
  if (!isTextLost(event)) return event;
  const { textLost: _, ...plain } = event as TaskEvent & { readonly textLost?: boolean }; // as `isTextLost` has found it
  return plain;
}

async function answerOf(
  stores: CatchUpStores,
  callKey: string,
  attempt: string,
): Promise<string | undefined> {
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
