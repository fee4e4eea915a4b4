// What is given up after its time: rows of the ledger, without a change of any sum; texts; events. And what is never given up.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { readScopeSums } from '../../src/stores/scope-sums.ts';
import { USAGE_GROUPS, type UsageFilter } from '../../src/stores/usage.ts';
import type { Scope } from '../../src/task/budget.ts';
import { ALWAYS } from '../../src/task/window.ts';
import { beginTask, callDependencies, visitOnce } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { hardLimit, openTestStores, type TestStores } from '../support/stores.ts';
import { addAttempt, addRows, makeMonth, type OldRow, oldPartitions } from './old-months.ts';

let test: TestStores;

beforeAll(async () => {
  test = await openTestStores();
});

beforeEach(async () => {
  for (const name of await oldPartitions(test)) await test.postgres.query(`drop table ${name}`);
  await test.postgres.query('truncate ledger, attempts, ledger_rollups, call_results, tasks, events');
});

afterAll(() => test[Symbol.asyncDispose]());

const ANSWERING = { kind: 'reply', pieces: ['the ', 'answer'] } as const;
const LIMIT = new Date('2026-01-01T00:00:00Z');
const THIS_DAY = { startMs: Date.now() - 86_400_000, endMs: Date.now() + 86_400_000 };
const allPartitions = (month: string) => ['attempts', 'ledger'].map((parent) => `${parent}_${month}`);

/** mulberry32: the same rows in every run. */
function createRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Calls of one to three attempts, over three months and their ends, of all kinds, with adjustments. */
function someRows(seed: number, calls: number): readonly OldRow[] {
  const random = createRandom(seed);
  const from = Date.UTC(2025, 0, 1);
  return Array.from({ length: calls }, (_, call) => {
    const user = random(3);
    const start = from + random(90 * 24) * 3_600_000;
    const common = {
      callKey: `call${call}`,
      tenantId: random(4) === 0 ? 'other' : 'acme',
      userId: `user${user}`,
      sessionId: random(2) === 0 ? null : `session${user}`,
      taskId: random(3) === 0 ? null : `task${random(5)}`,
    };
    return Array.from({ length: 1 + random(3) }, (_unused, n): readonly OldRow[] => {
      // Some attempts of a call are days later, in the next month.
      const at = new Date(Math.min(start + n * random(5) * 86_400_000, Date.UTC(2025, 2, 31))).toISOString();
      const kind = (['charge', 'charge', 'estimate', 'void'] as const)[random(4)] ?? 'charge';
      const isVoid = kind === 'void';
      const row: OldRow = {
        ...common,
        at,
        attemptKey: `call${call}#0.1.${n}.0`,
        kind,
        model: ['p/a', 'p/b', 'q/c'][random(3)] ?? '',
        tokens: isVoid
          ? [0, 0, 0, 0, 0, 0]
          : [random(900), random(90), random(9), random(5), random(500), random(50)],
        nano: isVoid ? 0n : BigInt(random(2 ** 31)) * 1_000_003n,
        billable: !isVoid && random(2) === 0,
      };
      const adjust = {
        ...row,
        kind: 'adjust',
        adjustKey: 'late',
        billable: false,
        nano: -BigInt(random(1_000)),
      } as const;
      return random(3) === 0 ? [row, { ...adjust, tokens: [-3, 1, 0, 0, -2, -1] }] : [row];
    }).flat();
  }).flat();
}

/** Every report that could tell a difference, and every counter over all time. */
async function everySum() {
  const { accounts } = test.stores;
  const filters: readonly UsageFilter[] = [
    {},
    { tenant: 'acme', user: 'user1' },
    { session: 'session2' },
    { task: 'task3' },
    { model: 'p/b' },
    { provider: 'q' },
    { day: '2025-01-31' },
    { from: new Date('2025-01-20T00:00:00Z'), to: new Date('2025-02-11T00:00:00Z') },
  ];
  const reports = [];
  for (const group of USAGE_GROUPS) reports.push(await accounts.usage([group], {}, 10_000));
  for (const filter of filters) reports.push(await accounts.usage(USAGE_GROUPS, filter, 10_000));
  const scopes: readonly Scope[] = [
    { kind: 'tenant', id: 'acme' },
    { kind: 'user', id: 'user0' },
    { kind: 'session', id: 'session1' },
    { kind: 'task', id: 'task2' },
  ];
  const counters = [];
  for (const scope of scopes) counters.push(await accounts.settled('acme', scope));
  // What a counter in Redis is rebuilt from.
  const rebuilt = [];
  for (const scope of scopes)
    rebuilt.push((await readScopeSums(test.postgres, 'acme', scope, [THIS_DAY, ALWAYS])).settled[1]);
  expect(rebuilt).toEqual(counters);
  return { reports, counters };
}

