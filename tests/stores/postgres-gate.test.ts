// What only the gate in Postgres does. What it has in common with the one in Redis: gate-conformance.test.ts.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { moveGate } from '../../src/stores/gates.ts';
import type { Attempt } from '../../src/stores/ledger.ts';
import { createPostgresGate } from '../../src/stores/postgres-gate.ts';
import type { BindingLimit, Payer, Scope } from '../../src/task/budget.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { ALWAYS } from '../../src/task/window.ts';
import { eventually } from '../support/eventually.ts';
import {
  draftOf,
  estimateOf,
  type HoldOptions,
  held,
  hold,
  limitAt,
  NANO,
  sendOnce,
  sent,
  settleOnce,
  voidOnce,
} from '../support/holds.ts';
import { openTestStores, storesOn, type TestStores } from '../support/stores.ts';

const DIME = NANO / 10n;
const BUDGET = { store: 'postgres', redisDown: 'closed', onMoved: () => undefined } as const;

let test: TestStores;
let tenants = 0;

beforeAll(async () => {
  test = await openTestStores({ budget: BUDGET });
});

afterAll(() => test[Symbol.asyncDispose]());

function stage(amount = 5n * NANO) {
  tenants += 1;
  const payer: Payer = { tenantId: `tenant-${tenants}`, userId: 'ada', taskId: `task-${tenants}` };
  const limits: readonly BindingLimit[] = [limitAt({ kind: 'user', id: 'ada' }, amount)];
  const options = (n: number | string, nanoUsd = DIME, change: Partial<HoldOptions> = {}): HoldOptions => ({
    attemptKey: `${payer.taskId}:run:answer:${n}#0.1.1.0`,
    payer,
    estimate: estimateOf(nanoUsd),
    limits,
    ...change,
  });
  return { payer, limits, options, tenantId: payer.tenantId };
}

async function countersOf(tenantId: string) {
  const { rows } = await test.postgres.query<{
    scope: Scope['kind'];
    scope_id: string;
    interval_key: string;
    settled_nano_usd: bigint;
    settled_tokens: bigint;
    held_nano_usd: bigint;
    held_tokens: bigint;
  }>('select * from budget_counters where tenant_id = $1 order by scope, interval_key', [tenantId]);
  return rows;
}

/** What the counters of a tenant must say, from attempts and ledger alone. */
async function expectExact(tenantId: string): Promise<void> {
  const counters = await countersOf(tenantId);
  expect(counters.length).toBeGreaterThan(0);
  for (const counter of counters) {
    const scope = { kind: counter.scope, id: counter.scope_id };
    const settled = await test.stores.accounts.settled(tenantId, scope);
    const underWay = await test.stores.accounts.held(tenantId, scope);
    expect(counter).toMatchObject({
      settled_nano_usd: settled.nanoUsd,
      settled_tokens: settled.tokens,
      held_nano_usd: underWay.nanoUsd,
      held_tokens: underWay.tokens,
    });
  }
}

/** As a gate that goes back to Redis loses them; the next hold moves it here again. */
async function loseCounters(tenantId: string): Promise<void> {
  const { generation } = await test.stores.ledger.gate(tenantId);
  await moveGate(test.postgres, { tenantId, from: generation, to: 'redis', leaseMs: 10_000 });
}

function stateOf(attempt: Attempt) {
  return test.stores.ledger.state(attempt);
}

