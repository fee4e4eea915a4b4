// Events where something goes wrong: Redis loses them, publishers are held up, payloads are hostile.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventFunctions } from '../../src/stores/event-functions.ts';
import { createEventLog } from '../../src/stores/event-log.ts';
import { eventKeys } from '../../src/stores/keys.ts';
import type { Postgres } from '../../src/stores/postgres.ts';
import { createPublishEvents } from '../../src/stores/publish-events.ts';
import { createPublishPending } from '../../src/stores/publish-pending.ts';
import type { EventDraft } from '../../src/task/event.ts';
import { openTestStores, persistEvents, type TestStores } from '../support/stores.ts';
import { delta, END, eventsStage, type StagedTask, step, steps } from './events-stage.ts';

let test: TestStores;
const { begin, write, publish, ring, persist, rows, rowsNow, lose } = eventsStage(() => test);

beforeAll(async () => {
  test = await openTestStores({ persists: false });
});

afterAll(() => test[Symbol.asyncDispose]());

const OPTIONS = { ringCapacity: 512, onPublished: () => undefined };
const NEVER_CLAIMS = { claimAfterMs: 3_600_000, onRefused: () => undefined };

describe('a Redis that lost a task', () => {
  it('begins another epoch and goes on from the highest stored number', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(3));
    await test.stores.events.publishDelta(task, delta(0));
    await persist();
    await lose(task, 'call');
    expect(await test.stores.events.head(task.taskId)).toBeUndefined();
    await test.stores.events.append(task, [step('next')]);
    expect((await ring(task)).map((event) => [event.epoch, event.seq, event.stepId])).toEqual([
      [2, 4, 'next'],
    ]);
    expect((await rows(task)).map((row) => row.seq)).toEqual([1, 2, 3, 4]);
  });

  it('shows milestones that it lost before the text of the call that they began', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(2));
    await test.stores.events.publishDelta(task, delta(0));
    await lose(task, 'call');
    expect(await test.stores.events.publishDeltas(task, [delta(1), delta(2)])).toEqual([true, true]);
    expect(await visible(task)).toEqual(['2-1 e1', '2-2 e2', '2-3 call_delta', '2-4 call_delta']);
    const { meta } = eventKeys(test.prefix, task.taskId);
    expect(await test.redis.command((client) => client.hexists(meta, 'pending'))).toBe(0);
    await test.stores.events.publishDelta(task, delta(3));
    await test.stores.events.append(task, [step('next')]);
    expect((await visible(task)).slice(4)).toEqual(['2-5 call_delta', '2-6 next']);
  });

  it('shows them in their order also where it is lost between two pages of them', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(2));
    const reader = createPublishEvents(test.postgres, test.redis, OPTIONS);
    let pages = 0;
    const pending = createPublishPending(test.postgres, async (request) => {
      const published = await reader(request);
      pages += 1;
      if (pages > 1) return published;
      await lose(task);
      const events = [{ kind: 'delta', delta: delta(0) }] as const;
      expect(await reader({ task, events, epoch: undefined })).toEqual({ kind: 'pending', epoch: 2 });
      return published;
    });
    await write(task, steps(130, 'more'));
    await pending.publish(task);
    await test.stores.events.publishDelta(task, delta(0));
    const names = [...steps(2), ...steps(130, 'more')].map(({ id }, n) => `2-${n + 1} ${id}`);
    expect(await visible(task)).toEqual([...names, '2-133 call_delta']);
  });

  it('is not trusted when it is another server with an old snapshot', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(3));
    await persist();
    const { meta } = eventKeys(test.prefix, task.taskId);
    await test.redis.command((client) => client.hset(meta, { server: 'another', seq: '1' }));
    expect(await test.stores.events.head(task.taskId)).toBeUndefined();
    await test.stores.events.append(task, [step('next')]);
    expect((await ring(task)).map((event) => [event.epoch, event.seq])).toEqual([[2, 4]]);
    expect((await rows(task)).map((row) => row.seq)).toEqual([1, 2, 3, 4]);
  });

  it('publishes again what was visible and not stored, and loses nothing', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(2));
    await persist();
    await test.stores.events.append(task, [step('open')]);
    await lose(task);
    await test.stores.events.append(task, [step('next')]);
    expect(await visible(task)).toEqual(['2-3 open', '2-4 next']);
    expect(await numbered(task)).toEqual(['e1 1-1', 'e2 1-2', 'open 2-3', 'next 2-4']);
  });

  it('tells a stream again whose end was not stored, in its order, and then it has ended', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a'), END]);
    await lose(task);
    await write(task, [step('late')]);
    await publish(task);
    expect(await visible(task)).toEqual(['2-1 a', '2-2 stream_end']);
    expect(await numbered(task)).toEqual(['a 2-1', 'end 2-2', 'late -1-null']);
  });

  it.each(['before', 'after'])(
    'gets the numbers of a persister that was held up %s the new epoch began into no wrong place',
    async (when) => {
      const task = await begin();
      await test.stores.events.append(task, steps(2));
      await persist();
      const slow = heldUpPersister();
      await test.stores.events.append(task, [step('slow')]);
      const held = slow.persister.pass();
      await slow.reached;
      await lose(task);
      if (when === 'before') await goOn(slow, held);
      // The epoch is begun by text, for which a milestone that is without a number makes room.
      await test.stores.events.publishDelta(task, delta(0));
      if (when === 'after') await goOn(slow, held);
      await test.stores.events.append(task, [step('quick')]);
      expect(await numbered(task)).toEqual(
        when === 'before'
          ? ['e1 1-1', 'e2 1-2', 'slow 1-3', 'quick 2-5']
          : ['e1 1-1', 'e2 1-2', 'slow 2-3', 'quick 2-5'],
      );
      expect(await visible(task)).toEqual(
        when === 'before' ? ['2-4 call_delta', '2-5 quick'] : ['2-3 slow', '2-4 call_delta', '2-5 quick'],
      );
    },
  );

  it('keeps the order of milestones of which two persisters had taken the later one first', async () => {
    const task = await begin();
    const slow = heldUpPersister();
    await test.stores.events.append(task, [step('first')]);
    const held = slow.persister.pass();
    await slow.reached;
    await test.stores.events.append(task, [step('second'), END]);
    const quick = createEventLog(test.postgres, test.redis, { ...NEVER_CLAIMS, batchSize: 10 });
    await quick.openPersister('quick').pass();
    expect((await rowsNow(task)).map((row) => row.id)).toEqual(['second', 'end', 'first']);
    // A list that went on from there would never show the first.
    expect(await test.stores.events.stored(task.taskId, 0, 10)).toEqual([]);
    await lose(task);
    expect(await test.stores.events.sweep(0)).toBeGreaterThan(0);
    await goOn(slow, held);
    expect(await numbered(task)).toEqual(['first 2-1', 'second 2-2', 'end 2-3']);
    expect(await visible(task)).toEqual(['2-1 first', '2-2 second', '2-3 stream_end']);
  });

  it('lets no number of an older epoch be written by the entries that outlived a restart', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(2));
    const { meta } = eventKeys(test.prefix, task.taskId);
    await test.redis.command((client) => client.hset(meta, { server: 'another' }));
    await test.stores.events.publishDelta(task, delta(0));
    await persist();
    expect(await visible(task)).toEqual(['2-1 e1', '2-2 e2', '2-3 call_delta']);
    await test.stores.events.append(task, [step('next')]);
    expect(await numbered(task)).toEqual(['e1 2-1', 'e2 2-2', 'next 2-4']);
  });

  it('neither loses nor doubles a milestone while it is lost again and again', async () => {
    const task = await begin();
    const all = Array.from({ length: 60 }, (_, n) => `m${n}`);
    {
      await using _one = persistEvents(test.stores, 'one');
      await using _two = persistEvents(test.stores, 'two');
      await Promise.all(
        [0, 1, 2].map(async (lane) => {
          for (let n = lane; n < all.length; n += 3) {
            await test.stores.events.append(task, [step(`m${n}`)]);
            await test.stores.events.publishDelta(task, delta(n, `d${n}`, 1, `lane-${lane}`));
            if (n % 7 === 0) await lose(task, `lane-${lane}`);
          }
        }),
      );
    }
    await persist();
    await test.stores.events.sweep(0);
    const found = await rows(task);
    expect(found.map((row) => row.id).sort()).toEqual([...all].sort());
    expect(found.filter((row) => row.seq === null)).toEqual([]);
    const stored = await test.stores.events.stored(task.taskId, 0, 1_000);
    const seqs = stored.map((event) => event.seq);
    expect(seqs).toEqual([...new Set(seqs)].sort((left, right) => left - right));
    // What readers of the present epoch see is what is stored of it: the other numbers are those of text.
    const shown = await ring(task);
    const milestones = shown.filter((event) => event.type !== 'call_delta');
    expect(stored.filter((event) => event.epoch === shown[0]?.epoch)).toEqual(milestones);
  });
});

