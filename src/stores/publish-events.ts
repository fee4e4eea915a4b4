// Makes batches of events visible: one round trip gives them their numbers and puts them into ring, call texts and feeds. Numbers are
// not written to Postgres here: the log feed carries them to the persister.

import type { EventType } from '../task/event.ts';
import { attemptOrder } from '../task/keys.ts';
import { cleanText } from '../task/text.ts';
import { turnOf } from './call-turns.ts';
import { createEpochs, TTL_AFTER_END_MS, TTL_MS } from './event-epoch.ts';
import { eventFunctions } from './event-functions.ts';
import { eventKeys } from './keys.ts';
import type { MilestoneTask } from './milestones.ts';
import type { Postgres } from './postgres.ts';
import type { Redis } from './redis.ts';

export type EventOptions = {
  /** Events kept for each task. */
  readonly ringCapacity: number;
  /** Batches kept in each shard's live feed; left out: 10,000. */
  readonly liveCapacity?: number;
  /** Whether deltas are kept in rings just now; left out: always. */
  readonly keepsDeltas?: () => boolean;
  /** Called for every event that became visible. */
  readonly onPublished: (type: EventType) => void;
};

/** A piece of streamed text. `k` counts the batches of one attempt from 0; its key says which attempt of the call is newer. */
export type Delta = {
  readonly callKey: string;
  readonly stepId: string;
  readonly attemptKey: string;
  readonly k: number;
  readonly text: string;
};

/** A milestone as its row has it. */
export type Milestone = {
  readonly id: string;
  readonly type: EventType;
  readonly at: Date;
  readonly body: Record<string, unknown>;
};

export type NewEvent =
  | { readonly kind: 'milestone'; readonly milestone: Milestone }
  | { readonly kind: 'delta'; readonly delta: Delta };

export type Published =
  | {
      readonly kind: 'published';
      readonly epoch: number;
      /** What has a higher number became visible by this call. */
      readonly before: number;
      /** Of each event: its number; 0 for a delta that was visible before; -1 where it was refused. */
      readonly seqs: readonly number[];
    }
  /** Milestones that an older epoch left without a number come first in this one. */
  | { readonly kind: 'pending'; readonly epoch: number }
  /** The task is in another epoch than the caller knew: what has no number must be read again. */
  | { readonly kind: 'moved' }
  /** Nothing of this run is published any more. */
  | { readonly kind: 'over' }
  /** Another run has taken over, and settles what this one left when it publishes first. */
  | { readonly kind: 'left' };

export type PublishRequest = {
  readonly task: MilestoneTask;
  readonly events: readonly NewEvent[];
  /** The epoch that the task was in when the events were read; undefined: whichever it is in. */
  readonly epoch: number | undefined;
  /** `all`: no other milestone of the run is without a number. A number: what had none when this epoch began was published in it. */
  readonly settles?: 'all' | number;
};

export type PublishEvents = ReturnType<typeof createPublishEvents>;

const LIVE_CAPACITY = 10_000;
/** Text kept per call for readers that join late. */
const MAX_CALL_TEXT_BYTES = 1_048_576;

export function createPublishEvents(postgres: Postgres, redis: Redis, options: EventOptions) {
  const epochs = createEpochs(postgres, redis);
  return async ({ task, events, ...request }: PublishRequest): Promise<Published> => {
    let { epoch } = request;
    const calls = [...new Set(events.flatMap((event) => callOf(event) ?? []))];
    const keys = keysOf(redis.prefix, task.taskId, calls);
    const packed = [request.settles ?? '', ...pack(events, calls)];
    for (let waitedAt: number | undefined; ; ) {
      const server = await redis.runId();
      const args = [server, task.runId, ...settingsOf(options), task.taskId, epoch ?? '', ...packed];
      const answer = (await redis.run(eventFunctions.publish, keys, args)) as Answer;
      if (answer[0] !== 'MISS') return read(events, answer, options.onPublished);
      const [, seenEpoch, seenRun] = answer;
      const next = await epochs.settle({ task, server, seenEpoch: Number(seenEpoch), seenRun, waitedAt });
      if (next.kind !== 'again') return next;
      // The first epoch settles nothing, so that what was read holds.
      if (epoch === 0 && next.epoch === 1) epoch = 1;
      if (epoch !== undefined && epoch !== next.epoch) return { kind: 'moved' };
      waitedAt = next.epoch;
    }
  };
}

function keysOf(prefix: string, taskId: string, calls: readonly string[]): readonly string[] {
  const { ring, meta, live, log, count, text } = eventKeys(prefix, taskId);
  return [ring, meta, live, log, count, ...calls.map(text)];
}

function settingsOf({ ringCapacity, liveCapacity = LIVE_CAPACITY, keepsDeltas }: EventOptions) {
  const keeps = keepsDeltas?.() === false ? 0 : 1;
  return [ringCapacity, TTL_MS, TTL_AFTER_END_MS, MAX_CALL_TEXT_BYTES, liveCapacity, keeps];
}

type Answer =
  | readonly ['OK', string, string, ...number[]]
  | readonly ['PENDING', string]
  | readonly ['MISS', string, string];

