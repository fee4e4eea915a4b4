// What a gate promises, whichever store it is in. What only one of them does: gate.test.ts and postgres-gate.test.ts.

import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { type BudgetGateOptions, type BudgetHold, createBudgetGate } from '../../src/stores/budget-gate.ts';
import type { Calendars } from '../../src/stores/calendars.ts';
import { createGate } from '../../src/stores/gate.ts';
import { createPostgresGate } from '../../src/stores/postgres-gate.ts';
import type { Stores } from '../../src/stores/stores.ts';
import type { BindingLimit, Payer } from '../../src/task/budget.ts';
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
import { connectAgain, openTestStores, storesOn, type TestStores } from '../support/stores.ts';

const DIME = NANO / 10n;
const DOLLARS_5 = 5n * NANO;
/** How often the race of a thousand is run; more of them are for the bench. */
const RACES = Number(process.env['GATE_RACES'] ?? 1);

afterEach(() => {
  vi.useRealTimers();
});

describe.each(['redis', 'postgres'] as const)('the gate in %s', (store) => {
  const budget: BudgetGateOptions = { store, redisDown: 'closed', onMoved: () => undefined };
  let test: TestStores;
  let stores: Stores;
  let tenants = 0;

  beforeAll(async () => {
    test = await openTestStores({ budget });
    stores = test.stores;
  });

  afterAll(() => test[Symbol.asyncDispose]());

  /** A payer of a tenant of its own, and holds on its limits. */
  function stage(limitsOf: (payer: Required<Payer>) => readonly BindingLimit[] = userLimit(DOLLARS_5)) {
    tenants += 1;
    const payer = {
      tenantId: `tenant-${tenants}`,
      userId: 'ada',
      sessionId: 'talk',
      taskId: `task-${tenants}`,
      shareId: `task-${tenants}:a`,
    };
    const limits = limitsOf(payer);
    const { shareId: _, ...whole } = payer;
    const options = (n: number | string, nanoUsd = DIME, change: Partial<HoldOptions> = {}): HoldOptions => ({
      attemptKey: `${payer.taskId}:run:answer:${n}#0.1.1.0`,
      payer: whole,
      estimate: estimateOf(nanoUsd),
      limits,
      ...change,
    });
    return { payer, whole, limits, options };
  }

  function userLimit(amount: bigint, change: Partial<BindingLimit> = {}) {
    return ({ userId }: Payer) => [limitAt({ kind: 'user', id: userId }, amount, change)];
  }

  describe('hold', () => {
    it.each(Array.from({ length: RACES }, (_, race) => race))(
      'admits exactly fifty of a thousand concurrent dimes on five dollars from four processes (race %i)',
      async () => {
        await using first = await connectAgain(test);
        await using second = await connectAgain(test);
        await using third = await connectAgain(test);
        await using fourth = await connectAgain(test);
        const processes = [first, second, third, fourth].map((servers) => storesOn(servers, { budget }));
        const { options } = stage();
        const answers: BudgetHold[] = [];
        // About as many at once as there are connections: a pool turns callers away who waited for seconds.
        const atOnce = store === 'redis' ? 100 : 40;
        const lanes = Array.from({ length: atOnce }, async (_, lane) => {
          for (let n = lane; n < 1_000; n += atOnce)
            answers.push(await hold(processes[lane % 4] ?? stores, options(n)));
        });
        await Promise.all(lanes);
        expect(answers.filter(({ kind }) => kind === 'ok')).toHaveLength(50);
        expect(answers.filter(({ kind }) => kind === 'crowded')).toHaveLength(950);
      },
    );

    it('passes no limit of four scopes and refuses nobody while all of them have room', async () => {
      const { options, limits } = stage((payer) => [
        limitAt({ kind: 'tenant', id: payer.tenantId }, 300n),
        limitAt({ kind: 'user', id: payer.userId }, 260n),
        limitAt({ kind: 'user', id: payer.userId }, 250n, { window: 'day' }),
        limitAt({ kind: 'session', id: payer.sessionId ?? '' }, 240n, { window: 'month' }),
        limitAt({ kind: 'task', id: payer.taskId ?? '' }, 4_000n, { unit: 'tokens' }),
      ]);
      const amounts = Array.from({ length: 120 }, (_, n) => BigInt(1 + ((n * 7) % 11)));
      const tokens = (nanoUsd: bigint) => Number(nanoUsd) * 10;
      const answers = await Promise.all(
        amounts.map((amount, n) =>
          hold(stores, options(n, 0n, { estimate: estimateOf(amount, tokens(amount)) })),
        ),
      );
      const admitted = amounts.filter((_, n) => answers[n]?.kind === 'ok');
      const refused = amounts.filter((_, n) => answers[n]?.kind !== 'ok');
      const nanoUsd = admitted.reduce((sum, amount) => sum + amount, 0n);
      const used = ({ unit }: BindingLimit) => (unit === 'usd' ? nanoUsd : nanoUsd * 10n);
      const needed = ({ unit }: BindingLimit, amount: bigint) => (unit === 'usd' ? amount : amount * 10n);
      for (const limit of limits) expect(used(limit)).toBeLessThanOrEqual(limit.amount);
      // Nothing was given back, so that what has room now had room before.
      expect(refused.length).toBeGreaterThan(0);
      for (const amount of refused)
        expect(limits.some((limit) => used(limit) + needed(limit, amount) > limit.amount)).toBe(true);
    });

    it('holds every limit or none', async () => {
      const { options, limits, whole } = stage();
      const narrow = limitAt({ kind: 'task', id: whole.taskId }, 10n, { unit: 'tokens' });
      const refused = await hold(stores, options(1, DIME, { limits: [...limits, narrow] }));
      expect(refused).toMatchObject({ kind: 'refused', limit: { unit: 'tokens' }, settled: 0n });
      await held(stores, options(2, DOLLARS_5));
    });

    it('answers a repeated command of one attempt with the same hold', async () => {
      const { options } = stage();
      const first = await hold(stores, options(1));
      expect(await hold(stores, options(1))).toEqual({ ...first, uses: [] });
      await held(stores, options(2, DOLLARS_5 - DIME));
    });

    it('refuses the first call on a limit of zero, also when it costs nothing', async () => {
      const { options } = stage(userLimit(0n));
      expect((await hold(stores, options(1, 0n))).kind).toBe('refused');
    });

    it('tells a limit that settled spend fills before one that is crowded, and of several the one that turns last', async () => {
      const { options } = stage(({ userId }) => [
        limitAt({ kind: 'user', id: userId }, 4n * NANO, { window: 'hour' }),
        limitAt({ kind: 'user', id: userId }, 3n * NANO, { window: 'day' }),
        limitAt({ kind: 'user', id: userId }, 3n * NANO, { window: 'total' }),
        limitAt({ kind: 'user', id: userId }, 3n * NANO, { window: 'week' }),
      ]);
      await settleOnce(stores, await sent(stores, options(1, 2n * NANO)), 2n * NANO);
      await held(stores, options(2, NANO / 2n));
      // Without the hold it would fit.
      expect(await hold(stores, options(3, NANO))).toMatchObject({
        kind: 'crowded',
        limit: { window: 'day' },
      });
      expect(await hold(stores, options(4, 2n * NANO))).toMatchObject({
        kind: 'refused',
        limit: { window: 'total' },
        settled: 2n * NANO,
        held: NANO / 2n,
      });
    });

    it('lets soft limits pass and tells how they stand', async () => {
      const { options } = stage(({ userId }) => [
        limitAt({ kind: 'user', id: userId }, DIME, { hard: false }),
        limitAt({ kind: 'user', id: userId }, NANO, { window: 'week' }),
      ]);
      await settleOnce(stores, await sent(stores, options(1)), DIME);
      await held(stores, options(2));
      const third = await hold(stores, options(3));
      expect(third).toMatchObject({
        kind: 'ok',
        uses: [
          { limit: { hard: false }, interval: ALWAYS, settled: DIME, held: DIME },
          { limit: { window: 'week' }, settled: DIME, held: DIME },
        ],
      });
    });

    it('counts what was spent and is under way before a limit met its scope', async () => {
      const { options, limits, whole } = stage();
      await settleOnce(stores, await sent(stores, options(1, NANO)), NANO / 2n, 7);
      await sent(stores, options(2, NANO));
      const late = [
        ...limits,
        limitAt({ kind: 'tenant', id: whole.tenantId }, NANO, { window: 'month' }),
        limitAt({ kind: 'session', id: whole.sessionId }, 500n, { unit: 'tokens' }),
      ];
      const probe = options(3, NANO, { limits: late });
      expect(await hold(stores, { ...probe, estimate: estimateOf(1n, 1) })).toMatchObject({
        kind: 'crowded',
        limit: { scope: { kind: 'tenant' } },
        settled: NANO / 2n,
        held: NANO,
      });
      expect(
        await hold(stores, { ...probe, limits: late.slice(2), estimate: estimateOf(0n, 494) }),
      ).toMatchObject({ kind: 'refused', settled: 7n, held: 100n });
    });

    it('refuses whatever comes once more was settled than any limit may allow', async () => {
      const { options, limits } = stage(userLimit(9_000_000n * NANO));
      const huge = (1n << 53n) + 1n;
      const soft = limits.map((limit) => ({ ...limit, hard: false }));
      for (const n of [1, 2])
        await settleOnce(stores, await sent(stores, options(n, 0n, { limits: soft })), huge);
      const refused = await hold(stores, options(3, 1n));
      expect(refused.kind).toBe('refused');
      // Redis counts in doubles and says no more than that they are at their end.
      const told = store === 'redis' ? 1n << 53n : 2n * huge;
      expect(refused).toMatchObject({ settled: told, limit: { amount: 9_000_000n * NANO } });
    });

    it('admits what a grant added to a limit for one task', async () => {
      const { options, whole } = stage();
      const set = { unit: 'usd', window: 'day', amount: DIME, hard: true, warnAt: 0.8 } as const;
      await stores.limits.set(whole.tenantId, { kind: 'user', id: whole.userId }, [set], { by: 'test' });
      await test.postgres.query(
        `insert into budget_grants (tenant_id, task_id, scope, scope_id, unit, limit_window, approval_id, amount)
         values ($1, $2, 'user', $3, 'usd', 'day', $1, $4)`,
        [whole.tenantId, whole.taskId, whole.userId, DIME],
      );
      const others = await stores.limits.binding({ ...whole, taskId: 'another' });
      expect((await hold(stores, options(1, 2n * DIME, { limits: others }))).kind).toBe('refused');
      const granted = await stores.limits.binding(whole);
      await held(stores, options(2, 2n * DIME, { limits: granted }));
    });
  });

  describe('an older attempt of a call', () => {
    it('gives way when it was not sent', async () => {
      const { options } = stage(userLimit(DIME));
      const older = await held(stores, options(1));
      const newer = await held(stores, {
        ...options(1),
        attemptKey: older.attemptKey.replace('1.1.0', '1.2.0'),
      });
      expect(await stores.gate.markSent(older)).toBe(false);
      expect(await stores.ledger.intent(newer, undefined)).toBe(true);
      expect(await stores.gate.markSent(newer)).toBe(true);
      expect((await hold(stores, options(1))).kind).toBe('done');
    });

    it('keeps its hold when it was sent', async () => {
      const { options } = stage(userLimit(DIME));
      const older = await sent(stores, options(1));
      const newer = { ...options(1), attemptKey: older.attemptKey.replace('1.1.0', '1.2.0') };
      expect((await hold(stores, newer)).kind).toBe('crowded');
      // Also where there is room for both: two requests of one call are never under way.
      expect(await sendOnce(stores, { ...newer, limits: [] })).toBeUndefined();
    });
  });

  describe('the end of a hold', () => {
    it('moves what was charged to settled, once', async () => {
      const { options } = stage();
      const attempt = await sent(stores, options(1, 3n * NANO));
      for (const _ of [1, 2]) await settleOnce(stores, attempt, 2n * NANO, 70);
      expect(await hold(stores, options(2, 3n * NANO + 1n))).toMatchObject({
        kind: 'refused',
        settled: 2n * NANO,
        held: 0n,
      });
      await held(stores, options(3, 3n * NANO));
    });

    it('gives back what was not sent, once', async () => {
      const { options } = stage();
      const attempt = await held(stores, options(1, DOLLARS_5));
      for (const _ of [1, 2]) await stores.gate.undo(attempt);
      await held(stores, options(2, DOLLARS_5));
      expect(await hold(stores, options(3))).toMatchObject({ kind: 'crowded', settled: 0n, held: DOLLARS_5 });
    });

    it('counts what was voided and what costs nothing without an error', async () => {
      const { options } = stage();
      for (const n of [1, 2]) {
        const free = await sent(stores, options(n, 0n, { estimate: estimateOf(0n, 0) }));
        if (n === 1) await settleOnce(stores, free, 0n);
        else for (const _ of [1, 2]) await voidOnce(stores, free);
      }
      await held(stores, options(3, DOLLARS_5));
    });

    it('brings a late difference to the counters, once', async () => {
      const { options } = stage();
      const attempt = await sent(stores, options(1, 3n * NANO));
      const charge = (nanoUsd: bigint) => ({ usage: NO_USAGE, nanoUsd, source: 'measured' }) as const;
      const resolution = { to: 'estimated', outcome: 'lost', charge: charge(3n * NANO) } as const;
      await stores.ledger.resolve(attempt, resolution);
      await stores.gate.release(attempt, 'estimated', { nanoUsd: 3n * NANO, tokens: 0 });
      const scopeVersions = await stores.gate.scopeVersions(attempt.payer, attempt.generation);
      const difference = await stores.ledger.adjustLate(attempt, charge(NANO));
      expect(difference?.nanoUsd).toBe(-2n * NANO);
      expect(await stores.ledger.adjustLate(attempt, charge(NANO))).toBeUndefined();
      for (const _ of [1, 2])
        await stores.gate.adjust(attempt, attempt.generation, {
          ...{ adjustKey: 'late', nanoUsd: -2n * NANO, tokens: 0, scopeVersions },
        });
      expect(await hold(stores, options(2, DOLLARS_5))).toMatchObject({
        kind: 'refused',
        settled: NANO,
        held: 0n,
      });
    });
  });

  describe('take', () => {
    it('takes an unsent hold only after its lease', async () => {
      const short = storesOn(test, { budget, leaseMs: 150 });
      const { options } = stage();
      const attempt = await held(short, options(1, DOLLARS_5));
      expect((await short.gate.take(attempt)).kind).toBe('live');
      await eventually(async () => expect(await short.gate.take(attempt)).toEqual({ kind: 'taken' }));
      expect(await short.gate.markSent(attempt)).toBe(false);
      expect(await short.gate.take(attempt)).toEqual({ kind: 'done', marker: 'void' });
      await held(short, options(2, DOLLARS_5));
    });

    it('tells what a sent attempt had seen and leaves its hold', async () => {
      const short = storesOn(test, { budget, leaseMs: 150 });
      const { options } = stage();
      const attempt = await sent(short, options(1, DOLLARS_5));
      expect(await short.gate.renew(attempt, 42)).toBe(true);
      await eventually(async () =>
        expect(await short.gate.take(attempt)).toEqual({ kind: 'sent', outputTokensSeen: 42 }),
      );
      expect((await hold(short, options(2))).kind).toBe('crowded');
    });

    it('lists an attempt whose lease is over until it is extended', async () => {
      const short = storesOn(test, { budget, leaseMs: 150 });
      const { options, whole } = stage();
      const attempt = await sent(short, options(1));
      const list = () => short.gate.expiredLeases(whole.tenantId, 10);
      await eventually(async () => expect(await list()).toEqual([attempt.attemptKey]));
      await short.gate.extendLease(attempt, 60_000);
      expect(await list()).toEqual([]);
      expect((await short.gate.lease(attempt))?.leftMs).toBeGreaterThan(30_000);
      expect((await short.gate.take(attempt)).kind).toBe('live');
    });
  });

  describe('windows', () => {
    /** Windows of our own length, so that one turns while the test looks. */
    function gateWith(calendars: Calendars) {
      const { postgres, redis } = test;
      const options = { leaseMs: 10_000, calendars };
      const gate = createBudgetGate({
        postgres,
        redis: createGate(redis, { ...options, markerTtlMs: 60_000 }),
        postgresGate: createPostgresGate(postgres, options),
        hydrate: stores.hydrate,
        ledger: stores.ledger,
        isRedisAway: async () => false,
        leaseMs: 10_000,
        options: budget,
      });
      return { gate, ledger: stores.ledger };
    }

    function tiles(ms: number): Calendars {
      return {
        intervalOf: ({ window }, atMs) => {
          const startMs = Math.floor(atMs / ms) * ms;
          return window === 'total' ? ALWAYS : { startMs, endMs: startMs + ms };
        },
      };
    }

    it('put a call into the window of its hold, also when it ends in the next one', async () => {
      const own = gateWith(tiles(1_500));
      const { options, whole } = stage(({ userId }) => [
        limitAt({ kind: 'user', id: userId }, NANO, { window: 'hour' }),
        limitAt({ kind: 'user', id: userId }, DOLLARS_5, { hard: false }),
      ]);
      const attempt = await sent(own, options(1, NANO));
      expect(await hold(own, options(2))).toMatchObject({ kind: 'crowded', held: NANO });
      // A new window has nothing of it, first as a hold and then as a charge.
      const second = await eventually(async () => held(own, options('second', DIME)));
      expect(second.heldAt.getTime()).toBeGreaterThan(attempt.heldAt.getTime());
      await settleOnce(own, attempt, NANO);
      const probe = await hold(own, options('probe', 0n));
      if (probe.kind !== 'ok') throw new Error(probe.kind);
      const [hour, all] = probe.uses;
      expect(hour?.settled).toBe(0n);
      expect(all).toMatchObject({ settled: NANO, held: DIME });
      const before = tiles(1_500).intervalOf({ window: 'hour' }, attempt.heldAt.getTime());
      const booked = await stores.accounts.settled(whole.tenantId, { kind: 'user', id: 'ada' }, before);
      expect(booked.nanoUsd).toBe(NANO);
    });

    it('are chosen by the clock of the server', async () => {
      const { options } = stage(userLimit(NANO, { window: 'day' }));
      await settleOnce(stores, await sent(stores, options(1, NANO)), NANO);
      const day = 86_400_000;
      const now = Date.now();
      // A worker whose clock is two days ahead would find an empty window.
      vi.useFakeTimers({ toFake: ['Date'], now: now + 2 * day });
      const refused = await hold(stores, options(2));
      vi.useRealTimers();
      expect(refused).toMatchObject({ kind: 'refused', settled: NANO });
      if (refused.kind === 'ok' || refused.kind === 'done') throw new Error(refused.kind);
      expect(refused.interval.startMs).toBeLessThanOrEqual(Date.now());
      expect(refused.interval.endMs).toBeGreaterThan(now);
    });
  });

  describe('shares of a task', () => {
    async function split() {
      const { payer, whole, options } = stage();
      const { taskId, tenantId } = whole;
      const own = { unit: 'usd', window: 'total', amount: NANO, hard: true, warnAt: 0.8 } as const;
      await stores.limits.set(tenantId, { kind: 'task', id: taskId }, [own], { by: 'test' });
      const shareOf = (name: string) => ({ ...whole, shareId: `${taskId}:${name}` });
      const on = async (name: string, n: string, nanoUsd: bigint) => {
        const of = shareOf(name);
        return options(n, nanoUsd, { payer: of, limits: await stores.limits.binding(of) });
      };
      return { payer, whole, on, shareOf, options };
    }

    it('bind what they are given to, and their siblings cannot take it', async () => {
      const { whole, on } = await split();
      const shares = ['a', 'b'].map((name) => ({ shareId: `${whole.taskId}:${name}`, nanoUsd: 5n * DIME }));
      expect(await stores.shares.delegate(whole, shares)).toEqual({ kind: 'delegated' });
      await held(stores, await on('a', 'a1', 4n * DIME));
      expect(await hold(stores, await on('a', 'a2', 2n * DIME))).toMatchObject({
        kind: 'crowded',
        limit: { scope: { kind: 'share' }, amount: 5n * DIME },
      });
      await held(stores, await on('b', 'b1', 5n * DIME));
    });

    it('are no more than what the task has left, and the same however often they are asked for', async () => {
      const { whole, on, options } = await split();
      const limits = await stores.limits.binding(whole);
      await settleOnce(stores, await sent(stores, options('s', 3n * DIME, { limits })), 2n * DIME);
      await sent(stores, options('h', DIME, { limits }));
      const share = (name: string, dimes: bigint) => ({
        shareId: `${whole.taskId}:${name}`,
        nanoUsd: dimes * DIME,
      });
      expect(await stores.shares.delegate(whole, [share('a', 4n), share('b', 4n)])).toEqual({
        kind: 'exceeded',
        left: { nanoUsd: 7n * DIME },
      });
      for (const _ of [1, 2])
        expect(await stores.shares.delegate(whole, [share('a', 4n)])).toEqual({ kind: 'delegated' });
      await settleOnce(stores, await sent(stores, await on('a', 'a1', 2n * DIME)), DIME);
      // Two dimes and one under way before, one by the share, three that the share may still take.
      expect(await stores.shares.delegate(whole, [share('c', 4n)])).toEqual({
        kind: 'exceeded',
        left: { nanoUsd: 3n * DIME },
      });
    });

    it('give back what they did not use, and hold nothing more', async () => {
      const { whole, on } = await split();
      const shareId = `${whole.taskId}:a`;
      await stores.shares.delegate(whole, [{ shareId, nanoUsd: NANO, tokens: 500n }]);
      await settleOnce(stores, await sent(stores, await on('a', 'a1', 3n * DIME)), 3n * DIME, 20);
      for (const _ of [1, 2])
        expect(await stores.shares.giveBack(whole, [shareId])).toEqual({ nanoUsd: 7n * DIME, tokens: 480n });
      expect((await hold(stores, await on('a', 'a2', 0n))).kind).toBe('refused');
      const next = [{ shareId: `${whole.taskId}:b`, nanoUsd: 7n * DIME }];
      expect(await stores.shares.delegate(whole, next)).toEqual({ kind: 'delegated' });
    });

    it('belong to their task by name', async () => {
      const { whole } = await split();
      const others = ['a', `${whole.taskId}:`, `${whole.taskId}:a b`, `${whole.taskId}:a:b`];
      for (const shareId of [...others, `other:${whole.taskId}:a`])
        expect(() => stores.shares.delegate(whole, [{ shareId, nanoUsd: 1n }])).toThrow(RangeError);
    });

    it('take nothing from a task whose id is the beginning of their own', async () => {
      const { whole } = await split();
      const inner = { ...whole, taskId: `${whole.taskId}:inner` };
      await stores.shares.delegate(inner, [{ shareId: `${inner.taskId}:a`, nanoUsd: NANO }]);
      const all = [{ shareId: `${whole.taskId}:a`, nanoUsd: NANO }];
      expect(await stores.shares.delegate(whole, all)).toEqual({ kind: 'delegated' });
    });

    it('are given by more tasks at once than there are connections', async () => {
      const tasks = await Promise.all(Array.from({ length: 12 }, () => split()));
      const given = tasks.map(({ whole }) =>
        stores.shares.delegate(whole, [{ shareId: `${whole.taskId}:a`, nanoUsd: NANO }]),
      );
      expect(await Promise.all(given)).toEqual(tasks.map(() => ({ kind: 'delegated' })));
    });
  });

  it('makes holds of its own store', async () => {
    const { options } = stage();
    const attempt = await held(stores, options(1));
    expect(attempt).toMatchObject({ ...draftOf(options(1)), mode: store });
    expect(await stores.gate.modeOf(attempt.payer.tenantId)).toBe(store);
  });
});
