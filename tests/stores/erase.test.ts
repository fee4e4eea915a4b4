// Erasing texts: a word that stands everywhere a user can put one is found nowhere afterwards, and the ledger has not changed.

import type { Redis as Client } from 'ioredis';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { createCalls } from '../../src/calls/govern.ts';
import { eventKeys } from '../../src/stores/keys.ts';
import { parseTaskInput } from '../../src/task/input.ts';
import { callDependencies, contextOf, MODEL, requestOf, visitOnce } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { addAttempt } from './old-months.ts';

const WORD = 'Xylophonkonzert';

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores();
});

beforeEach(async () => {
  await test.postgres.query(
    'truncate ledger, attempts, ledger_rollups, call_results, tasks, events, approvals',
  );
  await test.redis.command(async (client) => {
    for await (const keys of client.scanStream({ match: `${test.prefix}:*` }))
      if (keys.length > 0) await client.del(...(keys as string[]));
  });
});

afterAll(() => test[Symbol.asyncDispose]());

const tenantOf = (taskId: string) => ({ taskId, runId: 'run', tenantId: 'tenant' });

/** A task whose every text holds the word, and its call; it is still under way. */
async function runTask(taskId: string, userId = 'user'): Promise<void> {
  const parsed = parseTaskInput({
    tenantId: 'tenant',
    userId,
    messages: [
      { role: 'system', content: `system ${WORD}` },
      { role: 'user', content: [{ type: 'text', text: `query ${WORD}` }] },
    ],
    responseFormat: { type: 'json_schema', name: WORD, schema: { description: WORD } },
    labels: { [`label-${WORD}`]: WORD },
  });
  if (parsed.kind === 'invalid') throw new Error(JSON.stringify(parsed.faults));
  await test.stores.ledger.gate('tenant');
  const task = { taskId, runId: 'run', input: parsed.input, strategy: 'simple', model: MODEL, limits: [] };
  await test.stores.tasks.begin(task, [{ id: 'run:begin', type: 'task_started', message: WORD }]);
  const answer = { kind: 'reply', pieces: [`answer `, `${WORD} `, WORD] } as const;
  await visitOnce(callDependencies(test, createFakeModels([answer])), taskId);
  await test.stores.events.append(tenantOf(taskId), [
    { id: 'tool', type: 'tool_completed', stepId: 'answer', message: WORD, data: { [WORD]: [WORD] } },
  ]);
}

async function endTask(taskId: string, kind: 'completed' | 'failed' = 'completed'): Promise<void> {
  const end =
    kind === 'completed'
      ? ({ status: 'completed', resultText: `result ${WORD}` } as const)
      : ({
          status: 'failed',
          error: {
            type: 'InvalidTask',
            message: `not ${WORD}`,
            details: { type: 'InvalidTask', faults: [{ path: 'query', expected: 'x', got: WORD }] },
          },
        } as const);
  await test.stores.tasks.end({ taskId, runId: 'run' }, end, [
    { id: 'run:end', type: kind === 'completed' ? 'task_completed' : 'task_failed', data: { text: WORD } },
    { id: 'run:stream_end', type: 'stream_end', data: { status: kind } },
  ]);
  await test.stores.events.publishPending(tenantOf(taskId));
  await isStored(taskId);
}

/** Until every event of the task has its number. */
async function isStored(taskId: string): Promise<void> {
  await eventually(async () => {
    const { rowCount } = await test.postgres.query(
      'select from events where task_id = $1 and seq is null and epoch is null',
      [taskId],
    );
    if (rowCount !== 0) throw new Error('events of the task have no number yet');
  });
}

const EXCEEDED = {
  ...{ type: 'BudgetExceeded', scope: 'user', id: 'user', unit: 'usd', window: 'total' },
  ...{ limit: '1.00', settled: '0.90', held: '0.00', needed: '0.20' },
} as const;

async function approve(taskId: string): Promise<void> {
  await test.postgres.query(
    `insert into approvals (approval_id, task_id, run_id, tenant_id, user_id, reason, details, status, on_timeout, comment, decided_by, expires_at)
     values ($1, $2, 'run', 'tenant', 'user', 'start', $3, 'approved', 'reject', $4, 'boss', now())`,
    [`approval:${taskId}`, taskId, JSON.stringify({ ...EXCEEDED, query: WORD }), `because ${WORD}`],
  );
}