/** The answer names exceptions alone: everything else has the numbers after the one before. */
function read(
  events: readonly NewEvent[],
  answer: Exclude<Answer, readonly ['MISS', ...unknown[]]>,
  onPublished: EventOptions['onPublished'],
): Published {
  if (answer[0] === 'PENDING') return { kind: 'pending', epoch: Number(answer[1]) };
  const [, epoch, seqBefore, ...pairs] = answer;
  const before = Number(seqBefore);
  const exceptions = new Map<number, number>();
  for (let at = 0; at < pairs.length; at += 2) exceptions.set(pairs[at] ?? 0, pairs[at + 1] ?? -1);
  let seq = before;
  const seqs = events.map((event, index) => {
    const exception = exceptions.get(index + 1);
    if (exception !== undefined) return exception;
    seq += 1;
    onPublished(event.kind === 'delta' ? 'call_delta' : event.milestone.type);
    return seq;
  });
  return { kind: 'published', epoch: Number(epoch), before, seqs };
}

/** A batch on its way into the arguments of scripts/publish.lua. */
type Packing = {
  readonly calls: readonly string[];
  readonly bodies: string[];
  /** Ids of milestones, and where they are in the batch. */
  readonly logged: string[];
  readonly idFields: string[];
  readonly parts: (string | number)[];
};

function pack(events: readonly NewEvent[], calls: readonly string[]): (string | number)[] {
  const packing: Packing = { calls, bodies: [], logged: [], idFields: [], parts: [] };
  for (let at = 0; at < events.length; at = packing.bodies.length) packPart(packing, events, at);
  const { bodies, logged, idFields, parts } = packing;
  const callFields = calls.flatMap((call) => [`order:${call}`, `k:${call}`, `attempt:${call}`]);
  const texts = [`[${bodies.join(',')}]`, lengthsOf(bodies), `[${logged.join(',')}]`];
  return [calls.length, logged.length, ...texts, ...callFields, ...idFields, ...parts];
}

/** Packs what belongs together from one event on. */
function packPart(packing: Packing, events: readonly NewEvent[], at: number): void {
  const event = events[at];
  if (event === undefined) return;
  if (event.kind === 'delta') {
    packDeltas(packing, deltasFrom(events, at));
    return;
  }
  const plain = plainFrom(events, at);
  if (plain > 0) packing.parts.push('m', plain);
  for (const { milestone } of events.slice(at, at + Math.max(1, plain)) as readonly MilestoneEvent[])
    packMilestone(packing, milestone);
  if (plain > 0) return;
  packing.parts.push(...partOf(packing.calls, event.milestone));
}

/** What a milestone changes beside that it is one. */
function partOf(calls: readonly string[], { type, body }: Milestone): readonly (string | number)[] {
  const turn = turnOf(type, body);
  if (turn === undefined) return ['e'];
  const { kind, callKey, attempt, order } = turn;
  const call = calls.indexOf(callKey) + 1;
  if (kind === 'complete') return ['c', call, order, attempt, textBytesOf(body)];
  return ['s', call, order, kind === 'begins' ? attempt : ''];
}

type MilestoneEvent = Extract<NewEvent, { kind: 'milestone' }>;

function packMilestone({ bodies, logged, idFields }: Packing, { id, type, at, body }: Milestone): void {
  const quoted = JSON.stringify(id);
  bodies.push(JSON.stringify({ ...body, type, at: at.toISOString() }));
  logged.push(`[${quoted},${bodies.length}]`);
  idFields.push(`id:${quoted}`);
}

/** What deltas of one attempt have in common is written once: there are many of them. */
function packDeltas({ calls, bodies, parts }: Packing, deltas: readonly Delta[]): void {
  const [first] = deltas;
  if (first === undefined) return;
  const { callKey, stepId, attemptKey, k } = first;
  const order = attemptOrder(attemptKey);
  if (order === undefined) throw new Error(`a delta of no attempt: ${attemptKey}`);
  const type: EventType = 'call_delta';
  const at = new Date().toISOString();
  const common = JSON.stringify({ type, at, stepId, callKey, attempt: attemptKey }).slice(0, -1);
  const texts = deltas.map((delta) => cleanText(delta.text));
  for (const text of texts) bodies.push(`${common},"data":{"text":${JSON.stringify(text)}}}`);
  parts.push('d', deltas.length, calls.indexOf(callKey) + 1, order, attemptKey, k);
  parts.push(texts.join(''), lengthsOf(texts));
}

function lengthsOf(texts: readonly string[]): string {
  return texts.map((text) => Buffer.byteLength(text)).join(',');
}

/** Deltas that continue each other. */
function deltasFrom(events: readonly NewEvent[], at: number): readonly Delta[] {
  const deltas: Delta[] = [];
  for (let index = at; index < events.length; index += 1) {
    const event = events[index];
    const last = deltas.at(-1);
    if (event?.kind !== 'delta') break;
    const { delta } = event;
    if (last !== undefined && !(delta.attemptKey === last.attemptKey && delta.k === last.k + 1)) break;
    deltas.push(delta);
  }
  return deltas;
}

/** How many milestones from here on ask for nothing but a number. */
function plainFrom(events: readonly NewEvent[], at: number): number {
  const isSpecial = (event: NewEvent) =>
    event.kind === 'delta' || event.milestone.type === 'stream_end' || callOf(event) !== undefined;
  const end = events.findIndex((event, index) => index >= at && isSpecial(event));
  return (end === -1 ? events.length : end) - at;
}

/** The call whose text an event adds to, begins, voids or completes. */
function callOf(event: NewEvent): string | undefined {
  if (event.kind === 'delta') return event.delta.callKey;
  const { type, body } = event.milestone;
  return turnOf(type, body)?.callKey;
}

/** UTF-8 bytes that the attempt has streamed; 0 where its event does not say. */
function textBytesOf({ data }: Milestone['body']): number {
  const bytes = typeof data === 'object' && data !== null ? Reflect.get(data, 'textBytes') : undefined;
  return typeof bytes === 'number' ? bytes : 0;
}
