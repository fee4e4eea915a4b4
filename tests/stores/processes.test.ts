import { expect, it } from 'vitest';
import { ownerLife, startPresence } from '../../src/presence.ts';
import { createProcesses } from '../../src/stores/processes.ts';
import { eventually } from '../support/eventually.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const NOBODY = async () => 0;

function age(test: TestStores, seconds: number) {
  return test.postgres.query('update processes set renewed_at = now() - make_interval(secs => $1)', [
    seconds,
  ]);
}

it('counts living processes and remembers how many there were', async () => {
  await using test = await openTestStores();
  const processes = createProcesses(test.postgres);
  expect(processes.lastCount()).toBeUndefined();
  for (const id of ['a', 'b', 'c']) await processes.renew(id, 'worker', []);
  expect(await processes.liveCount()).toBe(3);
  await age(test, 16);
  await processes.renew('a', 'worker', []);
  expect(await processes.liveCount()).toBe(1);
  await processes.remove('a');
  // Whoever asks is alive, even when its row is late.
  expect(await processes.liveCount()).toBe(1);
  expect(processes.lastCount()).toBe(1);
});

it('tells the life of a call by the row of its process, and by nothing once that is old or does not list it', async () => {
  await using test = await openTestStores();
  const lifeOf = ownerLife(test.stores.processes, NOBODY);
  await test.stores.processes.renew('one', 'gateway', ['chat:a:0:1']);
  expect(await lifeOf('process one', 'chat:a:0:1')).toBeGreaterThan(5_000);
  expect(await lifeOf('process one', 'chat:b:0:1')).toBe(0);
  expect(await lifeOf('process two', 'chat:a:0:1')).toBe(0);
  await age(test, 11);
  expect(await lifeOf('process one', 'chat:a:0:1')).toBe(0);
  await test.stores.processes.renew('one', 'gateway', []);
  expect(await lifeOf('process one', 'chat:a:0:1')).toBe(0);
});

it('asks Temporal about owners that are activities', async () => {
  await using test = await openTestStores();
  const asked: string[] = [];
  const lifeOf = ownerLife(test.stores.processes, async (owner) => {
    asked.push(owner);
    return 70;
  });
  expect(await lifeOf('activity task/run/answer:1/2', 'task:run:answer:1')).toBe(70);
  expect(asked).toEqual(['activity task/run/answer:1/2']);
});

it('shows a process and its calls while it runs, through an outage of Postgres, and removes it at its end', async () => {
  await using test = await openTestStores();
  let isDown = false;
  const sql = {
    query: (...query: Parameters<typeof test.postgres.query>) =>
      isDown ? Promise.reject(new Error('postgres is away')) : test.postgres.query(...query),
  };
  const processes = createProcesses(sql as typeof test.postgres);
  const log = { ...test.log, warn: () => undefined };
  const presence = startPresence({ kind: 'gateway', processes, log }, 20);
  const lifeOf = ownerLife(processes, NOBODY);
  presence.calls.add('chat:a:0:1');
  await eventually(async () => expect(await lifeOf(presence.owner, 'chat:a:0:1')).toBeGreaterThan(0));
  isDown = true;
  presence.calls.add('chat:b:0:1');
  await eventually(() => expect(processes.lastCount()).toBe(1));
  isDown = false;
  await eventually(async () => expect(await lifeOf(presence.owner, 'chat:b:0:1')).toBeGreaterThan(0));
  await presence[Symbol.asyncDispose]();
  const { rows } = await test.postgres.query('select process_id from processes');
  expect(rows).toEqual([]);
});

it('forgets processes that were killed long ago', async () => {
  await using test = await openTestStores();
  await test.stores.processes.renew('old', 'worker', []);
  await age(test, 3_601);
  await test.stores.processes.renew('young', 'worker', []);
  await test.stores.processes.forgetDead();
  const { rows } = await test.postgres.query('select process_id from processes');
  expect(rows).toEqual([{ process_id: 'young' }]);
});
