import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { eventFunctions } from '../../src/stores/event-functions.ts';
import {
  createEventLog,
  type EventLogOptions,
  PERSISTERS,
  type RefusedEntry,
} from '../../src/stores/event-log.ts';
import { EVENT_SHARDS, eventKeys, feedKeys } from '../../src/stores/keys.ts';
import type { Postgres } from '../../src/stores/postgres.ts';
import type { Redis } from '../../src/stores/redis.ts';
import { eventually } from '../support/eventually.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { END, eventsStage, type StagedTask, step, steps } from './events-stage.ts';

let test: TestStores;
const { begin, persist, rowsNow } = eventsStage(() => test);

beforeAll(async () => {
  test = await openTestStores({ persists: false });
});

afterAll(() => test[Symbol.asyncDispose]());

/** Nothing that an earlier test left. */
beforeEach(() => emptyFeeds());

describe('pass', () => {
  it('writes the numbers of many batches of many tasks, and empties the feeds', async () => {
    const tasks = await Promise.all(Array.from({ length: 20 }, () => begin()));
    await Promise.all(
      tasks.map(async (task) => {
        for (let n = 0; n < 10; n += 1) await test.stores.events.append(task, steps(2, `s${n}-`));
      }),
    );
    expect((await test.stores.eventLog.state()).backlog).toBe(200);
    const persister = openLog({ batchSize: 7 }).openPersister('p');
    while (await persister.pass());
    for (const task of tasks) expect((await rowsNow(task)).map((row) => row.seq)).toEqual(counted(20));
    expect(await test.stores.eventLog.state()).toEqual({ backlog: 0, lagSeconds: 0 });
    expect(await pendingOf('p')).toBe(0);
  });

  it('shares the work among several, each entry once', async () => {
    const tasks = await Promise.all(Array.from({ length: 30 }, () => begin()));
    const log = openLog({ batchSize: 20 });
    const written: number[] = [];
    const persisters = Array.from({ length: 3 }, (_, n) => {
      const counting = watching(test.postgres, (count) => void written.push(count));
      return openLog({ batchSize: 20 }, counting).openPersister(`p${n}`);
    });
    await Promise.all(tasks.map((task) => test.stores.events.append(task, [...steps(3), END])));
    await Promise.all(persisters.map((persister) => persister.pass()));
    for (const persister of persisters) while (await persister.pass());
    for (const task of tasks) expect((await rowsNow(task)).map((row) => row.seq)).toEqual(counted(4));
    expect(written.reduce((sum, count) => sum + count, 0)).toBe(120);
    expect((await log.state()).backlog).toBe(0);
  });

  it('begins its groups anew when Redis was emptied', async () => {
    const task = await begin();
    const persister = openLog().openPersister('p');
    await persister.pass();
    await emptyFeeds();
    await test.stores.events.append(task, steps(2));
    await persister.pass();
    expect((await rowsNow(task)).map((row) => row.seq)).toEqual([1, 2]);
    expect((await test.stores.eventLog.state()).backlog).toBe(0);
  });

  it('leaves a task alone whose row somebody holds, and stores the others', async () => {
    const [held, free] = [await begin(), await begin()];
    for (const task of [held, free]) await test.stores.events.append(task, steps(2));
    const persister = openLog().openPersister('p');
    await test.postgres.transaction(async (sql) => {
      await sql.query('select from tasks where task_id = $1 for update', [held.taskId]);
      await persister.pass();
      expect((await rowsNow(free)).map((row) => row.seq)).toEqual([1, 2]);
      expect((await rowsNow(held)).map((row) => row.seq)).toEqual([null, null]);
      expect((await test.stores.eventLog.state()).backlog).toBe(1);
    });
    await persister.pass();
    expect((await rowsNow(held)).map((row) => row.seq)).toEqual([1, 2]);
    expect((await test.stores.eventLog.state()).backlog).toBe(0);
  });

  it('stores the others also where it was handed nothing but entries of such a task', async () => {
    const [held, free] = [await begin(), await begin()];
    for (const one of steps(5)) await test.stores.events.append(held, [one]);
    const persister = openLog({ batchSize: 5, claimAfterMs: 60_000 }).openPersister('p');
    await test.postgres.transaction(async (sql) => {
      await sql.query('select from tasks where task_id = $1 for update', [held.taskId]);
      for (let passes = 0; passes < 6; passes += 1) await persister.pass();
      await test.stores.events.append(free, steps(1));
      for (let passes = 0; passes < 6; passes += 1) await persister.pass();
      expect((await rowsNow(free)).map((row) => row.seq)).toEqual([1]);
    });
    const other = openLog({ claimAfterMs: 0 }).openPersister('other');
    await eventually(async () => {
      await other.pass();
      expect((await rowsNow(held)).map((row) => row.seq)).toEqual([1, 2, 3, 4, 5]);
    });
  });

  it('acknowledges more entries of one feed than Lua passes at once', async () => {
    const task = await begin();
    const { log } = eventKeys(test.prefix, task.taskId);
    await test.redis.command(async (client) => {
      const all = client.pipeline();
      for (let n = 0; n < 9_000; n += 1)
        all.xadd(log, '*', 't', task.taskId, 'e', 1, 's', 0, 'm', `[["${n}",1]]`);
      await all.exec();
    });
    const ids = (await test.redis.command((client) => client.xrange(log, '-', '+'))).map(([id]) => id);
    expect(await test.redis.run(eventFunctions['log-ack'], [log], [PERSISTERS, ...ids])).toBe(9_000);
    expect((await test.stores.eventLog.state()).backlog).toBe(0);
  });
});

