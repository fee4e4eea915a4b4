// The usage report: grouped, filtered, summed, as JSON and as CSV.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

let gateway: TestGateway;

type Row = {
  user: string;
  task: string | null;
  model: string;
  kind: string;
  nano: number;
  billable: boolean;
  key: string;
  at: string;
};

const ROWS: readonly Row[] = [
  {
    user: 'u1',
    task: 't1',
    model: 'p/a',
    kind: 'charge',
    nano: 3_000_000_001,
    billable: true,
    key: 'c1',
    at: '2026-03-01T10:00Z',
  },
  {
    user: 'u1',
    task: 't1',
    model: 'p/a',
    kind: 'estimate',
    nano: 500,
    billable: false,
    key: 'c1',
    at: '2026-03-01T10:01Z',
  },
  {
    user: 'u1',
    task: 't2',
    model: 'q/b,"x"',
    kind: 'charge',
    nano: 10,
    billable: true,
    key: 'c2',
    at: '2026-03-02T00:00Z',
  },
  {
    user: 'u2',
    task: null,
    model: 'p/a',
    kind: 'void',
    nano: 0,
    billable: false,
    key: 'c3',
    at: '2026-03-02T01:00Z',
  },
  {
    user: 'u2',
    task: null,
    model: 'p/a',
    kind: 'charge',
    nano: 7,
    billable: true,
    key: 'c4',
    at: '2026-03-03T00:00Z',
  },
];

beforeAll(async () => {
  gateway = await openTestGateway();
  const { postgres } = gateway.test;
  await postgres.query(
    `create table ledger_2026_03 partition of ledger for values from ('2026-03-01Z') to ('2026-04-01Z')`,
  );
  for (const [index, row] of ROWS.entries())
    await postgres.query(
      `insert into ledger (held_at, attempt_key, kind, call_key, tenant_id, user_id, task_id, provider, model, input_tokens, cache_read_tokens,
         cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, billable, usage_source, price_hash)
       values ($1, $2, $3, $4, 'default', $5, $6, $7, $8, 10, 3, 2, 1, 5, 4, $9, $10, 'measured', '')`,
      [
        row.at,
        `a${index}`,
        row.kind,
        row.key,
        row.user,
        row.task,
        row.model.split('/')[0],
        row.model,
        row.nano,
        row.billable,
      ],
    );
});
afterAll(() => gateway[Symbol.asyncDispose]());

const get = (query: string, headers: Record<string, string> = {}) =>
  gateway.app.inject({ method: 'GET', url: `/api/v1/usage${query}`, headers });

test('without a group there is the total alone', async () => {
  expect((await get('')).json()).toEqual({
    groups: [],
    total: {
      calls: 3,
      attempts: 4,
      usage: {
        inputTokens: 80,
        cachedInputTokens: 15,
        cacheWriteTokens: 15,
        outputTokens: 25,
        reasoningTokens: 20,
      },
      costUsd: '3.000000518',
      billableUsd: '3.000000018',
    },
  });
});

test('groups carry their keys, the dearest first, and null where a call had none', async () => {
  const { groups, total } = (await get('?group=user,task')).json();
  expect(
    groups.map((group: Record<string, unknown>) => [
      group['user'],
      group['task'],
      group['calls'],
      group['attempts'],
      group['costUsd'],
    ]),
  ).toEqual([
    ['u1', 't1', 1, 2, '3.000000501'],
    ['u1', 't2', 1, 1, '0.00000001'],
    ['u2', null, 1, 1, '0.000000007'],
  ]);
  expect(total.costUsd).toBe('3.000000518');
  expect((await get('?group=user&group=task')).json().groups).toEqual(groups);
});

test.each([
  ['user=u2', 2, '0.000000007'],
  ['task=t1', 1, '3.000000501'],
  ['model=p/a', 3, '3.000000508'],
  ['provider=q', 1, '0.00000001'],
  ['tenant=nobody', 0, '0.00'],
  ['day=2026-03-02', 2, '0.00000001'],
  ['day=2026-03-01&user=u2', 0, '0.00'],
  ['from=2026-03-02', 3, '0.000000017'],
  ['to=2026-03-02', 1, '3.000000501'],
  ['from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z', 2, '0.00000001'],
  ['from=2026-03-02T01:00:00%2B01:00&to=2026-03-03', 2, '0.00000001'],
])('?%s keeps what it names', async (filter, days, costUsd) => {
  const report = (await get(`?group=day,model,user&${filter}`)).json();
  expect(report.groups).toHaveLength(days);
  expect(report.total.costUsd).toBe(costUsd);
});