describe('counters', () => {
  it('agree with the ledger whatever ends while they are made, moved and lost', async () => {
    const { tenantId, payer, options, limits } = stage(1_000n * NANO);
    const all = [
      ...limits,
      limitAt({ kind: 'tenant', id: tenantId }, 1_000n * NANO, { window: 'month' }),
      limitAt({ kind: 'task', id: payer.taskId ?? '' }, 1_000_000n, { unit: 'tokens', window: 'total' }),
    ];
    const run = async (n: number) => {
      const attempt = await sendOnce(test.stores, options(n, DIME, { limits: all.slice(n % 3) }));
      if (n % 9 === 0) await loseCounters(tenantId);
      if (attempt === undefined) return;
      if (n % 4 === 0) return;
      if (n % 4 === 1) await voidOnce(test.stores, attempt);
      else await settleOnce(test.stores, attempt, BigInt(n), n);
    };
    await Promise.all(
      [0, 1, 2, 3, 4, 5].map(async (lane) => {
        for (let n = lane; n < 60; n += 6) await run(n);
      }),
    );
    // Whatever counter was lost last is made once more.
    await held(test.stores, options('last', DIME, { limits: all }));
    await expectExact(tenantId);
    expect((await countersOf(tenantId)).map(({ scope }) => scope)).toEqual(['task', 'tenant', 'user']);
  });

  it('follow a re-rating in its own transaction', async () => {
    const { tenantId, options } = stage();
    const attempt = await sent(test.stores, options(1));
    await settleOnce(test.stores, attempt, DIME, 5);
    const period = { from: new Date(0), to: new Date(Date.now() + 1_000) };
    const place = { after: undefined, limit: 1_000 };
    const found = await test.stores.rerateRows.find(period, 'new-hash', place);
    const due = found.filter(({ payer }) => payer.tenantId === tenantId);
    for (const _ of [1, 2]) await test.stores.rerateRows.book(due, 'new-hash', () => 3n * DIME);
    expect(await countersOf(tenantId)).toMatchObject([{ settled_nano_usd: 3n * DIME, settled_tokens: 5n }]);
    await expectExact(tenantId);
  });

  it('are followed by a settlement that met the gate while it moved', async () => {
    const { tenantId, options } = stage();
    const inRedis = storesOn(test, { budget: { ...BUDGET, store: 'redis' } });
    const attempt = await sent(inRedis, options(1, NANO));
    const charge = { usage: NO_USAGE, nanoUsd: DIME, source: 'measured' } as const;
    const settling = await test.postgres.transaction(async (sql) => {
      await sql.query(
        "update gates set mode = 'postgres', generation = generation + 1 where tenant_id = $1",
        [tenantId],
      );
      const settled = test.stores.ledger.settle(attempt, { outcome: 'ok', charge }, undefined);
      await eventually(async () => {
        const { rows } = await sql.query<{ waiting: number }>(
          'select count(*)::int as waiting from pg_locks where not granted and pg_backend_pid() = any(pg_blocking_pids(pid))',
        );
        expect(rows[0]?.waiting).toBe(1);
      });
      return { settled };
    });
    expect(await settling.settled).toBe('settled');
    await held(test.stores, options(2));
    await expectExact(tenantId);
  });

  it('of windows that are over are removed when the next one is made', async () => {
    const { tenantId, options } = stage();
    await held(test.stores, options(1));
    await test.postgres.query(
      `insert into budget_counters select tenant_id, scope, scope_id, '1000-2000', to_timestamp(1), to_timestamp(2), generation, 0, 0, 0, 0
       from budget_counters where tenant_id = $1`,
      [tenantId],
    );
    const daily = [limitAt({ kind: 'user', id: 'ada' }, NANO, { window: 'day' })];
    await held(test.stores, options(2, DIME, { limits: daily }));
    const keys = (await countersOf(tenantId)).map(({ interval_key: key }) => key);
    expect(keys).toHaveLength(2);
    expect(keys).toContain('all');
    expect(keys).not.toContain('1000-2000');
  });

  it('are made once when many calls miss them together, and hold the limit from the first call on', async () => {
    const { tenantId, options } = stage(1n);
    const answers = await Promise.all(Array.from({ length: 8 }, (_, n) => hold(test.stores, options(n, 1n))));
    expect(answers.filter(({ kind }) => kind === 'ok')).toHaveLength(1);
    expect(await countersOf(tenantId)).toHaveLength(1);
  });
});