describe('an entry at fault', () => {
  it.each<[string, Record<string, string>]>([
    ['that is no JSON', { t: 'task', r: 'run-1', e: '1', s: '0', m: '[["a",1]' }],
    ['without numbers', { t: 'task', r: 'run-1', e: '1', s: '0', m: '{"a":1}' }],
    ['without a task', { e: '1', s: '0', m: '[["a",1]]' }],
    ['without a number', { t: 'task', r: 'run-1', e: '1', m: '[["a",1]]' }],
    ['whose epoch is no number', { t: 'task', e: 'one', s: '0', m: '[["a",1]]' }],
    ['whose epoch no column takes', { t: 'task', e: '3000000000', s: '0', m: '[["a",1]]' }],
    ['whose number is none', { t: 'task', e: '1', s: '0', m: '[["a",1.5]]' }],
    ['with a NUL in an id', { t: 'task', e: '1', s: '0', m: '[["a\\u0000",1]]' }],
    ['with half a character in an id', { t: 'ta\u0000sk', e: '1', s: '0', m: '[["a",1]]' }],
  ])('%s is given up, and everything around it is stored', async (_title, fields) => {
    const tasks = await Promise.all(Array.from({ length: 12 }, () => begin()));
    const refused: RefusedEntry[] = [];
    await Promise.all(tasks.map((task) => test.stores.events.append(task, [step('a')])));
    const feed = feedKeys(test.prefix, 3).log;
    const entry = await test.redis.command((client) =>
      client.xadd(feed, '*', ...Object.entries(fields).flat()),
    );
    await Promise.all(tasks.map((task) => test.stores.events.append(task, [step('b')])));
    const persister = openLog({ onRefused: (one) => void refused.push(one) }).openPersister('p');
    await persister.pass();
    expect(refused).toMatchObject([{ feed, entry }]);
    for (const task of tasks) expect((await rowsNow(task)).map((row) => row.seq)).toEqual([1, 2]);
    expect((await test.stores.eventLog.state()).backlog).toBe(0);
  });

  it('names a number that another milestone has, which is given up too', async () => {
    const task = await begin();
    await test.stores.events.append(task, [step('a')]);
    await persist();
    await test.stores.events.append(task, [step('b')]);
    await test.postgres.query("update events set seq = 2 where task_id = $1 and id = 'a'", [task.taskId]);
    const refused: RefusedEntry[] = [];
    await openLog({ onRefused: (one) => void refused.push(one) })
      .openPersister('p')
      .pass();
    expect(refused).toHaveLength(1);
    expect((await test.stores.eventLog.state()).backlog).toBe(0);
  });
});