describe('another run of a task', () => {
  it('comes behind what the run before has shown, also where that is not stored yet', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('old')]);
    await test.stores.events.publishDelta(task, delta(0));
    await test.stores.events.append(task, [END]);
    await write(task, [step('late')]);
    const next = await begin('run-2', task.taskId);
    await test.stores.events.append(next, [step('new')]);
    await persist();
    await test.stores.events.append(task, [step('later')]);
    expect(await numbered(task)).toEqual(['old 1-1', 'end 1-2', 'new 2-3', 'late -1-null', 'later -1-null']);
    expect(await test.stores.events.origin(task.taskId)).toEqual({ runId: 'run-2', epoch: 2, seq: 2 });
  });

  it('is not told the end of the run before, whose number comes late', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('old'), END]);
    const next = await begin('run-2', task.taskId);
    const { seq: afterSeq } = await test.stores.events.origin(task.taskId);
    expect(afterSeq).toBe(0);
    await persist();
    const told = () => test.stores.events.history(task.taskId, { afterSeq, standing: undefined });
    expect(await told()).toEqual([]);
    await test.stores.events.append(next, [step('new')]);
    await persist();
    expect((await told()).map(({ seq, stepId }) => [seq, stepId])).toEqual([[3, 'new']]);
  });

  it('settles what the run before could not publish itself any more', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('old')]);
    await lose(task);
    await test.redis.command((client) => client.del(eventKeys(test.prefix, task.taskId).log));
    const next = await begin('run-2', task.taskId);
    // Nobody has counted for the new run yet: it is not said that nothing comes of this.
    expect(await publish(task)).toBe(0);
    expect(await numbered(task)).toEqual(['old null-null']);
    await test.stores.events.append(next, [step('new')]);
    expect(await numbered(task)).toEqual(['old 1-1', 'new 2-2']);
  });

  it('settles a run before that was never published at all', async () => {
    const task = await begin();
    await write(task, [step('old'), END]);
    const next = await begin('run-2', task.taskId);
    await test.stores.events.append(next, [step('new')]);
    await test.stores.events.sweep(0);
    expect(await numbered(task)).toEqual(['old 0-1', 'end 0-2', 'new 1-3']);
  });

  it('that was told to its end leaves nothing of the run before waiting, whenever it comes', async () => {
    const task = await begin();
    const next = await begin('run-2', task.taskId);
    await test.stores.events.append(next, [END]);
    await persist();
    await lose(task);
    await write(task, [step('late')]);
    await test.stores.events.sweep(0);
    expect(await numbered(task)).toEqual(['end 1-1', 'late -1-null']);
  });
});

