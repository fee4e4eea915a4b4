// Redis goes away and comes back: where budgets are held meanwhile, and that no limit is passed on the way.

import { describe, expect, it } from 'vitest';
import type { CallDependencies } from '../../src/calls/call.ts';
import { CallAborted, createCalls } from '../../src/calls/govern.ts';
import { reap } from '../../src/calls/reaper.ts';
import type { BudgetGateOptions } from '../../src/stores/budget-gate.ts';
import { budgetKeys } from '../../src/stores/keys.ts';
import type { StoreOptions, Stores } from '../../src/stores/stores.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { beginTask, callDependencies, contextOf, requestOf, visitOnce } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { cuttable, estimateOf, hold, limitAt, NANO, sendOnce, sent, settleOnce } from '../support/holds.ts';
import { hardLimit, openTestStores, storesOn, type TestStores } from '../support/stores.ts';

const USAGE = { ...NO_USAGE, inputTokens: 3, outputTokens: 2 };
const REPLY = { kind: 'reply', pieces: ['hello ', 'world'], usage: USAGE } as const;
const DIME = NANO / 10n;
const LIMIT = hardLimit('usd', 10_000_000n);
const DEAD = async () => 0;

/** Stores of a process that can be cut off from Redis, and the moves it made. */
function openProcess(
  test: TestStores,
  budget: Partial<BudgetGateOptions> = {},
  options: Partial<StoreOptions> = {},
) {
  const redis = cuttable(test.redis);
  const moves: string[] = [];
  const onMoved = (tenantId: string, to: string) => moves.push(`${tenantId} ${to}`);
  const stores = storesOn(
    { postgres: test.postgres, redis },
    { budget: { store: 'redis', redisDown: 'postgres', onMoved, ...budget }, ...options },
  );
  return { redis, moves, stores };
}

function dependenciesOf(
  test: TestStores,
  stores: Stores,
  models: CallDependencies['models'],
  settings: Partial<CallDependencies['settings']> = {},
): CallDependencies {
  return callDependencies({ ...test, stores }, models, settings);
}

function dimes(n: number | string, amount = 5n * NANO, nanoUsd = DIME) {
  const payer = { tenantId: 'tenant', userId: 'ada', taskId: 'task' };
  const limits = [limitAt({ kind: 'user', id: 'ada' }, amount)];
  return { attemptKey: `task:run:answer:${n}#0.1.1.0`, payer, limits, estimate: estimateOf(nanoUsd) };
}

async function kindsOf(test: TestStores, taskId: string): Promise<string[]> {
  return (await test.stores.accounts.rows({ taskIds: [taskId] })).map(({ kind }) => kind);
}