describe('a persister that died', () => {
  it('after it took a batch: another one claims and stores it', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(3));
    const dead = openLog({}, unreachable(test.postgres));
    await expect(dead.openPersister('dead').pass()).rejects.toThrow('postgres is away');
    const heir = openLog({ claimAfterMs: 30 }).openPersister('heir');
    await eventually(async () => {
      await heir.pass();
      expect((await rowsNow(task)).map((row) => row.seq)).toEqual([1, 2, 3]);
    });
    expect((await test.stores.eventLog.state()).backlog).toBe(0);
  });

  it('after it committed and before it acknowledged: the repetition changes nothing', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(3));
    const dead = createEventLog(test.postgres, withoutAcknowledging(test.redis), OPTIONS);
    await expect(dead.openPersister('dead').pass()).rejects.toThrow('killed');
    const stored = await rowsWithVersion(task);
    expect(stored.map((row) => row.seq)).toEqual([1, 2, 3]);
    expect((await test.stores.eventLog.state()).backlog).toBe(1);
    const heir = openLog({ claimAfterMs: 30 }).openPersister('heir');
    await eventually(async () => {
      await heir.pass();
      expect((await test.stores.eventLog.state()).backlog).toBe(0);
    });
    expect(await rowsWithVersion(task)).toEqual(stored);
  });

  it('leaves the group, but for what it has not stored', async () => {
    const task = await begin();
    const consumers = async () => {
      const { log } = eventKeys(test.prefix, task.taskId);
      const found = await test.redis.command((client) => client.xinfo('CONSUMERS', log, PERSISTERS));
      return (found as string[][]).map((one) => one[1]).sort();
    };
    const [idle, busy] = [
      openLog().openPersister('idle'),
      openLog({}, unreachable(test.postgres)).openPersister('busy'),
    ];
    await idle.pass();
    await test.stores.events.append(task, [step('a')]);
    await expect(busy.pass()).rejects.toThrow('postgres is away');
    for (const persister of [idle, busy]) await persister.leave();
    expect(await consumers()).toEqual(['busy']);
  });
});

describe('while a store is away', () => {
  it('takes no more than it can keep in memory, and stores all of it in the end', async () => {
    const task = await begin();
    for (let n = 0; n < 60; n += 1) await test.stores.events.append(task, [step(`s${n}`)]);
    let isAway = true;
    const log = openLog(
      { batchSize: 10 },
      { ...test.postgres, query: (...args) => (isAway ? away() : test.postgres.query(...args)) },
    );
    const persister = log.openPersister('p');
    for (let n = 0; n < 40; n += 1) await expect(persister.pass()).rejects.toThrow('postgres is away');
    expect(await pendingOf('p')).toBe(10);
    expect((await log.state()).backlog).toBe(60);
    isAway = false;
    while (await persister.pass());
    await persister.pass();
    expect((await rowsNow(task)).map((row) => row.seq)).toEqual(counted(60));
    expect((await log.state()).backlog).toBe(0);
  });

  it('stores what it has when Redis is gone, and takes no harm from acknowledging late', async () => {
    const task = await begin();
    await test.stores.events.append(task, steps(2));
    let [isPostgresAway, isRedisAway] = [true, false];
    const command: Redis['command'] = (work) =>
      isRedisAway ? Promise.reject(new Error('redis is away')) : test.redis.command(work);
    const persister = createEventLog(
      { ...test.postgres, query: (...args) => (isPostgresAway ? away() : test.postgres.query(...args)) },
      { ...test.redis, command },
      OPTIONS,
    ).openPersister('p');
    await expect(persister.pass()).rejects.toThrow('postgres is away');
    [isPostgresAway, isRedisAway] = [false, true];
    await expect(persister.pass()).rejects.toThrow('redis is away');
    expect((await rowsNow(task)).map((row) => row.seq)).toEqual([1, 2]);
    isRedisAway = false;
    await emptyFeeds();
    await persister.pass();
    expect((await test.stores.eventLog.state()).backlog).toBe(0);
  });
});