describe('an epoch that was raised and did not begin, since its publisher died', () => {
  const raise = (task: StagedTask, by: number) =>
    test.postgres.query('update tasks set epoch = epoch + $2 where task_id = $1', [task.taskId, by]);

  it.each([
    ['while Redis has no counter', true],
    ['while Redis goes on in the one before', false],
  ])('is followed by another one %s', async (_title, isLost) => {
    const task = await begin();
    await test.stores.events.append(task, [step('a')]);
    await raise(task, 1);
    if (isLost) await lose(task);
    await persist();
    await test.stores.events.append(task, [step('b')]);
    expect(await numbered(task)).toEqual(['a 3-1', 'b 3-2']);
    expect(await visible(task)).toEqual(['3-1 a', '3-2 b']);
  });

  it('changes nothing when it begins too late', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a')]);
    const { ring: ringKey, meta } = eventKeys(test.prefix, task.taskId);
    await lose(task);
    await test.stores.events.append(task, [step('b')]);
    const args = [await test.redis.runId(), task.runId, 1, 0, 60_000, 0, 0];
    expect(await test.redis.run(eventFunctions['begin-epoch'], [ringKey, meta], args)).toBe(0);
    expect(await visible(task)).toEqual(['2-1 a', '2-2 b']);
  });

  it('is above that of Redis where Postgres is an older copy of itself', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a')]);
    for (let n = 0; n < 3; n += 1) {
      await lose(task);
      await publish(task);
    }
    await persist();
    await raise(task, -3);
    await test.stores.events.append(task, [step('b')]);
    expect(await numbered(task)).toEqual(['a 4-1', 'b 5-2']);
  });

  it('is raised once by many publishers that miss at once', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a')]);
    await lose(task);
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        n % 2 === 0
          ? test.stores.events.append(task, [step(`m${n}`)])
          : test.stores.events.publishDelta(task, delta(0, 'x', 1, `call-${n}`)),
      ),
    );
    expect(await test.stores.events.head(task.taskId)).toEqual({ epoch: 2, seq: 21, ended: false });
  });
});