/** Where in Postgres the word still stands, as table.column: how often. */
async function findInPostgres(): Promise<Record<string, number>> {
  const { rows: columns } = await test.postgres.query<{ table: string; name: string }>(
    `select table_name as "table", column_name as name from information_schema.columns
     where table_schema = $1 and data_type in ('text', 'jsonb', 'json', 'character varying', 'ARRAY')`,
    [test.schema],
  );
  expect(columns.length).toBeGreaterThan(60);
  const { rows } = await test.postgres.query<{ place: string; count: number }>(
    columns
      .map(
        ({ table, name }) =>
          `select '${table}.${name}' as place, count(*)::int as count from "${table}" where "${name}"::text like $1`,
      )
      .join(' union all '),
    [`%${WORD}%`],
  );
  return Object.fromEntries(rows.filter(({ count }) => count > 0).map(({ place, count }) => [place, count]));
}

/** Keys of Redis in whose value the word still stands. */
function findInRedis(): Promise<readonly string[]> {
  return test.redis.command(async (client) => {
    const found: string[] = [];
    for await (const keys of client.scanStream({ match: `${test.prefix}:*` }))
      for (const key of keys as string[])
        if (JSON.stringify([key, await readKey(client, key)]).includes(WORD)) found.push(key);
    return found;
  });
}

async function readKey(client: Client, key: string): Promise<unknown> {
  const type = await client.type(key);
  switch (type) {
    case 'string':
      return client.get(key);
    case 'hash':
      return client.hgetall(key);
    case 'stream':
      return client.xrange(key, '-', '+');
    case 'zset':
      return client.zrange(key, '0', '-1');
    default:
      throw new Error(`${key} is of type ${type}, which nobody looks into`);
  }
}

async function ledgerAsItIs() {
  const all = (table: string) =>
    test.postgres.query(`select * from ${table} order by 1, 2, 3`).then(({ rows }) => rows);
  return {
    ledger: await all('ledger'),
    attempts: await all('attempts'),
    rollups: await all('ledger_rollups'),
    usage: await test.stores.accounts.usage(['task', 'user', 'model'], {}, 100),
  };
}

it('leaves no text of an ended task anywhere, and changes nothing in the ledger', async () => {
  await runTask('answered');
  await endTask('answered');
  await approve('answered');
  await runTask('broken');
  await endTask('broken', 'failed');
  const found = await findInPostgres();
  expect(Object.keys(found).sort()).toEqual([
    'approvals.comment',
    'approvals.details',
    'call_results.text',
    'events.body',
    'tasks.error',
    'tasks.input',
    'tasks.result_text',
  ]);
  // Rings, and the streamed text of each call, beside the live feeds of their shards.
  expect((await findInRedis()).filter((key) => !key.endsWith(':live'))).toHaveLength(4);
  const before = await ledgerAsItIs();
  expect(before.ledger).toHaveLength(2);

  const erased = await test.stores.erase.eraseTexts('tenant');
  expect(erased).toEqual({ tasks: 2, events: expect.any(Number), calls: 0, running: 0 });
  expect(erased.events).toBeGreaterThanOrEqual(6);
  expect(await findInPostgres()).toEqual({});
  expect(await findInRedis()).toEqual([]);
  expect(await ledgerAsItIs()).toEqual(before);
  // The audit of a decision keeps whose limit it was about.
  expect(await test.stores.approvals.get('approval:answered')).toMatchObject({
    exceeded: EXCEEDED,
    comment: undefined,
    decidedBy: 'boss',
  });
  expect(await test.stores.erase.eraseTexts('tenant')).toEqual({ tasks: 0, events: 0, calls: 0, running: 0 });
});

it('leaves an erased task what it was: its state, its cost, its events without their texts', async () => {
  await runTask('kept');
  await endTask('kept', 'failed');
  const before = await test.stores.tasks.get('kept');
  const count = (await test.stores.events.stored('kept', 0, 100)).length;
  await test.stores.erase.eraseTexts('tenant', { userId: 'user' });
  const { error, ...after } = (await test.stores.tasks.get('kept')) ?? {};
  const { error: was, ...others } = before ?? {};
  expect(was?.message).toContain(WORD);
  expect(after).toEqual(others);
  expect(after).toMatchObject({ status: 'failed', resultText: undefined });
  expect(error).toEqual({ type: 'InvalidTask', message: 'its texts were removed' });
  const events = await test.stores.events.stored('kept', 0, 100);
  expect(events).toHaveLength(count);
  expect(events.at(-1)).toMatchObject({ type: 'stream_end', data: { status: 'failed' } });
  const completed = events.find(({ type }) => type === 'call_completed');
  expect(completed?.data).toMatchObject({
    model: MODEL,
    costUsd: expect.any(String),
    usage: expect.any(Object),
  });
  expect(events.find(({ type }) => type === 'tool_completed')).not.toHaveProperty('data');
  // A reader keeps its place: the counter of the stream is still there.
  expect((await test.stores.events.head('kept'))?.ended).toBe(true);
});