async function countRows(table: string): Promise<number> {
  const { rows } = await test.postgres.query<{ count: number }>(
    `select count(*)::int as count from ${table}`,
  );
  return rows[0]?.count ?? 0;
}

describe('dropOldPartitions', () => {
  it('changes no sum of any group, filter or scope, month by month', async () => {
    for (const month of ['2025-01', '2025-02', '2025-03']) await makeMonth(test, month);
    const rows = someRows(7, 120);
    await addRows(test, rows);
    const before = await everySum();
    expect(before.reports[0]?.total.attempts).toBeGreaterThan(100);
    expect(before.counters.map(({ nanoUsd }) => nanoUsd > 0n)).toEqual([true, true, true, true]);

    const first = await test.stores.retention.dropOldPartitions(new Date('2025-02-01T00:00:00Z'));
    expect(first).toEqual({ dropped: ['2025-01-01'], kept: [] });
    expect(await everySum()).toEqual(before);

    const rest = await test.stores.retention.dropOldPartitions(LIMIT);
    expect(rest).toEqual({ dropped: ['2025-02-01', '2025-03-01'], kept: [] });
    expect(await oldPartitions(test)).toEqual([]);
    expect(await countRows('ledger')).toBe(0);
    expect(await everySum()).toEqual(before);
  });

  it('drops nothing twice, and adds to what is rolled up already', async () => {
    await makeMonth(test, '2025-01');
    const row = { at: '2025-01-05T00:00:00Z', attemptKey: 'a#1', nano: 7n, taskId: 't' };
    await addRows(test, [row]);
    await test.stores.retention.dropOldPartitions(LIMIT);
    expect(await test.stores.retention.dropOldPartitions(LIMIT)).toEqual({ dropped: [], kept: [] });
    // As after a restore of that month from a backup of its own.
    await makeMonth(test, '2025-01');
    await addRows(test, [{ ...row, attemptKey: 'b#1', nano: 5n }]);
    await test.stores.retention.dropOldPartitions(LIMIT);
    expect(await countRows('ledger_rollups')).toBe(1);
    expect((await test.stores.accounts.usage([], {}, 1)).total).toMatchObject({
      calls: 2,
      attempts: 2,
      nanoUsd: 12n,
      billableNanoUsd: 12n,
    });
  });

  it('leaves tasks what they cost, and the limits of an id that is used again on top of it', async () => {
    await makeMonth(test, '2025-01');
    await beginTask(test, 'again');
    const row = { at: '2025-01-05T00:00:00Z', taskId: 'again', tenantId: 'tenant' };
    await addRows(test, [
      { ...row, attemptKey: 'again#1', nano: 7n },
      { ...row, attemptKey: 'again#2', nano: 4n },
    ]);
    const before = await test.stores.tasks.get('again');
    expect(before).toMatchObject({ nanoUsd: 11n, usage: { inputTokens: 32, outputTokens: 10 } });
    await test.stores.retention.dropOldPartitions(LIMIT);
    expect(await test.stores.tasks.get('again')).toEqual(before);
    await beginTask(test, 'again', [hardLimit('usd', 100n)], 'second-run');
    const limits = await test.stores.limits.get('tenant', { kind: 'task', id: 'again' });
    expect(limits?.map(({ amount }) => amount)).toEqual([111n]);
  });

  it('rolls a month up once when several processes are at it', async () => {
    for (const month of ['2025-01', '2025-02', '2025-03']) await makeMonth(test, month);
    await addRows(test, someRows(11, 60));
    const before = await everySum();
    const outcomes = await Promise.all(
      [1, 2, 3, 4].map(() => test.stores.retention.dropOldPartitions(LIMIT)),
    );
    await test.stores.retention.dropOldPartitions(LIMIT);
    const dropped = outcomes.flatMap((outcome) => outcome.dropped);
    expect(new Set(dropped).size).toBe(dropped.length);
    expect(await oldPartitions(test)).toEqual([]);
    expect(await everySum()).toEqual(before);
  });

  it('keeps a month that has an attempt under way, and goes on with the others', async () => {
    for (const month of ['2025-01', '2025-02']) await makeMonth(test, month);
    const open = { at: '2025-01-05T00:00:00Z', attemptKey: 'open#1' };
    await addAttempt(test, open, 'started');
    await addAttempt(test, { at: '2025-02-05T00:00:00Z', attemptKey: 'done#1' }, 'settled');
    await addRows(test, [{ at: '2025-01-06T00:00:00Z', attemptKey: 'x#1', nano: 3n }]);
    expect(await test.stores.retention.dropOldPartitions(LIMIT)).toEqual({
      dropped: ['2025-02-01'],
      kept: ['2025-01-01'],
    });
    expect(await oldPartitions(test)).toEqual(allPartitions('2025_01'));
    expect(await countRows('ledger_rollups')).toBe(0);
    await test.postgres.query("update attempts set state = 'voided' where attempt_key = 'open#1'");
    expect((await test.stores.retention.dropOldPartitions(LIMIT)).dropped).toEqual(['2025-01-01']);
  });

  it('keeps a month that ended within the last days of a limit window, whatever it is asked', async () => {
    const inFuture = new Date(Date.now() + 400 * 86_400_000);
    const { kept, dropped } = await test.stores.retention.dropOldPartitions(inFuture);
    expect(kept).toEqual([]);
    const now = new Date();
    const lastMonth = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - 1, 1)).toISOString();
    expect(dropped.every((month) => month < lastMonth)).toBe(true);
    const { rows } = await test.postgres.query<{ name: string | null }>(
      'select to_regclass($1)::text as name',
      [`ledger_${lastMonth.slice(0, 7).replace('-', '_')}`],
    );
    expect(rows[0]?.name).not.toBeNull();
  });

  it('gives way to a transaction that uses the ledger, and takes everything back', async () => {
    await makeMonth(test, '2025-01');
    await addRows(test, [{ at: '2025-01-05T00:00:00Z', attemptKey: 'a#1', nano: 7n }]);
    await test.postgres.transaction(async (sql) => {
      await sql.query('select count(*) from ledger');
      expect(await test.stores.retention.dropOldPartitions(LIMIT)).toEqual({
        dropped: [],
        kept: ['2025-01-01'],
      });
    });
    expect(await countRows('ledger_rollups')).toBe(0);
    expect(await countRows('ledger')).toBe(1);
    expect((await test.stores.retention.dropOldPartitions(LIMIT)).dropped).toEqual(['2025-01-01']);
    expect((await test.stores.accounts.usage([], {}, 1)).total.nanoUsd).toBe(7n);
  });

  it('empties answers of direct calls, whose user nobody could name any more, and keeps those of tasks', async () => {
    await makeMonth(test, '2025-01');
    await addRows(test, [{ at: '2025-01-05T00:00:00Z', attemptKey: 'chat:1:0:1#1' }]);
    await test.postgres.query(
      `insert into call_results (call_key, tenant_id, task_id, attempt_key, status, model, text, finish_reason, usage, cost_nano_usd)
       values ('chat:1:0:1', 'acme', null, 'a', 'completed', 'p/a', 'direct', 'stop', '{}', 0),
         ('t:r:s:1', 'acme', 't', 'a', 'completed', 'p/a', 'of a task', 'stop', '{}', 0)`,
    );
    await test.stores.retention.dropOldPartitions(LIMIT);
    const { rows } = await test.postgres.query<{ text: string }>(
      'select text from call_results order by call_key',
    );
    expect(rows.map(({ text }) => text)).toEqual(['', 'of a task']);
  });

  it('keeps the whole ledger open to traffic while it sums up an old month', async () => {
    await makeMonth(test, '2025-01');
    await addRows(test, [{ at: '2025-01-05T00:00:00Z', attemptKey: 'a#1', nano: 7n }]);
    await beginTask(test, 'busy');
    const calls = callDependencies(test, createFakeModels([ANSWERING]));
    let dropping: Promise<unknown> = Promise.resolve();
    await test.postgres.transaction(async (sql) => {
      // Holds the drop up in the midst of its transaction.
      await sql.query('lock table ledger_rollups in share mode');
      dropping = test.stores.retention.dropOldPartitions(LIMIT);
      const locks = await eventually(async () => {
        const { rows } = await test.postgres.query<{ mode: string; relation: string }>(
          `select mode, relation::regclass::text as relation from pg_locks where relation is not null and pid = (
             select pid from pg_locks where relation = 'ledger_rollups'::regclass and not granted)`,
        );
        expect(rows).toContainEqual({ mode: 'ShareLock', relation: 'ledger_2025_01' });
        return rows;
      });
      const isShared = (mode: string) => mode === 'AccessShareLock' || mode === 'ShareLock';
      const ofLedger = locks.filter(({ relation }) => /^(ledger(_\d|$)|attempts)/.test(relation));
      expect(ofLedger.length).toBeGreaterThan(2);
      expect(ofLedger.filter(({ mode }) => !isShared(mode))).toEqual([]);
      expect(await visitOnce(calls, 'busy')).toMatchObject({ kind: 'completed' });
    });
    await dropping;
    expect((await test.stores.accounts.usage(['task'], { task: 'busy' }, 1)).total.calls).toBe(1);
  });
});