describe('hostile payloads', () => {
  const deep: unknown = JSON.parse(`${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`);

  it.each<[string, unknown, unknown]>([
    ['a NUL', { text: 'a\u0000b', 'k\u0000': 1 }, { text: 'ab', k: 1 }],
    ['lone surrogates', { text: '\ud800', '\udc00': 1 }, { text: '�', '�': 1 }],
    ['an escape of a NUL as text', { text: '\\u0000' }, { text: '\\u0000' }],
    ['base64', { image: 'QUJD'.repeat(1_000) }, { image: '[base64]' }],
    [
      'secrets',
      { apiKey: 'x', note: 'key sk-abcdefghijklmnop1234' },
      { apiKey: '[redacted]', note: 'key [redacted]' },
    ],
    [
      'numbers that JSON has not',
      { nan: Number.NaN, far: Number.POSITIVE_INFINITY, big: 1e308 },
      { nan: null, far: null, big: 1e308 },
    ],
    ['big integers', { nano: 12_345_678_901_234_567_890n }, { nano: '12345678901234567890' }],
    ['a hundred thousand levels', { deep }, { deep: { a: { a: { a: { a: { a: { a: '[too deep]' } } } } } } }],
    ['dangerous names', JSON.parse('{"constructor":1,"toString":2}'), { constructor: 1, toString: 2 }],
    ['quotes and Lua', { text: `"'\\]]--[[ {} %s \u2028` }, { text: `"'\\]]--[[ {} %s \u2028` }],
    ['empty objects and lists', { list: [], object: {} }, { list: [], object: {} }],
  ])('of %s blocks no batch and comes out safe', async (_title, data, safe) => {
    const task = await begin();
    const hostile: EventDraft = { id: 'b', type: 'tool_completed', data: data as Record<string, unknown> };
    await test.stores.events.append(task, [step('a'), hostile, step('c')]);
    const events = await ring(task);
    expect(events.map((event) => event.seq)).toEqual([1, 2, 3]);
    expect(events[1]?.data).toEqual(safe);
    await persist();
    expect(await test.stores.events.stored(task.taskId, 0, 10)).toEqual(events);
  });
});

/** A persister that takes a batch and is held up before it writes, as a frozen process would be. */
function heldUpPersister() {
  const reached = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const query: Postgres['query'] = async (text, values) => {
    reached.resolve();
    await gate.promise;
    return test.postgres.query(text, values);
  };
  const log = createEventLog({ ...test.postgres, query }, test.redis, { ...NEVER_CLAIMS, batchSize: 10 });
  return { persister: log.openPersister('held up'), reached: reached.promise, go: gate.resolve };
}

async function goOn(slow: ReturnType<typeof heldUpPersister>, held: Promise<unknown>): Promise<void> {
  slow.go();
  await held;
}

/** What readers see: position, and step or type. */
async function visible(task: StagedTask): Promise<readonly string[]> {
  return (await ring(task)).map(
    ({ epoch, seq, type, stepId }) => `${epoch}-${seq} ${type === 'call_delta' ? type : (stepId ?? type)}`,
  );
}

/** Rows by their numbers, once all that were given are written. */
async function numbered(task: StagedTask): Promise<readonly string[]> {
  return (await rows(task)).map(({ id, epoch, seq }) => `${id} ${epoch}-${seq}`);
}
