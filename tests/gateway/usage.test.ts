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
});

test.each([
  ['group=nonsense', 'group'],
  ['from=yesterday', 'from'],
  ['from=2026-13-01', 'from'],
  ['to=2026-03-01T00:00', 'to'],
  ['limit=0', 'limit'],
  ['format=xml', 'format'],
  ['usr=u1', ''],
])('?%s is refused', async (query, path) => {
  const answer = await get(`?${query}`);
  expect(answer.statusCode).toBe(400);
  expect(answer.json().faults).toMatchObject([{ path }]);
});