describe('while Redis is away', () => {
  it('holds in Postgres, answers, and tells the task that it does', async () => {
    await using test = await openTestStores();
    const { redis, moves, stores } = openProcess(test);
    await beginTask(test, 'a', [LIMIT]);
    const models = createFakeModels([REPLY, REPLY]);
    redis.isCut = true;
    const outcome = await visitOnce(dependenciesOf(test, stores, models), 'a');
    expect(outcome).toMatchObject({ kind: 'completed', costUsd: '0.000007' });
    expect(await stores.ledger.gate('tenant')).toEqual({ mode: 'postgres', generation: 2n });
    expect(moves).toEqual(['tenant postgres']);
    const { rows } = await test.postgres.query(
      "select task_id from events where type = 'degraded' and task_id = 'a'",
    );
    expect(rows).toHaveLength(1);
    expect(await kindsOf(test, 'a')).toEqual(['charge']);
    const { rows: counters } = await test.postgres.query(
      'select settled_nano_usd, held_nano_usd from budget_counters',
    );
    expect(counters).toEqual([{ settled_nano_usd: 7_000n, held_nano_usd: 0n }]);
  });

  it('sends nothing where the policy is to stay closed, and holds nothing', async () => {
    await using test = await openTestStores();
    const { redis, stores } = openProcess(test, { redisDown: 'closed' });
    await beginTask(test, 'a', [LIMIT]);
    const models = createFakeModels([REPLY]);
    redis.isCut = true;
    const dependencies = dependenciesOf(test, stores, models);
    await expect(visitOnce(dependencies, 'a')).rejects.toThrow('connection is closed');
    expect(await stores.ledger.gate('tenant')).toEqual({ mode: 'redis', generation: 1n });
    redis.isCut = false;
    expect(await visitOnce(dependencies, 'a', { attempt: 2 })).toMatchObject({ kind: 'completed' });
    expect(models.requests).toHaveLength(1);
  });

  it('does not leave Redis for an answer that came too late', async () => {
    await using test = await openTestStores();
    const { redis, moves, stores } = openProcess(test);
    const late = { ...redis, run: () => Promise.reject(new Error('Command timed out')) };
    const slow = storesOn({ postgres: test.postgres, redis: late });
    await expect(hold(slow, dimes(1))).rejects.toThrow('timed out');
    expect((await hold(stores, dimes(1))).kind).toBe('ok');
    expect(moves).toEqual([]);
    expect(await stores.ledger.gate('tenant')).toEqual({ mode: 'redis', generation: 1n });
  });

  it('refuses what was spent before it went, and waits for what was under way', async () => {
    await using test = await openTestStores();
    const { redis, stores } = openProcess(test);
    await settleOnce(stores, await sent(stores, dimes(1, 5n * NANO, 2n * NANO)), 2n * NANO);
    const open = await sent(stores, dimes(2, 5n * NANO, 2n * NANO));
    redis.isCut = true;
    expect(await hold(stores, dimes(3, 5n * NANO, 2n * NANO))).toMatchObject({
      kind: 'crowded',
      settled: 2n * NANO,
      held: 2n * NANO,
    });
    // Its worker has a lease from the move on, in which it can show itself.
    expect((await stores.gate.take(open)).kind).toBe('live');
    // What Redis held is settled in Postgres, and leaves its counters.
    await settleOnce(stores, open, NANO);
    expect(await hold(stores, dimes(4, 5n * NANO, 2n * NANO + 1n))).toMatchObject({
      kind: 'refused',
      settled: 3n * NANO,
      held: 0n,
    });
    expect((await hold(stores, dimes(5, 5n * NANO, 2n * NANO))).kind).toBe('ok');
  });

  it('keeps a running call alive in its row, and estimates it when nobody renews it', async () => {
    await using test = await openTestStores();
    const { redis, stores } = openProcess(test, {}, { leaseMs: 300 });
    await beginTask(test, 'a', [LIMIT]);
    const models = createFakeModels([{ kind: 'hang' }, REPLY]);
    const settings = { leaseMs: 300, leaseRenewalMs: 50 };
    const dependencies = dependenciesOf(test, stores, models, settings);
    const controller = new AbortController();
    const visit = createCalls(dependencies).visit(requestOf('a'), contextOf(controller, 'handover'));
    const ended = visit.catch((error: unknown) => error);
    await eventually(() => expect(models.inFlight()).toBe(1));
    redis.isCut = true;
    await hold(stores, { ...dimes('move'), payer: { tenantId: 'tenant', userId: 'ada' } });
    const [attempt] = await stores.ledger.startedOfCall('a:run:answer:1');
    if (attempt === undefined) throw new Error('no attempt is under way');
    expect(attempt.mode).toBe('redis');
    // Renewed by its worker through more than one lease, it is never taken.
    const leaseOf = async () => (await stores.gate.lease(attempt))?.leftMs ?? 0;
    const first = await test.postgres.query('select lease_until from attempts where attempt_key = $1', [
      attempt.attemptKey,
    ]);
    await eventually(async () => {
      await reap(dependencies, DEAD);
      const { rows } = await test.postgres.query<{ later: boolean }>(
        "select lease_until > $2::timestamptz + interval '400 ms' as later from attempts where attempt_key = $1",
        [attempt.attemptKey, first.rows[0]?.['lease_until']],
      );
      expect(rows[0]?.later).toBe(true);
    });
    expect(await leaseOf()).toBeGreaterThan(0);
    expect(await kindsOf(test, 'a')).toEqual([]);
    // The worker dies: its renewals end, and so does its attempt.
    await test.postgres.query(
      "update attempts set owner = 'process gone', lease_until = null where attempt_key = $1",
      [attempt.attemptKey],
    );
    const dead = dependenciesOf(test, stores, models, settings);
    await freeze(test, attempt.attemptKey, async () => {
      await eventually(async () => {
        await reap(dead, DEAD);
        expect(await kindsOf(test, 'a')).toEqual(['estimate']);
      });
    });
    controller.abort(new Error('stop'));
    expect(await ended).toBeInstanceOf(CallAborted);
    expect(await visitOnce(dependencies, 'a', { attempt: 2 })).toMatchObject({ kind: 'completed' });
  });

  it('tells the row what an attempt has seen, also where its worker has not heard that the gate moved', async () => {
    await using test = await openTestStores();
    const near = openProcess(test, {}, { leaseMs: 150 });
    const far = openProcess(test, {}, { leaseMs: 150 });
    const attempt = await sent(near.stores, dimes(1));
    far.redis.isCut = true;
    await sent(far.stores, dimes(2));
    near.redis.isCut = true;
    expect(await near.stores.gate.renew(attempt, 42)).toBe(true);
    await eventually(async () =>
      expect(await far.stores.gate.take(attempt)).toEqual({ kind: 'sent', outputTokensSeen: 42 }),
    );
  });

  it('finds a lost attempt of a call that nobody else has moved the gate for', async () => {
    await using test = await openTestStores();
    const { redis, stores } = openProcess(test, {}, { leaseMs: 300 });
    await beginTask(test, 'a', [LIMIT]);
    const models = createFakeModels([{ kind: 'hang' }, REPLY]);
    const frozen = dependenciesOf(test, stores, models, { leaseMs: 300, leaseRenewalMs: 600_000 });
    const controller = new AbortController();
    const visit = createCalls(frozen).visit(requestOf('a'), contextOf(controller, 'handover'));
    const ended = visit.catch((error: unknown) => error);
    await eventually(() => expect(models.inFlight()).toBe(1));
    redis.isCut = true;
    expect(await visitOnce(frozen, 'a', { attempt: 2 })).toMatchObject({ kind: 'completed' });
    expect(await kindsOf(test, 'a')).toEqual(['estimate', 'charge']);
    controller.abort(new Error('stop'));
    expect(await ended).toBeInstanceOf(CallAborted);
  });
});

