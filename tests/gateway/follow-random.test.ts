// Readers that leave after any event and come back at any time, of tasks that stream several calls at once, begin attempts anew, lose
// text and lose Redis: whatever they read in whatever pieces, it tells the same story. A seed that fails is named; `WEIR_SEED` runs it alone.

import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { seededChance } from '../../dev/simulated-provider/duration.ts';
import { eventKeys } from '../../src/stores/keys.ts';
import type { Cursor, EventDraft, TaskEvent } from '../../src/task/event.ts';
import { openTestStores, storesOn, type TestStores } from '../support/stores.ts';
import { createStoredTask, followEvents, followStoresOf, typesOf } from './events.ts';

const RING = 16;
const SEEDS = 30;
const AT_ONCE = 6;
const STEPS = 45;
const READERS = 4;

let servers: TestStores;
beforeAll(async () => {
  servers = await openTestStores({ events: { ringCapacity: RING, onPublished: () => undefined } });
});
afterAll(() => servers[Symbol.asyncDispose]());

test.each([
  ['of which nothing is lost', { drops: false, losesRedis: false, isShort: false }],
  ['of whose text pieces are dropped', { drops: true, losesRedis: false, isShort: false }],
  ['whose Redis is lost', { drops: false, losesRedis: true, isShort: false }],
  ['whose Redis is lost, and short of memory', { drops: true, losesRedis: true, isShort: true }],
])(
  'readers of tasks %s are told the same story',
  async (_, mode) => {
    const only = process.env['WEIR_SEED'];
    const seeds = (
      only === undefined ? Array.from({ length: SEEDS }, (__, n) => n) : [Number(only)]
    ).values();
    const faults: string[] = [];
    const lane = async () => {
      for (const seed of seeds)
        await play(seed, mode).catch((error: unknown) => void faults.push(`seed ${seed}: ${String(error)}`));
    };
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
    expect(faults).toEqual([]);
  },
  120_000,
);

type Mode = { readonly drops: boolean; readonly losesRedis: boolean; readonly isShort: boolean };

/** What happened, as every reader has to tell it. */
type Story = { readonly milestones: string[]; readonly answers: Map<string, string>; isOver: boolean };

async function play(seed: number, mode: Mode): Promise<void> {
  const random = seededChance(seed);
  const story: Story = { milestones: [], answers: new Map(), isOver: false };
  const stage = openStage(seed, story);
  const readers = Array.from({ length: READERS }, (_, n) =>
    readAsOneLikes(stage.taskId, seededChance(1_000 * seed + n), story),
  );
  const done = Promise.all(readers);
  // Heard of at the end: until then the task goes on.
  done.catch(() => undefined);
  await stage.begin();
  for (let step = 0; step < STEPS; step += 1) {
    await takeStep(stage, random, mode);
    if (random() < 0.3) await pause(70 * random());
  }
  await stage.end();
  story.isOver = true;
  await done;
}

type Stage = ReturnType<typeof openStage>;

async function takeStep(stage: Stage, random: () => number, mode: Mode): Promise<void> {
  const what = random();
  const call = stage.open[Math.floor(random() * stage.open.length)];
  if (call === undefined || (what < 0.06 && stage.open.length < 3)) await stage.start();
  else if (what < 0.75) await stage.stream(call, 1 + Math.floor(4 * random()));
  else if (what < 0.82) await stage.complete(call);
  else if (what < 0.86) await stage.restart(call);
  else if (what < 0.9) call.isLost ||= mode.drops;
  else if (what < 0.94) stage.keeps.deltas = !(mode.isShort && stage.keeps.deltas);
  else if (what < 0.96) await (mode.losesRedis ? stage.loseRedis(random() < 0.5) : undefined);
  else await stage.tell({ type: 'rate_wait' });
}

type Call = {
  readonly step: string;
  readonly key: string;
  attempt: number;
  k: number;
  text: string;
  isLost: boolean;
};

function openStage(seed: number, story: Story) {
  const keeps = { deltas: true };
  const events = { ringCapacity: RING, keepsDeltas: () => keeps.deltas, onPublished: () => undefined };
  const stores = storesOn(servers, { events });
  const stored = createStoredTask({ ...servers, stores }, `task-${seed}-${randomUUID()}`);
  const { taskId, runId } = stored;
  const task = { taskId, runId, tenantId: 'default' };
  const open: Call[] = [];
  let told = 0;
  let calls = 0;
  const attemptOf = (call: Call) => `${call.key}#0.1.${call.attempt}.0`;
  const tell = async (...drafts: Omit<EventDraft, 'id'>[]) => {
    story.milestones.push(...drafts.map(nameOf));
    told += 1;
    await stores.events.append(
      task,
      drafts.map((draft, n) => ({ ...draft, id: `${told}.${n}` })),
    );
  };
  const of = (call: Call) => ({ stepId: call.step, callKey: call.key, attempt: attemptOf(call) });
  return {
    ...{ taskId, keeps, open, tell },
    async begin() {
      story.milestones.push('task_started', 'step_started');
      await stored.begin();
    },
    async start() {
      calls += 1;
      const key = `${taskId}:${runId}:s${calls}:1`;
      const call: Call = { step: `s${calls}`, key, attempt: 1, k: 0, text: '', isLost: false };
      await tell({ type: 'call_started', ...of(call) });
      open.push(call);
    },
    async stream(call: Call, pieces: number) {
      const texts = Array.from({ length: pieces }, (_, n) => `${told}.${call.k + n} `);
      call.text += texts.join('');
      if (call.isLost) return;
      const { stepId, callKey, attempt: attemptKey } = of(call);
      const deltas = texts.map((text, n) => ({ stepId, callKey, attemptKey, k: call.k + n, text }));
      call.k += pieces;
      await stores.events.publishDeltas(task, deltas);
    },
    async complete(call: Call) {
      story.answers.set(call.key, call.text);
      await storeAnswer(taskId, { ...of(call), text: call.text });
      await tell({ type: 'call_completed', ...of(call), data: { textBytes: Buffer.byteLength(call.text) } });
      open.splice(open.indexOf(call), 1);
    },
    async restart(call: Call) {
      const before = of(call);
      Object.assign(call, { attempt: call.attempt + 1, k: 0, text: '', isLost: false });
      await tell({ type: 'attempt_reset', ...before }, { type: 'call_started', ...of(call) });
    },
    /** What it has of this task, that is, and perhaps numbers that are not in Postgres. */
    async loseRedis(losesLog: boolean) {
      const { ring, meta, text, log } = eventKeys(servers.prefix, taskId);
      const texts = Array.from({ length: calls }, (_, n) => text(`${taskId}:${runId}:s${n + 1}:1`));
      await servers.redis.command((client) => client.del(ring, meta, ...texts, ...(losesLog ? [log] : [])));
    },
    async end() {
      for (const call of [...open]) await this.complete(call);
      story.milestones.push('task_completed', 'stream_end');
      await stored.end();
    },
  };
}

