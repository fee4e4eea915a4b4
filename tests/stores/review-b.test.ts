import { expect, it } from 'vitest';
import { createDriftCheck } from '../../src/stores/drift.ts';
import { pause } from '../../src/calls/pause.ts';
import { ALWAYS } from '../../src/task/window.ts';
import { estimateOf, limitAt, NANO, sendOnce, settleOnce, held, hold } from '../support/holds.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { budgetKeys } from '../../src/stores/keys.ts';

async function fill(test: TestStores, rows: number) {
  await test.stores.ledger.gate('tenant');
  await test.postgres.transaction((sql) => sql.query(
    `insert into ledger (held_at, attempt_key, kind, call_key, tenant_id, user_id, task_id, provider, model, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, billable, usage_source, price_hash)
     select now() - make_interval(secs => n), 'old:' || n || '#0.1.1.0', 'charge', 'old:' || n, 'tenant', 'u', 'old', 'p', 'p/m', 1,0,0,0,1,0, 10, true, 'measured', 'h' from generate_series(1, $1::int) as n`, [rows]), { statementTimeoutMs: 120_000 });
  await test.postgres.query('vacuum analyze ledger');
}
const payer = { tenantId: 'tenant', userId: 'ada' };
const limits = [limitAt({ kind: 'tenant', id: 'tenant' }, 1_000_000n * NANO)];

for (const [rows, perSecond] of [[200, 250], [200_000, 60]] as const)
it(`drift under traffic: ${rows} rows, ${perSecond}/s`, async () => {
  await using test = await openTestStores();
  await fill(test, rows);
  const { stores } = test;
  let stopped = false; let n = 0; let failed = 0;
  const one = async () => {
    n += 1;
    try {
      const attempt = await sendOnce(stores, { attemptKey: `t:r:s:${n}#0.1.1.0`, payer, limits, estimate: estimateOf(100n) });
      if (attempt === undefined) { failed += 1; return; }
      await pause(500);
      await settleOnce(stores, attempt, 7n, 3);
    } catch { failed += 1; }
  };
  const all: Promise<void>[] = [];
  const traffic = (async () => { while (!stopped) { all.push(one()); await pause(1000 / perSecond); } })();
  await pause(1500);
  const check = createDriftCheck(test.redis, test.postgres, { gate: stores.ledger.gate, pause, lookEveryMs: 200 });
  const drifts = [];
  const from = performance.now();
  for (let i = 0; i < 25; i += 1) drifts.push(...(await check.pass()).drifts);
  console.log({ rows, perSecond, n, failed, drifts: drifts.length, ms: Math.round(performance.now() - from), first: drifts[0] });
  stopped = true; await traffic; await Promise.all(all);
  expect(drifts.length).toBe(0);
}, 120_000);

it('hydrates while many calls end', async () => {
  await using test = await openTestStores();
  await fill(test, 200_000);
  const { stores } = test;
  const attempts = [];
  for (let i = 0; i < 600; i += 1) attempts.push(await held(stores, { attemptKey: `t:r:s:${i}#0.1.1.0`, payer, limits, estimate: estimateOf(100n) }));
  for (const a of attempts) { await stores.ledger.intent(a, undefined); await stores.gate.markSent(a); }
  const idle = performance.now();
  await stores.hydrate({ tenantId: 'tenant', scope: { kind: 'user', id: 'u' }, intervals: [ALWAYS], generation: 1n });
  const idleMs = performance.now() - idle;
  const { scope } = budgetKeys(test.prefix, 'tenant');
  await test.redis.command((c) => c.del(scope('tenant', 'tenant')));
  let left = attempts.length;
  const ending = (async () => { for (const a of attempts) { await Promise.all([pause(25), settleOnce(stores, a, 1n)]); left -= 1; } })();
  const from = performance.now();
  const answer = await hold(stores, { attemptKey: 't:r:s:new#0.1.1.0', payer, limits, estimate: estimateOf(100n) });
  console.log({ kind: answer.kind, ms: Math.round(performance.now() - from), left, idleMs: Math.round(idleMs) });
  await ending;
}, 120_000);

it('inspect cost', async () => {
  await using test = await openTestStores();
  const { stores } = test;
  const windows = ['total', 'hour', 'day', 'month'] as const;
  const many = windows.map((window) => limitAt({ kind: 'tenant', id: 'tenant' }, 1_000_000n * NANO, { window }));
  for (let i = 0; i < 2000; i += 1) await held(stores, { attemptKey: `t:r:s:${i}#0.1.1.0`, payer, limits: many, estimate: estimateOf(100n) });
  const check = createDriftCheck(test.redis, test.postgres, { gate: stores.ledger.gate, pause, lookEveryMs: 200 });
  const from = performance.now();
  for (let i = 0; i < 5; i += 1) await check.pass();
  const slow = await test.redis.command((c) => c.slowlog('GET', 5)) as unknown[][];
  console.log({ ms: (performance.now() - from) / 5, slow: slow.map((s) => [s[2], String((s[3] as string[])[0])]) });
});
