// Which calls lost streamed text to a reader: their deltas are no longer in the ring, and one `call_snapshot` must stand for them. Pure:
// it looks at the events that are known and says where a snapshot belongs.

import type { TaskEvent } from '../task/event.ts';

export type LostText = {
  readonly callKey: string;
  readonly attempt: string;
  readonly stepId: string | undefined;
  /** The snapshot stands for everything up to this number. */
  readonly upTo: number;
  /** The last number before the missing ones: where a reader resumes that did not get all snapshots of this place. */
  readonly since: number;
  /** What the reader still gets as deltas after the snapshot. */
  readonly following: string;
  /** The number of the event that tells that the call is complete. */
  readonly completedAt: number | undefined;
  /** The first part of the text was streamed before the present epoch, and Redis has lost it. */
  readonly isBroken: boolean;
};

type Seen = {
  readonly callKey: string;
  readonly attempt: string;
  readonly stepId: string | undefined;
  readonly started: number;
  readonly startedEpoch: number;
  readonly deltas: { readonly seq: number; readonly text: string }[];
  /** The first number that cannot be a lost delta of this attempt any more. */
  until: number;
  completedAt: { readonly seq: number; readonly epoch: number; readonly textBytes: number } | undefined;
  isVoid: boolean;
};

/**
 * @param known all events of the run that are in Postgres or in the ring, in order; numbers missing between them are those of deltas
 * @param place the reader has everything up to `from`, the last number is `upTo`, the present epoch is `epoch`
 */
export function findLostTexts(
  known: readonly TaskEvent[],
  { from, upTo, epoch }: { readonly from: number; readonly upTo: number; readonly epoch: number },
): readonly LostText[] {
  const gaps = gapsOf(known, from, upTo);
  return readAttempts(known).flatMap((seen) => {
    if (seen.isVoid) return [];
    const { callKey, attempt, stepId, completedAt } = seen;
    const common = { callKey, attempt, stepId, completedAt: completedAt?.seq };
    const gap = gaps.findLast(({ end }) => end > seen.started && end < seen.until);
    // An answer that was streamed across two epochs, or that never came to Redis: the reader gets the whole once it is there.
    const isAcross = completedAt !== undefined && completedAt.epoch !== seen.startedEpoch;
    if (
      gap === undefined &&
      completedAt !== undefined &&
      completedAt.seq > from &&
      (isAcross || lacks(seen))
    ) {
      const before = completedAt.seq - 1;
      return [{ ...common, upTo: before, since: before, following: '', isBroken: false }];
    }
    if (gap === undefined) return [];
    const isBroken = seen.startedEpoch !== epoch;
    return [
      { ...common, upTo: gap.end, since: gap.start - 1, following: textAfter(seen, gap.end), isBroken },
    ];
  });
}

/** Whether no delta is missing, and still they are not the whole text: the others never got a number. */
function lacks({ deltas, completedAt }: Seen): boolean {
  const bytes = deltas.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
  return bytes < (completedAt?.textBytes ?? 0);
}

function textAfter({ deltas }: Seen, number: number): string {
  return deltas.map(({ seq, text }) => (seq > number ? text : '')).join('');
}

/** Calls under way whose text began in an older epoch: what a reader has of it is not whole. */
export function brokenCalls(known: readonly TaskEvent[], epoch: number): readonly string[] {
  return readAttempts(known)
    .filter((seen) => !seen.isVoid && seen.completedAt === undefined && seen.startedEpoch !== epoch)
    .map((seen) => seen.callKey);
}

function gapsOf(known: readonly TaskEvent[], from: number, upTo: number): { start: number; end: number }[] {
  const gaps: { start: number; end: number }[] = [];
  let last = from;
  for (const { seq } of known) {
    if (seq <= from) continue;
    if (seq > last + 1) gaps.push({ start: last + 1, end: seq - 1 });
    last = seq;
  }
  if (upTo > last) gaps.push({ start: last + 1, end: upTo });
  return gaps;
}

function readAttempts(known: readonly TaskEvent[]): Seen[] {
  const all: Seen[] = [];
  for (const event of known) {
    if (event.type === 'step_completed' || event.type === 'step_failed') closeStep(all, event);
    if (event.callKey === undefined || event.attempt === undefined) continue;
    const own = all.find((seen) => seen.callKey === event.callKey && seen.attempt === event.attempt);
    if (event.type === 'call_started') {
      supersede(all, event);
      if (own === undefined) all.push(begin(event, event.seq));
    } else if (own !== undefined) advance(own, event);
    else if (event.type === 'call_delta' || event.type === 'call_completed') {
      const late = begin(event, 0);
      all.push(late);
      advance(late, event);
    }
  }
  return all;
}

function begin(event: TaskEvent, started: number): Seen {
  return {
    callKey: event.callKey ?? '',
    attempt: event.attempt ?? '',
    stepId: event.stepId,
    started,
    startedEpoch: event.epoch,
    deltas: [],
    until: Number.POSITIVE_INFINITY,
    completedAt: undefined,
    isVoid: false,
  };
}

function advance(seen: Seen, event: TaskEvent): void {
  // Where memory is short a delta may be missing between two that are there.
  if (event.type !== 'call_delta') seen.until = Math.min(seen.until, event.seq);
  if (event.type === 'attempt_reset') seen.isVoid = true;
  if (event.type === 'call_completed') {
    const bytes = event.data?.['textBytes'];
    const textBytes = typeof bytes === 'number' ? bytes : 0;
    seen.completedAt = { seq: event.seq, epoch: event.epoch, textBytes };
  }
  const text = event.data?.['text'];
  if (event.type === 'call_delta' && typeof text === 'string') seen.deltas.push({ seq: event.seq, text });
}

/** A newer attempt of the same call voids what the older ones wrote. */
function supersede(all: readonly Seen[], event: TaskEvent): void {
  for (const seen of all)
    if (seen.callKey === event.callKey && seen.attempt !== event.attempt && seen.completedAt === undefined)
      seen.isVoid = true;
}

function closeStep(all: readonly Seen[], event: TaskEvent): void {
  for (const seen of all) if (seen.stepId === event.stepId) seen.until = Math.min(seen.until, event.seq);
}