describe('dropOldTexts and dropOldEvents', () => {
  const longAgo = () =>
    test.postgres.query("update tasks set ended_at = now() - interval '60 days' where ended_at is not null");
  const monthAgo = new Date(Date.now() - 30 * 86_400_000);

  async function endedTask(taskId: string): Promise<void> {
    await beginTask(test, taskId);
    await visitOnce(callDependencies(test, createFakeModels([ANSWERING])), taskId);
    await test.stores.tasks.end({ taskId, runId: 'run' }, { status: 'completed', resultText: 'the answer' }, [
      { id: 'run:completed', type: 'task_completed', message: 'a text' },
      { id: 'run:stream_end', type: 'stream_end', data: { status: 'completed' } },
    ]);
  }

  it('remove prompts and answers of tasks that ended long ago, once, and nothing of the others', async () => {
    await endedTask('old');
    await longAgo();
    await endedTask('young');
    await beginTask(test, 'running');
    const spent = await test.stores.accounts.rows({ taskIds: ['old'] });
    expect(await test.stores.retention.dropOldTexts(monthAgo)).toEqual({ tasks: 1, calls: 0 });
    expect(await test.stores.retention.dropOldTexts(monthAgo)).toEqual({ tasks: 0, calls: 0 });
    expect((await test.stores.tasks.get('old'))?.resultText).toBeUndefined();
    expect((await test.stores.tasks.findMessages('old'))?.messages).toBeUndefined();
    expect((await test.stores.ledger.result('old:run:answer:1'))?.text).toBe('');
    expect(await test.stores.accounts.rows({ taskIds: ['old'] })).toEqual(spent);
    const { rows } = await test.postgres.query<{ input: Record<string, unknown> }>(
      "select input from tasks where task_id = 'old'",
    );
    expect(rows[0]?.input).toMatchObject({
      userId: 'user',
      priority: 'normal',
      erasedAt: expect.any(String),
    });
    expect((await test.stores.tasks.get('young'))?.resultText).toBe('the answer');
    expect((await test.stores.tasks.findMessages('running'))?.messages).toHaveLength(1);
  });

  it('remove answers of direct calls that are old', async () => {
    await test.postgres.query(
      `insert into call_results (call_key, tenant_id, attempt_key, status, model, text, finish_reason, usage, cost_nano_usd, created_at)
       select 'chat:' || n || ':0:1', 'acme', 'a', 'completed', 'p/a', 'direct', 'stop', '{}', 0, now() - make_interval(days => n)
       from generate_series(1, 1200) as n`,
    );
    expect(await test.stores.retention.dropOldTexts(monthAgo)).toEqual({ tasks: 0, calls: 1_170 });
    const { rows } = await test.postgres.query<{ count: number }>(
      "select count(*)::int as count from call_results where text = 'direct'",
    );
    expect(rows[0]?.count).toBe(30);
  });

  it('remove old events of ended tasks, and leave a late reader the end of the stream', async () => {
    await endedTask('old2');
    await beginTask(test, 'running2');
    await test.stores.events.publishPending({ taskId: 'old2', runId: 'run', tenantId: 'tenant' });
    await longAgo();
    await test.postgres.query("update events set at = now() - interval '60 days'");
    await endedTask('young2');
    expect(await test.stores.retention.dropOldEvents(monthAgo)).toBeGreaterThan(2);
    expect(await test.stores.retention.dropOldEvents(monthAgo)).toBe(0);
    const { rows } = await test.postgres.query<{ task_id: string; types: string[] }>(
      'select task_id, array_agg(type order by ordinal) as types from events group by 1 order by 1',
    );
    const types = Object.fromEntries(rows.map((row) => [row.task_id, row.types]));
    expect(types['old2']).toEqual(['stream_end']);
    expect(types['running2']).toEqual(['task_started']);
    expect(types['young2']?.length).toBeGreaterThan(3);
  });

  it('take tasks in batches until none is left', async () => {
    await test.postgres.query(
      `insert into tasks (task_id, tenant_id, user_id, status, phase, strategy, priority, input, ended_at)
       select 't' || n, 'acme', 'ada', 'completed', 'completed', 'simple', 'normal', '{"messages": []}', now() - interval '60 days'
       from generate_series(1, 1100) as n`,
    );
    expect(await test.stores.retention.dropOldTexts(monthAgo)).toEqual({ tasks: 1_100, calls: 0 });
  });
});