describe('one worker cut off from Redis while another reaches it', () => {
  it('makes no hold of Redis durable once the other has moved the gate', async () => {
    await using test = await openTestStores();
    const near = openProcess(test);
    const far = openProcess(test);
    const before = await hold(near.stores, dimes(1, NANO, NANO));
    if (before.kind !== 'ok') throw new Error(before.kind);
    far.redis.isCut = true;
    // The hold has no row yet: Postgres cannot know it, and admits another one in its place.
    await sent(far.stores, dimes(2, NANO, NANO));
    expect(await near.stores.ledger.intent(before.attempt, undefined)).toBe(false);
    // The same where the gate has gone back to Redis, under a later generation.
    expect(await near.stores.gate.returnToRedis(0)).toBe(1);
    expect(await near.stores.ledger.intent(before.attempt, undefined)).toBe(false);
  });

  it.each([1, 2, 3, 4, 5])('sends exactly fifty dimes of five dollars between them (run %i)', async () => {
    await using test = await openTestStores();
    const near = openProcess(test);
    const far = openProcess(test);
    let count = 0;
    const lane = async (stores: Stores, name: string) => {
      for (let n = 0; n < 12; n += 1) {
        const isSent = await sendOrRefused(stores, `${name}.${n}`, () => count >= 50);
        if (isSent) count += 1;
      }
    };
    const lanes = [0, 1, 2, 3].flatMap((n) => [lane(near.stores, `near.${n}`), lane(far.stores, `far.${n}`)]);
    // In the middle of it, one of them loses Redis.
    await eventually(() => expect(count).toBeGreaterThan(5));
    far.redis.isCut = true;
    await Promise.all(lanes);
    expect(count).toBe(50);
    expect(far.moves).toEqual(['tenant postgres']);
    const spent = await test.stores.accounts.held('tenant', { kind: 'user', id: 'ada' });
    expect(spent.nanoUsd).toBe(5n * NANO);
  });
});

