// Batches of events as the script makes them visible: in ring, feeds and texts, all at once and each in its place.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventKeys } from '../../src/stores/keys.ts';
import { createPublishEvents, type NewEvent } from '../../src/stores/publish-events.ts';
import type { EventDraft } from '../../src/task/event.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { delta, eventsStage, type StagedTask, step } from './events-stage.ts';

let test: TestStores;
const { begin, persist, rows, ring } = eventsStage(() => test);

beforeAll(async () => {
  test = await openTestStores({ persists: false });
});

afterAll(() => test[Symbol.asyncDispose]());

const completed = (textBytes: number, attempt = 1): EventDraft => ({
  ...{
    id: `completed-${attempt}`,
    type: 'call_completed',
    callKey: 'call',
    attempt: `call#0.1.${attempt}.0`,
  },
  data: { textBytes },
});

describe('the feeds', () => {
  it('carry one entry for each batch: everything in the one, milestones in the other', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a'), step('b')]);
    await test.stores.events.publishDeltas(task, [delta(0), delta(1), delta(2)]);
    await test.stores.events.append(task, [step('c "quoted" \\')]);
    const live = await entriesOf(task, 'live');
    expect(live.map(({ t, r, e, s }) => ({ t, r, e, s }))).toEqual(
      ['1', '3', '6'].map((s) => ({ t: task.taskId, r: task.runId, e: '1', s })),
    );
    const numbers = live.map(({ n }) => Number(n));
    expect(numbers).toEqual([0, 1, 2].map((n) => n + (numbers[0] ?? 0)));
    const shown = live.flatMap(({ b, s }) =>
      (JSON.parse(b ?? '') as object[]).map((body, index) => ({ ...body, seq: Number(s) + index })),
    );
    expect(shown).toEqual((await ring(task)).map(({ taskId: _, epoch: __, ...event }) => event));
    expect((await entriesOf(task, 'log')).map(({ t, r, e, s, m }) => ({ t, r, e, s, m }))).toEqual([
      { t: task.taskId, r: task.runId, e: '1', s: '0', m: '[["a",1],["b",2]]' },
      { t: task.taskId, r: task.runId, e: '1', s: '5', m: JSON.stringify([['c "quoted" \\', 1]]) },
    ]);
    expect((await rows(task)).map((row) => row.seq)).toEqual([1, 2, 6]);
  });

  it('get nothing of a batch that was visible before', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a')]);
    await test.stores.events.publishDeltas(task, [delta(0), delta(1)]);
    const before = await test.redis.command((client) =>
      client.get(eventKeys(test.prefix, task.taskId).count),
    );
    await test.stores.events.publishPending(task);
    expect(await test.stores.events.publishDeltas(task, [delta(0), delta(1)])).toEqual([true, true]);
    expect(await test.redis.command((client) => client.get(eventKeys(test.prefix, task.taskId).count))).toBe(
      before,
    );
    expect(await entriesOf(task, 'log')).toHaveLength(1);
  });

  it('of a run that lost its live feed are trimmed by age, the newest staying', async () => {
    const task = await begin();
    const { live } = eventKeys(test.prefix, task.taskId);
    await test.redis.command((client) => client.xadd(live, '5-1', 'b', 'old text'));
    await test.stores.events.append(task, [step('a')]);
    await test.stores.events.trimLive(60_000);
    const left = await test.redis.command((client) => client.xrange(live, '-', '+'));
    expect(JSON.stringify(left)).not.toContain('old text');
    expect(await entriesOf(task, 'live')).toHaveLength(1);
  });
});

describe('a batch of which a part is there', () => {
  it('shows the rest of the text, byte for byte', async () => {
    const task = await begin();
    const texts = ['häl', 'lo 😀 ', '', 'w\u0000or', 'ld\ud800', ' "end" \\'];
    const pieces = texts.map((text, k) => delta(k, text));
    await test.stores.events.publishDeltas(task, pieces.slice(0, 2));
    expect(await test.stores.events.publishDeltas(task, pieces)).toEqual(texts.map(() => true));
    expect((await ring(task)).map((event) => event.data?.['text'])).toEqual([
      ...['häl', 'lo 😀 ', '', 'wor', 'ld\ufffd', ' "end" \\'],
    ]);
    expect(await test.stores.events.callTexts(task.taskId)).toMatchObject([
      { text: 'hällo 😀 world\ufffd "end" \\' },
    ]);
  });

  it('numbers the others without a gap, whatever is mixed in it', async () => {
    const task = await begin();
    const publish = createPublishEvents(test.postgres, test.redis, OPTIONS);
    const batch = (...events: NewEvent[]) => publish({ task, events, epoch: undefined });
    await batch(milestone('a'), piece(0), milestone('b'));
    const mixed = [
      ...[milestone('ä'), milestone('a'), piece(0), piece(1), piece(2), milestone('b')],
      ...[piece(0, 'old', 0), milestone('c'), piece(0, 'newer', 2), milestone('d')],
    ];
    expect(await batch(...mixed)).toEqual({
      ...{ kind: 'published', epoch: 1, before: 3 },
      seqs: [4, 1, 0, 5, 6, 3, -1, 7, 8, 9],
    });
    expect((await ring(task)).map((event) => [event.seq, event.stepId, event.data?.['text']])).toEqual([
      ...[
        [1, 'a', undefined],
        [2, 'answer', 't0'],
        [3, 'b', undefined],
        [4, 'ä', undefined],
      ],
      ...[
        [5, 'answer', 't1'],
        [6, 'answer', 't2'],
        [7, 'c', undefined],
        [8, 'answer', 'newer'],
      ],
      [9, 'd', undefined],
    ]);
    expect((await entriesOf(task, 'log')).at(-1)).toMatchObject({ s: '3', m: '[["ä",1],["c",4],["d",6]]' });
    expect(await test.stores.events.callTexts(task.taskId)).toMatchObject([{ text: 'newer' }]);
  });

  it('ends with the event that ends the run', async () => {
    const task = await begin();
    const publish = createPublishEvents(test.postgres, test.redis, OPTIONS);
    const events = [milestone('a'), milestone('end', 'stream_end'), milestone('b'), piece(0)];
    expect(await publish({ task, events, epoch: undefined })).toMatchObject({ seqs: [1, 2, -1, -1] });
    expect((await ring(task)).map((event) => event.type)).toEqual(['step_started', 'stream_end']);
  });
});