describe('dropping old notes', () => {
  it('forgets warnings of windows that are over and limits of tasks that have ended, and nothing else', async () => {
    const old = new Date(Date.now() - 100 * 86_400_000);
    await test.postgres.query('truncate budgets, budget_refusals, budget_thresholds');
    for (const id of ['ended:1', 'open'])
      await test.postgres.query(
        `insert into tasks (task_id, tenant_id, user_id, status, phase, strategy, priority, input, ended_at)
         values ($1, 'acme', 'ada', 'x', 'x', 'simple', 'normal', '{}', $2)`,
        [id, id === 'open' ? null : old],
      );
    const scopes: readonly (readonly [string, string])[] = [
      ['user', 'ended:1'],
      ['task', 'ended:1'],
      ['task', 'open'],
      ['share', 'ended:1:part'],
      ['share', 'open:part'],
    ];
    for (const [scope, id] of scopes) {
      await test.postgres.query(
        `insert into budgets (tenant_id, scope, scope_id, limits, updated_at) values ('acme', $1, $2, '[]', $3)`,
        [scope, id, old],
      );
      await test.postgres.query(
        `insert into budget_refusals (tenant_id, scope, scope_id, details) values ('acme', $1, $2, '{}')`,
        [scope, id],
      );
    }
    for (const [key, at] of [
      ['all', old],
      ['1-2', old],
      ['3-4', new Date()],
    ] as const)
      await test.postgres.query(
        `insert into budget_thresholds (tenant_id, scope, scope_id, unit, limit_window, interval_key, warn_amount, at)
         values ('acme', 'user', 'ada', 'usd', 'day', $1, 1, $2)`,
        [key, at],
      );
    await test.stores.retention.dropOldNotes(new Date(Date.now() - 30 * 86_400_000));
    const left = async (table: string, column: string) =>
      (await test.postgres.query<{ it: string }>(`select ${column} as it from ${table} order by 1`)).rows.map(
        ({ it: one }) => one,
      );
    expect(await left('budgets', "scope || ' ' || scope_id")).toEqual([
      'share open:part',
      'task open',
      'user ended:1',
    ]);
    expect(await left('budget_refusals', "scope || ' ' || scope_id")).toEqual([
      'share ended:1:part',
      'share open:part',
      'task open',
      'user ended:1',
    ]);
    expect(await left('budget_thresholds', 'interval_key')).toEqual(['3-4', 'all']);
  });
});