it('keeps to one user, and to one tenant', async () => {
  for (const [taskId, userId] of [
    ['of-user', 'user'],
    ['of-other', 'other'],
  ] as const) {
    await runTask(taskId, userId);
    await endTask(taskId);
  }
  expect(await test.stores.erase.eraseTexts('nobody')).toMatchObject({ tasks: 0, running: 0 });
  expect(await test.stores.erase.eraseTexts('tenant', { userId: 'user' })).toMatchObject({
    tasks: 1,
    running: 0,
  });
  expect((await test.stores.tasks.get('of-user'))?.resultText).toBeUndefined();
  expect((await test.stores.tasks.get('of-other'))?.resultText).toBe(`result ${WORD}`);
  const { live } = eventKeys(test.prefix, 'of-other');
  expect((await findInRedis()).every((key) => key.includes('of-other') || key === live)).toBe(true);
});

it('leaves a task under way its texts and says so, until it has ended', async () => {
  await runTask('open');
  expect(await test.stores.erase.eraseTexts('tenant')).toEqual({ tasks: 0, events: 0, calls: 0, running: 1 });
  expect((await test.stores.tasks.findMessages('open'))?.messages).toHaveLength(2);
  await endTask('open');
  expect(await test.stores.erase.eraseTexts('tenant')).toMatchObject({ tasks: 1, running: 0 });
});

it('waits for a call that was let go on, whose answer is still to come', async () => {
  await runTask('detached');
  const heldAt = new Date();
  await addAttempt(
    test,
    { at: heldAt.toISOString(), attemptKey: 'detached:run:answer:2#0.1.1.0' },
    'started',
  );
  await test.postgres.query(
    "update attempts set task_id = 'detached', tenant_id = 'tenant' where state = 'started'",
  );
  await endTask('detached');
  expect(await test.stores.erase.eraseTexts('tenant')).toMatchObject({ tasks: 0, running: 1 });
  await test.postgres.query("update attempts set state = 'voided' where state = 'started'");
  expect(await test.stores.erase.eraseTexts('tenant')).toMatchObject({ tasks: 1, running: 0 });
});

it('waits for events that are still on their way to their readers', async () => {
  await runTask('late');
  await test.stores.tasks.end({ taskId: 'late', runId: 'run' }, { status: 'completed', resultText: WORD }, [
    { id: 'run:stream_end', type: 'stream_end', message: WORD },
  ]);
  expect(await test.stores.erase.eraseTexts('tenant')).toMatchObject({ tasks: 0, running: 1 });
  await test.stores.events.sweep(0);
  await isStored('late');
  expect(await test.stores.erase.eraseTexts('tenant')).toMatchObject({ tasks: 1, running: 0 });
  expect(await findInPostgres()).toEqual({});
});

it('lets no text come back with a delta of a worker that was frozen', async () => {
  await runTask('frozen');
  await endTask('frozen');
  await test.stores.erase.eraseTexts('tenant');
  const delta = {
    callKey: 'frozen:run:answer:1',
    stepId: 'answer',
    attemptKey: 'frozen:run:answer:1#0.9.1.0',
    k: 0,
    text: WORD,
  };
  const isShown = await test.stores.events.publishDelta(tenantOf('frozen'), delta);
  expect(isShown).toBe(false);
  expect(await findInRedis()).toEqual([]);
});

it('erases answers of calls without a task, by whom the ledger names', async () => {
  const models = createFakeModels([0, 1].map(() => ({ kind: 'reply', pieces: [WORD] }) as const));
  const calls = callDependencies(test, models);
  await test.stores.ledger.gate('tenant');
  for (const [index, userId] of ['ada', 'bob'].entries()) {
    const request = { ...requestOf('none'), callKey: `chat:${index}:0:1`, task: undefined };
    await createCalls(calls).visit({ ...request, payer: { tenantId: 'tenant', userId } }, contextOf());
  }
  expect(await test.stores.erase.eraseTexts('tenant', { userId: 'ada' })).toMatchObject({ calls: 1 });
  expect(await findInPostgres()).toEqual({ 'call_results.text': 1 });
  expect(await test.stores.erase.eraseTexts('tenant')).toMatchObject({ calls: 1 });
  expect(await findInPostgres()).toEqual({});
});

it('goes through more tasks than one batch holds', async () => {
  await test.postgres.query(
    `insert into tasks (task_id, tenant_id, user_id, status, phase, strategy, priority, input, ended_at)
     select 't' || n, 'tenant', 'user', 'completed', 'completed', 'simple', 'normal', jsonb_build_object('messages', $1::text), now()
     from generate_series(1, 450) as n`,
    [WORD],
  );
  expect(await test.stores.erase.eraseTexts('tenant')).toMatchObject({ tasks: 450, running: 0 });
  expect(await findInPostgres()).toEqual({});
});
