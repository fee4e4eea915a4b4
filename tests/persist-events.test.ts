import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Logger } from '../src/log.ts';
import { startPersisting } from '../src/persist-events.ts';
import { createEventLog } from '../src/stores/event-log.ts';
import { EVENT_SHARDS, feedKeys } from '../src/stores/keys.ts';
import { eventsStage, step } from './stores/events-stage.ts';
import { eventually } from './support/eventually.ts';
import { openTestStores, QUIET, type TestStores } from './support/stores.ts';

let test: TestStores;
const { begin, rowsNow } = eventsStage(() => test);

beforeAll(async () => {
  test = await openTestStores({ persists: false });
});

afterAll(() => test[Symbol.asyncDispose]());

it('stores what comes, says once that a store is away, and goes on when it is back', async () => {
  let isAway = true;
  const said: string[] = [];
  const note = (message: string) => void said.push(message);
  const log: Logger = { ...QUIET, warn: note, info: note, error: note };
  const query: typeof test.postgres.query = (text, values) =>
    isAway ? Promise.reject(new Error('away')) : test.postgres.query(text, values);
  const eventLog = createEventLog({ ...test.postgres, query }, test.redis, {
    batchSize: 100,
    onRefused: () => undefined,
  });
  const task = await begin();
  await test.stores.events.append(task, [step('a')]);
  {
    await using _persisting = startPersisting({ eventLog, name: 'one', intervalMs: 1, log });
    await eventually(() => expect(said).toHaveLength(1));
    await test.stores.events.append(task, [step('b')]);
    isAway = false;
    await eventually(async () => expect((await rowsNow(task)).map((row) => row.seq)).toEqual([1, 2]));
  }
  expect(said).toEqual(['the event log waits: a store did not answer', 'the event log goes on']);
});

it('leaves nothing behind when it stops', async () => {
  const task = await begin();
  const persisting = startPersisting({
    eventLog: test.stores.eventLog,
    name: 'two',
    intervalMs: 1,
    log: QUIET,
  });
  await test.stores.events.append(task, [step('a')]);
  await eventually(async () => expect((await rowsNow(task)).map((row) => row.seq)).toEqual([1]));
  await persisting[Symbol.asyncDispose]();
  await test.stores.events.append(task, [step('b')]);
  expect((await rowsNow(task)).map((row) => row.seq)).toEqual([1, null]);
  const groups = await Promise.all(
    Array.from({ length: EVENT_SHARDS }, (_, shard) =>
      test.redis.command((client) =>
        client.xinfo('CONSUMERS', feedKeys(test.prefix, shard).log, 'persisters'),
      ),
    ),
  );
  expect(groups.flat()).toEqual([]);
});