test('more groups than the limit are said to be there', async () => {
  const cut = (await get('?group=day,model&limit=1')).json();
  expect(cut.groups).toHaveLength(1);
  expect(cut.truncated).toBe(true);
  expect(cut.total.calls).toBe(3);
  expect((await get('?group=day,model&limit=4')).json()).not.toHaveProperty('truncated');
});

test('CSV comes by Accept or by ?format=csv, with a head and quoted cells', async () => {
  const answer = await get('?group=model', { accept: 'text/csv' });
  expect(answer.headers['content-type']).toBe('text/csv; charset=utf-8');
  expect(answer.body).toBe(
    'model,calls,attempts,inputTokens,cachedInputTokens,cacheWriteTokens,outputTokens,reasoningTokens,costUsd,billableUsd\r\n' +
      'p/a,2,3,64,12,12,20,16,3.000000508,3.000000008\r\n' +
      '"q/b,""x""",1,1,16,3,3,5,4,0.00000001,0.00000001\r\n',
  );
  expect((await get('?group=model&format=csv')).body).toBe(answer.body);
  expect((await get('?group=model&format=json', { accept: 'text/csv' })).json().groups).toHaveLength(2);
  expect((await get('?format=csv')).body.split('\r\n')).toHaveLength(3);
  expect(answer.headers).not.toHaveProperty('weir-truncated');
});

/** Adds copies of a row to the ledger, with other values in some columns. */
async function copyRow(attemptKey: string, change: Record<string, unknown>): Promise<void> {
  const { rows } = await gateway.test.postgres.query<Record<string, unknown>>(
    'select * from ledger where attempt_key = $1',
    [attemptKey],
  );
  const { tokens: _, ...row } = { ...rows[0], ...change };
  const names = Object.keys(row);
  await gateway.test.postgres.query(
    `insert into ledger (${names.join(', ')}) values (${names.map((_name, index) => `$${index + 1}`).join(', ')})`,
    Object.values(row),
  );
}

test('CSV that leaves groups out says so in a header, and its cells are no formulas', async () => {
  const cut = await get('?group=model&format=csv&limit=1');
  expect(cut.headers['weir-truncated']).toBe('true');
  expect(cut.body.split('\r\n')).toHaveLength(3);
  const evil = { attempt_key: 'evil', call_key: 'evil', tenant_id: 'evil', cost_nano_usd: -5n };
  await copyRow('a0', { ...evil, user_id: "=cmd|'/c calc'!A1" });
  const { body } = await get('?group=user&format=csv&tenant=evil');
  // The text is defused, the negative amount is a number.
  expect(body.split('\r\n')[1]).toBe("'=cmd|'/c calc'!A1,1,1,16,3,3,5,4,-0.000000005,-0.000000005");
  await gateway.test.postgres.query("delete from ledger where tenant_id = 'evil'");
});

test('tokens that a JSON number does not count exactly come as text, money always does', async () => {
  const huge = { tenant_id: 'huge', cost_nano_usd: 9_223_372_036_854_775_807n };
  for (const n of [0, 1])
    await copyRow('a0', {
      ...huge,
      attempt_key: `huge${n}`,
      call_key: `huge${n}`,
      output_tokens: 2n ** 53n - BigInt(n),
    });
  const { total } = (await get('?tenant=huge')).json();
  expect(total.usage).toMatchObject({ inputTokens: 32, outputTokens: '18014398509481983' });
  expect(total.costUsd).toBe('18446744073.709551614');
  expect((await get('?tenant=huge&format=csv')).body).toContain(
    ',18014398509481983,8,18446744073.709551614,',
  );
  await gateway.test.postgres.query("delete from ledger where tenant_id = 'huge'");
});

test.each([
  ['group=nonsense', 'group'],
  ['from=yesterday', 'from'],
  ['from=2026-13-01', 'from'],
  ['to=2026-03-01T00:00', 'to'],
  ['from=2026-02-30', 'from'],
  ['day=2026-02-30', 'day'],
  ['day=2026-03-01T00:00:00Z', 'day'],
  ['limit=0', 'limit'],
  ['format=xml', 'format'],
  ['usr=u1', ''],
])('?%s is refused', async (query, path) => {
  const answer = await get(`?${query}`);
  expect(answer.statusCode).toBe(400);
  expect(answer.json().faults).toMatchObject([{ path }]);
});

test('months whose rows were dropped are in the report as they were', async () => {
  const query = '?group=day,user,model';
  const before = (await get(query)).json();
  await gateway.test.stores.retention.dropOldPartitions(new Date('2026-05-01T00:00:00Z'));
  const { rows } = await gateway.test.postgres.query('select from ledger');
  expect(rows).toHaveLength(0);
  expect((await get(query)).json()).toEqual(before);
});