describe('state', () => {
  it('tells how much is not stored and how old the oldest of it is', async () => {
    expect(await test.stores.eventLog.state()).toEqual({ backlog: 0, lagSeconds: 0 });
    const nowMs = await test.redis.nowMs();
    for (const [shard, ageMs] of [5_000, 90_000].entries())
      await test.redis.command((client) =>
        client.xadd(
          feedKeys(test.prefix, shard).log,
          `${nowMs - ageMs}-0`,
          't',
          'nobody',
          'e',
          '1',
          'm',
          '[]',
        ),
      );
    const delivered = openLog({}, unreachable(test.postgres)).openPersister('p');
    const task = await begin();
    await test.stores.events.append(task, [step('a')]);
    await expect(delivered.pass()).rejects.toThrow('postgres is away');
    const state = await test.stores.eventLog.state();
    expect(state.backlog).toBe(3);
    expect(state.lagSeconds).toBeGreaterThanOrEqual(90);
    expect(state.lagSeconds).toBeLessThan(5_000);
  });
});

const OPTIONS: EventLogOptions = { batchSize: 100, claimAfterMs: 3_600_000, onRefused: () => undefined };

function openLog(options: Partial<EventLogOptions> = {}, postgres: Postgres = test.postgres) {
  return createEventLog(postgres, test.redis, { ...OPTIONS, ...options });
}

function counted(count: number): readonly number[] {
  return Array.from({ length: count }, (_, n) => n + 1);
}

async function emptyFeeds(): Promise<void> {
  const feeds = Array.from({ length: EVENT_SHARDS }, (_, shard) => feedKeys(test.prefix, shard).log);
  await test.redis.command((client) => client.del(feeds));
}

/** Entries that were handed to a persister and are not stored, over all feeds. */
async function pendingOf(name: string): Promise<number> {
  const counts = await Promise.all(
    Array.from({ length: EVENT_SHARDS }, async (_, shard) => {
      const { log } = feedKeys(test.prefix, shard);
      const found = await test.redis.command((client) =>
        client.xpending(log, PERSISTERS, '-', '+', 1_000, name),
      );
      return found.length;
    }),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

/** With the transaction that wrote each row last. */
async function rowsWithVersion(task: StagedTask) {
  const { rows } = await test.postgres.query<{ id: string; seq: bigint; version: string }>(
    'select id, seq, xmin::text as version from events where task_id = $1 order by seq',
    [task.taskId],
  );
  return rows.map((row) => ({ ...row, seq: Number(row.seq) }));
}

function away(): Promise<never> {
  return Promise.reject(new Error('postgres is away'));
}

function unreachable(postgres: Postgres): Postgres {
  return { ...postgres, query: away };
}

/** Tells how many numbers each write brought. */
function watching(postgres: Postgres, onWrite: (count: number) => void): Postgres {
  const query: Postgres['query'] = (text, values) => {
    const tasks = values?.[1];
    if (Array.isArray(tasks)) onWrite(tasks.length);
    return postgres.query(text, values);
  };
  return { ...postgres, query };
}

/** A process that is killed when it is about to acknowledge. */
function withoutAcknowledging(redis: Redis): Redis {
  const run: Redis['run'] = (script, keys, args) =>
    script === eventFunctions['log-ack']
      ? Promise.reject(new Error('killed'))
      : redis.run(script, keys, args);
  return { ...redis, run };
}