describe('when Redis is back', () => {
  it('returns to it after a time, and counts what Postgres held meanwhile', async () => {
    await using test = await openTestStores();
    const { redis, moves, stores } = openProcess(test);
    redis.isCut = true;
    await settleOnce(stores, await sent(stores, dimes(1, 5n * NANO, 2n * NANO)), NANO);
    const open = await sent(stores, dimes(2, 5n * NANO, 2n * NANO));
    redis.isCut = false;
    expect(await stores.gate.returnToRedis(60_000)).toBe(0);
    expect(await stores.gate.returnToRedis(0)).toBe(1);
    expect(moves).toEqual(['tenant postgres', 'tenant redis']);
    expect(await stores.ledger.gate('tenant')).toEqual({ mode: 'redis', generation: 3n });
    expect(await hold(stores, dimes(3, 5n * NANO, 3n * NANO))).toMatchObject({
      kind: 'crowded',
      settled: NANO,
      held: 2n * NANO,
    });
    // An attempt that Postgres held ends at the gate in Redis.
    expect(await stores.gate.renew(open, 7)).toBe(true);
    await settleOnce(stores, open, NANO);
    expect(await hold(stores, dimes(4, 5n * NANO, 4n * NANO))).toMatchObject({
      kind: 'refused',
      settled: 2n * NANO,
      held: 0n,
    });
    const holds = await test.redis.command((client) => client.hkeys(budgetKeys(test.prefix, 'tenant').holds));
    expect(holds).toEqual([]);
  });

  it('gives back in Redis a hold that Postgres made and nobody sent', async () => {
    await using test = await openTestStores();
    const { redis, stores } = openProcess(test);
    redis.isCut = true;
    const answer = await hold(stores, dimes(1, NANO, NANO));
    if (answer.kind !== 'ok') throw new Error(answer.kind);
    redis.isCut = false;
    await stores.gate.returnToRedis(0);
    expect((await hold(stores, dimes(2, NANO))).kind).toBe('crowded');
    await stores.gate.undo(answer.attempt);
    expect((await hold(stores, dimes(3, NANO))).kind).toBe('ok');
  });

  it('leaves everything in Postgres where that is the store', async () => {
    await using test = await openTestStores();
    const { stores, moves } = openProcess(test, { store: 'postgres' });
    await beginTask(test, 'a', [LIMIT]);
    const models = createFakeModels([REPLY]);
    expect(await visitOnce(dependenciesOf(test, stores, models), 'a')).toMatchObject({ kind: 'completed' });
    expect(await stores.gate.returnToRedis(0)).toBe(0);
    expect(moves).toEqual(['tenant postgres']);
    const { holds, scope } = budgetKeys(test.prefix, 'tenant');
    expect(await test.redis.command((client) => client.exists(holds, scope('task', 'a')))).toBe(0);
  });

  it('reaps what a dead worker left behind at either gate', async () => {
    await using test = await openTestStores();
    const { redis, stores } = openProcess(test, {}, { leaseMs: 150 });
    const dependencies = dependenciesOf(test, stores, createFakeModels([]), { leaseMs: 150 });
    const sentByRedis = await sent(stores, dimes(1));
    redis.isCut = true;
    const sentByPostgres = await sent(stores, dimes(2));
    const unsent = await hold(stores, dimes(3));
    if (unsent.kind !== 'ok') throw new Error(unsent.kind);
    await eventually(async () => {
      await reap(dependencies, DEAD);
      expect(await stores.ledger.startedOfTenant('tenant')).toEqual([]);
    });
    expect(await stores.ledger.state(sentByRedis)).toBe('estimated');
    expect(await stores.ledger.state(sentByPostgres)).toBe('estimated');
    expect(await stores.ledger.state(unsent.attempt)).toBe('voided');
    redis.isCut = false;
    await stores.gate.returnToRedis(0);
    await eventually(async () => {
      await reap(dependencies, DEAD);
      expect(await test.redis.command((client) => client.hlen(budgetKeys(test.prefix, 'tenant').holds))).toBe(
        0,
      );
    });
  });
});

/**
 * Tries one call until it is sent, or refused when nothing is missing any more: until then only holds that are being taken back can stand
 * in its way. True when it was sent.
 */
async function sendOrRefused(stores: Stores, name: string, isFull: () => boolean): Promise<boolean> {
  for (let tries = 0; ; tries += 1) {
    const wasFull = isFull();
    const options = { ...dimes(name), attemptKey: `task:run:answer:${name}#0.1.1.${tries}` };
    // Redis may go away between two steps: then the attempt was voided and is tried again, as in a visit.
    const attempt = await sendOnce(stores, options).catch(() => undefined);
    if (attempt !== undefined) return true;
    if (wasFull) return false;
  }
}

/** The row as a dead worker leaves it: renewals of the living one in this process do not reach it. */
async function freeze(test: TestStores, attemptKey: string, work: () => Promise<void>): Promise<void> {
  const name = `freeze_${test.schema}`;
  await test.postgres.query(
    `create function ${name}() returns trigger language plpgsql as $$ begin
       if new.state = 'started' and old.lease_until is not null and new.attempt_key = '${attemptKey}' then return null; end if;
       return new; end $$`,
  );
  await test.postgres.query(
    `create trigger ${name} before update on attempts for each row execute function ${name}()`,
  );
  await work();
  await test.postgres.query(`drop trigger ${name} on attempts`);
}