async function storeAnswer(
  taskId: string,
  { callKey, attempt, text }: { callKey: string; attempt: string; text: string },
): Promise<void> {
  await servers.postgres.query(
    `insert into call_results (call_key, tenant_id, task_id, attempt_key, status, model, text, finish_reason, usage, cost_nano_usd)
     values ($1, 'default', $2, $3, 'completed', 'simulated/small', $4, 'stop', '{}', 0)`,
    [callKey, taskId, attempt, text],
  );
}

/** Reads some events at a time, until the end, and holds what it has against the story. */
async function readAsOneLikes(taskId: string, random: () => number, story: Story): Promise<void> {
  const reader = new Reader(story);
  await pause(150 * random());
  while (!reader.isOver) {
    let most = story.isOver && random() < 0.2 ? Number.POSITIVE_INFINITY : 1 + 12 * random();
    const breaks = random() < 0.3 && !story.isOver ? Math.ceil(60 * random()) : 20_000;
    const options = { after: reader.after, signal: AbortSignal.timeout(breaks) };
    for await (const event of followEvents(followStoresOf(servers), taskId, options)) {
      reader.take(event);
      most -= 1;
      if (most <= 0 || reader.isOver) break;
    }
    if (breaks === 20_000 && options.signal.aborted)
      throw new Error(`a reader hangs after ${reader.trace()}`);
    await pause(random() < 0.4 ? 150 * random() : 0);
  }
  expect(reader.milestones).toEqual(story.milestones);
}

class Reader {
  readonly #story: Story;
  readonly #texts = new Map<string, { attempt: string; text: string }>();
  #events: TaskEvent[] = [];
  milestones: string[] = [];

  constructor(story: Story) {
    this.#story = story;
  }

  get after(): Cursor | undefined {
    return this.#events.at(-1);
  }

  get isOver(): boolean {
    return this.#events.at(-1)?.type === 'stream_end';
  }

  trace(): string {
    const places = this.#events.map(({ epoch, seq, type, attempt, data }) =>
      [`${epoch}-${seq}`, type, attempt?.slice(-14), data?.['text']].join(' '),
    );
    return `${typesOf(this.#events.slice(-1))}\n${places.join('\n')}`;
  }

  take(event: TaskEvent): void {
    const last = this.#events.at(-1);
    this.#events.push(event);
    const { type, epoch, seq, callKey = '', attempt = '' } = event;
    if (type === 'reset') {
      this.#texts.clear();
      this.milestones = [];
      return;
    }
    if (last !== undefined && (epoch !== last.epoch || seq < last.seq)) this.#fail('out of order');
    if ('textLost' in event) this.#fail('a mark that is no reader’s');
    this.#read(event);
    if (type !== 'call_delta' && type !== 'call_snapshot') this.milestones.push(nameOf(event));
    const text = this.#texts.get(callKey);
    if (
      type === 'call_completed' &&
      (text?.attempt !== attempt || text.text !== this.#story.answers.get(callKey))
    )
      this.#fail(`text is "${text?.text}" and not "${this.#story.answers.get(callKey)}"`);
  }

  #read({ type, callKey, attempt = '', data }: TaskEvent): void {
    if (callKey === undefined) return;
    const before = this.#texts.get(callKey);
    const own = before?.attempt === attempt ? before.text : '';
    const piece = String(data?.['text'] ?? '');
    if (type === 'attempt_reset') {
      if (before?.attempt === attempt) this.#texts.delete(callKey);
    } else if (type === 'call_snapshot') this.#texts.set(callKey, { attempt, text: piece });
    else this.#texts.set(callKey, { attempt, text: type === 'call_delta' ? own + piece : own });
  }

  #fail(why: string): never {
    throw new Error(`${why}: ${this.trace()}`);
  }
}

function nameOf({ type, callKey, attempt }: Omit<EventDraft, 'id'>): string {
  return [
    type,
    ...(callKey === undefined ? [] : [callKey.split(':').at(-2), attempt?.split('#').at(-1)]),
  ].join(' ');
}
