import { inject } from 'vitest';
import { expect, it } from 'vitest';
import { BreakerOpen } from '../../src/calls/breaker.ts';
import { createCalls } from '../../src/calls/govern.ts';
import { reap } from '../../src/calls/reaper.ts';
import { createPostgres } from '../../src/stores/postgres.ts';
import { createIsRedisAway } from '../../src/stores/redis-away.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { beginTask, callDependencies, contextOf, requestOf, visitOnce } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { limitAt, NANO } from '../support/holds.ts';
import { hardLimit, openTestStores, QUIET, storesOn } from '../support/stores.ts';
import { budgetKeys } from '../../src/stores/keys.ts';

const USAGE = { ...NO_USAGE, inputTokens: 3, outputTokens: 2 };
const REPLY = { kind: 'reply', pieces: ['hello ', 'world'], usage: USAGE } as const;

it('1 gives an id that is used again the limits of its own run when the run before spent nothing', async () => {
  await using test = await openTestStores();
  await beginTask(test, 'a', [hardLimit('usd', 1n)], 'run-1');
  await test.stores.tasks.end({ taskId: 'a', runId: 'run-1' }, { status: 'failed' }, []);
  await beginTask(test, 'a', [hardLimit('usd', 1_000_000n)], 'run-2');
  expect(await test.stores.limits.get('tenant', { kind: 'task', id: 'a' })).toMatchObject([{ amount: 1_000_000n }]);
});

it('2 delegates with one connection', async () => {
  await using test = await openTestStores();
  const postgres = createPostgres({ url: inject('servers').postgres, schema: test.schema, poolSize: 1, statementTimeoutMs: 10_000 }, QUIET);
  try {
    const stores = storesOn({ postgres, redis: test.redis });
    await stores.limits.set('tenant', { kind: 'task', id: 'a' }, [hardLimit('usd', NANO)], { by: 'x' });
    expect(await stores.shares.delegate({ tenantId: 'tenant', userId: 'u', taskId: 'a' }, [{ shareId: 'a:x', nanoUsd: 1n }])).toEqual({ kind: 'delegated' });
  } finally { await postgres.close(); }
});

it('3 does not take shares of a task whose id begins with its own for its own', async () => {
  await using test = await openTestStores();
  const { stores } = test;
  for (const id of ['a', 'a:b']) await stores.limits.set('tenant', { kind: 'task', id }, [hardLimit('usd', NANO)], { by: 'x' });
  expect(await stores.shares.delegate({ tenantId: 'tenant', userId: 'u', taskId: 'a:b' }, [{ shareId: 'a:b:x', nanoUsd: NANO }])).toEqual({ kind: 'delegated' });
  expect(await stores.shares.delegate({ tenantId: 'tenant', userId: 'u', taskId: 'a' }, [{ shareId: 'a:x', nanoUsd: NANO }])).toEqual({ kind: 'delegated' });
});

it('4 an open breaker of postgres says nothing of redis', async () => {
  const away = createIsRedisAway({ ping: async () => undefined });
  expect(await away(new BreakerOpen('redis', 1))).toBe(true);
  expect(await away(new BreakerOpen('postgres', 1))).toBe(false);
});

it('5 books back an estimate of an attempt that was never marked', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a', [hardLimit('usd', 10_000_000n)]);
  const models = createFakeModels([REPLY]);
  const dependencies = callDependencies(test, models, { leaseMs: 200 });
  let open: () => void = () => undefined;
  const thaw = new Promise<void>((resolve) => { open = resolve; });
  let reached = false;
  const frozen = { ...dependencies, gate: { ...dependencies.gate, markSent: async (...a: Parameters<typeof dependencies.gate.markSent>) => {
    if (!reached) { reached = true; await thaw; }
    return dependencies.gate.markSent(...a);
  } } };
  const first = createCalls(frozen).visit(requestOf('a'), contextOf());
  await eventually(async () => expect(reached).toBe(true));
  const { holds } = budgetKeys(test.prefix, 'tenant');
  await test.redis.command((c) => c.del(holds));
  const keys = await test.redis.command((c) => c.keys(`${test.prefix}:*`));
  await test.redis.command((c) => c.del(...keys));
  await eventually(async () => {
    await reap(dependencies, async () => 0);
    expect(await test.stores.accounts.rows({ taskIds: ['a'] })).toMatchObject([{ kind: 'estimate' }]);
  });
  open();
  await first;
  const rows = await test.stores.accounts.rows({ taskIds: ['a'] });
  console.log(rows.map((r) => [r.attemptKey, r.kind, r.nanoUsd]));
  expect(models.requests).toHaveLength(1);
  expect((await test.stores.accounts.settled('tenant', { kind: 'task', id: 'a' })).nanoUsd).toBe(7000n);
});