describe('a completed call', () => {
  const lostOf = async (task: StagedTask) =>
    (await ring(task)).map((event) => Reflect.get(event, 'textLost')).at(-1);

  it.each<[string, number, string[], true | undefined]>([
    ['of which everything was streamed', 6, ['häl', 'lo'], undefined],
    ['of which the end is missing', 9, ['häl', 'lo'], true],
    ['of which nothing was streamed', 6, [], true],
    ['that has no text', 0, [], undefined],
  ])('%s says whether text was lost', async (_title, bytes, texts, lost) => {
    const task = await begin();
    await test.stores.events.publishDeltas(
      task,
      texts.map((text, k) => delta(k, text)),
    );
    await test.stores.events.append(task, [step('a'), completed(bytes), step('b')]);
    const events = await ring(task);
    expect(events.map((event) => Reflect.get(event, 'textLost')).slice(-3)).toEqual([
      undefined,
      lost,
      undefined,
    ]);
    expect((await entriesOf(task, 'live')).at(-1)?.['b']?.includes('"textLost":true')).toBe(lost === true);
    await persist();
    // What is stored says nothing of it: a reader of Postgres has no text anyway.
    expect(JSON.stringify(await test.stores.events.stored(task.taskId, 0, 10))).not.toContain('textLost');
  });

  it('says so where the text is another attempt\u2019s, or was begun in an older epoch', async () => {
    const task = await begin();
    await test.stores.events.publishDelta(task, delta(0, 'hello', 1));
    await test.stores.events.append(task, [completed(5, 2)]);
    expect(await lostOf(task)).toBe(true);
    const { meta } = eventKeys(test.prefix, task.taskId);
    await test.redis.command((client) => client.del(meta));
    await test.stores.events.publishDelta(task, delta(1, 'hello', 3));
    await test.stores.events.append(task, [completed(10, 3)]);
    expect(await lostOf(task)).toBe(true);
  });

  it('marks one whose text went beyond its bound', async () => {
    const task = await begin();
    for (let k = 0; k < 6; k += 1) await test.stores.events.publishDelta(task, delta(k, 'x'.repeat(250_000)));
    await test.stores.events.append(task, [completed(1_500_000)]);
    expect(await lostOf(task)).toBe(true);
  });
});

describe('where rings keep no deltas', () => {
  it('milestones keep their numbers there, and everything is in the live feed and the text', async () => {
    const task = await begin();
    const publish = createPublishEvents(test.postgres, test.redis, { ...OPTIONS, keepsDeltas: () => false });
    const events = [milestone('a'), milestone('b'), piece(0), piece(1), milestone('c'), piece(2)];
    await publish({ task, events, epoch: undefined });
    await publish({ task, events: [piece(3)], epoch: undefined });
    expect((await ring(task)).map((event) => [event.seq, event.stepId])).toEqual([
      ...[
        [1, 'a'],
        [2, 'b'],
        [5, 'c'],
      ],
    ]);
    const live = await entriesOf(task, 'live');
    expect(live.map(({ s, b }) => [s, (JSON.parse(b ?? '') as object[]).length])).toEqual([
      ['1', 6],
      ['7', 1],
    ]);
    expect(await test.stores.events.callTexts(task.taskId)).toMatchObject([{ text: 't0t1t2t3' }]);
    expect(
      (await test.stores.events.ring(task.taskId, { epoch: 1, seq: 1 }, 1)).map(({ seq }) => seq),
    ).toEqual([2]);
  });
});

const OPTIONS = { ringCapacity: 100, onPublished: () => undefined };

function milestone(id: string, type: EventDraft['type'] = 'step_started'): NewEvent {
  return { kind: 'milestone', milestone: { id, type, at: new Date(), body: { stepId: id } } };
}

function piece(k: number, text?: string, attempt?: number): NewEvent {
  return { kind: 'delta', delta: delta(k, text, attempt) };
}

/** Entries of the feed of the task's shard that are of this task, their fields by name. */
async function entriesOf(task: StagedTask, feed: 'live' | 'log'): Promise<readonly Record<string, string>[]> {
  const key = eventKeys(test.prefix, task.taskId)[feed];
  const entries = await test.redis.command((client) => client.xrange(key, '-', '+'));
  return entries
    .map(([, fields]) => {
      const pairs = fields.flatMap((name, at) => (at % 2 === 0 ? [[name, fields[at + 1] ?? '']] : []));
      return Object.fromEntries(pairs) as Record<string, string>; // names and values by turns
    })
    .filter(({ t }) => t === task.taskId);
}