describe('a hold', () => {
  it('is not made at a gate that has moved', async () => {
    const { tenantId, options } = stage();
    const attempt = await held(test.stores, options(1));
    const moved = { tenantId, from: attempt.generation, to: 'redis', leaseMs: 10_000 } as const;
    expect(await moveGate(test.postgres, moved)).toBe(true);
    expect(await moveGate(test.postgres, moved)).toBe(false);
    expect(await countersOf(tenantId)).toEqual([]);
    // This process holds in Postgres whatever the row says: it moves the gate back, under a generation of its own.
    const next = await held(test.stores, options(2));
    expect(next.generation).toBe(attempt.generation + 2n);
    await expectExact(tenantId);
  });

  it('is not made under a generation that is over, and leaves nothing behind', async () => {
    const { payer, options, limits, tenantId } = stage();
    const { generation } = await held(test.stores, options(1));
    const calendars = { intervalOf: () => ALWAYS };
    const gate = createPostgresGate(test.postgres, { leaseMs: 10_000, calendars });
    const draft = draftOf(options(2));
    expect(await gate.hold({ draft, generation: generation - 1n, limits })).toBeUndefined();
    const late = [limitAt({ kind: 'task', id: payer.taskId ?? '' }, NANO)];
    expect(await gate.hold({ draft, generation: generation + 1n, limits: late })).toBeUndefined();
    expect(await countersOf(tenantId)).toHaveLength(1);
    expect(await test.stores.ledger.startedOfCall(draft.callKey)).toEqual([]);
  });

  it('writes its milestones with its intent, once, and none once it was voided', async () => {
    const { options, payer } = stage();
    const { taskId = '', tenantId } = payer;
    const task = { taskId, runId: 'run', tenantId };
    const caused = (id: string) => ({ task, events: [{ id, type: 'call_started' } as const] });
    const attempt = await held(test.stores, options(1));
    for (const _ of [1, 2]) expect(await test.stores.ledger.intent(attempt, caused('first'))).toBe(true);
    await voidOnce(test.stores, attempt);
    expect(await test.stores.ledger.intent(attempt, caused('second'))).toBe(false);
    expect(await test.stores.gate.markSent(attempt)).toBe(false);
    const { rows } = await test.postgres.query('select id from events where task_id = $1', [taskId]);
    expect(rows).toEqual([{ id: 'first' }]);
  });

  it('is marked sent or taken, never both', async () => {
    const short = storesOn(test, { budget: BUDGET, leaseMs: 1 });
    const { options, tenantId } = stage(100n * NANO);
    const both = await Promise.all(
      Array.from({ length: 30 }, async (_, n) => {
        const attempt = await held(short, options(n));
        const [isMarked, taken] = await Promise.all([short.gate.markSent(attempt), short.gate.take(attempt)]);
        const state = await stateOf(attempt);
        return { isMarked, isTaken: taken.kind === 'taken', state };
      }),
    );
    for (const { isMarked, isTaken, state } of both) {
      expect(isMarked && isTaken).toBe(false);
      expect(state).toBe(isTaken ? 'voided' : 'started');
    }
    await expectExact(tenantId);
  });

  it('leaves nothing behind when it is undone, and stays when it was sent', async () => {
    const { options, tenantId } = stage();
    const unsent = await held(test.stores, options(1));
    await test.stores.gate.undo(unsent);
    expect(await stateOf(unsent)).toBeUndefined();
    const attempt = await sent(test.stores, options(2));
    await test.stores.gate.undo(attempt);
    expect(await stateOf(attempt)).toBe('started');
    await expectExact(tenantId);
  });

  it('of a call that is answered is not made', async () => {
    const { options } = stage();
    const attempt = await sent(test.stores, options(1));
    const charge = { usage: NO_USAGE, nanoUsd: DIME, source: 'measured' } as const;
    const result = { status: 'completed', text: 'an answer', finishReason: 'stop' } as const;
    await test.stores.ledger.settle(attempt, { outcome: 'ok', charge, result }, undefined);
    const again = { ...options(1), attemptKey: attempt.attemptKey.replace('1.1.0', '1.2.0') };
    expect((await hold(test.stores, again)).kind).toBe('done');
  });
});
