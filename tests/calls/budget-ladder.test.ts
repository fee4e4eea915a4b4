// A call near and beyond its limits, on real stores: warned once, slowed down once, counted before it is refused, and then what the task
// asked for.

import { describe, expect, it } from 'vitest';
import type { CallDependencies } from '../../src/calls/call.ts';
import { estimateCall, estimateExactly } from '../../src/calls/estimate.ts';
import { createSpendBreaker } from '../../src/calls/spend-breaker.ts';
import type { Limit } from '../../src/task/budget.ts';
import type { CallOutcome } from '../../src/task/decision.ts';
import type { BudgetExceededDetails } from '../../src/task/failure.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import {
  beginTask,
  callDependencies,
  MODEL,
  PRICE,
  requestOf,
  type VisitOptions,
  visitOnce,
} from '../support/calls.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { NANO } from '../support/holds.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const BACKPRESSURE = {
  threshold: 0.8,
  maxDelayMs: 5_000,
  table: [
    { at: 0.8, ms: 20 },
    { at: 0.9, ms: 750 },
  ],
};

const RATE_WAIT = { kind: 'wait', ms: 9_000, dimension: 'rpm', bucket: 'provider', isBooked: false } as const;

function models(words = 'an answer') {
  return createFakeModels(() => ({
    kind: 'reply',
    pieces: [words],
    usage: { ...NO_USAGE, inputTokens: 3, outputTokens: 2 },
  }));
}

function limit(amount: bigint, more: Partial<Limit> = {}): Limit {
  return { unit: 'usd', window: 'total', amount, hard: true, warnAt: 0.8, ...more };
}

/** A task under these limits of its own, and one visit of its call. */
async function stage(
  test: TestStores,
  limits: readonly Limit[],
  settings = {},
  more: Partial<CallDependencies> = {},
) {
  const fake = models();
  const dependencies = { ...callDependencies(test, fake, settings), ...more };
  await beginTask(test, 'a', limits);
  const visit = (options: VisitOptions = {}) => visitOnce(dependencies, 'a', options);
  return { fake, dependencies, visit };
}

/** What the call of the stage is held at: by bytes, and when it is counted. */
async function estimates(test: TestStores): Promise<{ bytes: bigint; counted: bigint; tokens: bigint }> {
  const dependencies = callDependencies(test, models());
  const bytes = estimateCall(dependencies, requestOf('a'), Date.now());
  const counted = await estimateExactly(dependencies, requestOf('a'), Date.now());
  if (bytes === undefined || counted === undefined) throw new Error('no price');
  return { bytes: bytes.nanoUsd, counted: counted.nanoUsd, tokens: BigInt(counted.tokens) };
}

async function eventsOf(test: TestStores, type: string): Promise<readonly Record<string, unknown>[]> {
  const { rows } = await test.postgres.query<{ body: { data: Record<string, unknown> } }>(
    'select body from events where type = $1 order by ordinal',
    [type],
  );
  return rows.map(({ body }) => body.data);
}

function failureOf(outcome: CallOutcome): BudgetExceededDetails {
  if (!('failure' in outcome) || outcome.failure.type !== 'BudgetExceeded') throw new Error(outcome.kind);
  return outcome.failure;
}

describe('a call near its limit', () => {
  it('warns once for a limit and window, with the task that passed the mark', async () => {
    await using test = await openTestStores();
    const { bytes } = await estimates(test);
    const { visit, dependencies } = await stage(test, [limit(bytes * 10n)]);
    await test.stores.limits.set(
      'tenant',
      { kind: 'user', id: 'user' },
      [limit(bytes + 1n, { hard: false })],
      { by: 'test' },
    );
    expect((await visit()).kind).toBe('completed');
    await beginTask(test, 'b', []);
    expect((await visitOnce(dependencies, 'b')).kind).toBe('completed');
    const events = await eventsOf(test, 'budget_threshold');
    expect(events).toMatchObject([{ scope: 'user', id: 'user', unit: 'usd', window: 'total', hard: false }]);
  });

  it('warns again in the next window and for a changed amount', async () => {
    await using test = await openTestStores();
    const { bytes } = await estimates(test);
    const { visit, dependencies } = await stage(test, []);
    const user = { kind: 'user', id: 'user' } as const;
    await test.stores.limits.set('tenant', user, [limit(bytes, { hard: false, window: 'day' })], {
      by: 'test',
    });
    await visit();
    await test.stores.limits.set('tenant', user, [limit(bytes + 5n, { hard: false, window: 'day' })], {
      by: 'test',
    });
    for (const id of ['b', 'c']) {
      await beginTask(test, id, []);
      await visitOnce(dependencies, id);
    }
    expect(await eventsOf(test, 'budget_threshold')).toHaveLength(2);
  });

  it('spends a short delay inside and answers a longer one, holding nothing meanwhile', async () => {
    await using test = await openTestStores();
    const { bytes } = await estimates(test);
    const pauses: number[] = [];
    const pause = (ms: number) => {
      pauses.push(ms);
      return Promise.resolve();
    };
    const { visit, fake } = await stage(
      test,
      [limit((bytes * 100n) / 85n)],
      { backpressure: BACKPRESSURE },
      { pause },
    );
    expect(await visit()).toMatchObject({ kind: 'completed', pressure: 'high' });
    expect(pauses).toEqual([20]);

    const slow = await stage(await Promise.resolve(test), [], { backpressure: BACKPRESSURE }, { pause });
    await beginTask(test, 'slow', [limit((bytes * 100n) / 95n)]);
    const outcome = await visitOnce(slow.dependencies, 'slow');
    expect(outcome).toMatchObject({
      kind: 'wait',
      reason: 'backpressure',
      ms: 750,
      limit: 'back-pressure of task slow',
    });
    expect(slow.fake.requests).toHaveLength(0);
    expect(fake.requests).toHaveLength(1);
    const [use] = await usesOf(test, 'slow', bytes * 2n);
    expect(use?.held).toBe(0n);
    // Served once: the next visit goes on.
    expect((await visitOnce(slow.dependencies, 'slow', { visit: 2, backpressureMs: 750 })).kind).toBe(
      'completed',
    );
  });

  it('tells a wait for a slot that the delay was spent, so that the next visit does not serve it again', async () => {
    await using test = await openTestStores();
    const { bytes } = await estimates(test);
    const rates = { ...test.stores.rates, admit: async () => RATE_WAIT };
    const { visit } = await stage(
      test,
      [limit((bytes * 100n) / 85n)],
      { backpressure: BACKPRESSURE },
      { pause: () => Promise.resolve(), rates },
    );
    expect(await visit()).toMatchObject({ kind: 'wait', reason: 'rate', slowedMs: 20 });
    const second = await visit({ visit: 2, backpressureMs: 20 });
    expect(second).toMatchObject({ kind: 'wait', reason: 'rate' });
    expect(second).not.toHaveProperty('slowedMs');
  });

  it('slows down on a soft limit that is passed, and refuses nobody', async () => {
    await using test = await openTestStores();
    const { visit } = await stage(test, [limit(1n, { hard: false })], { backpressure: BACKPRESSURE });
    expect(await visit()).toMatchObject({ kind: 'wait', reason: 'backpressure', ms: 5_000 });
    expect(await visit({ visit: 2, backpressureMs: 5_000 })).toMatchObject({
      kind: 'completed',
      pressure: 'critical',
    });
  });
});

/** The counters of a task's own limit, seen through a hold that is given back. */
async function usesOf(test: TestStores, taskId: string, amount: bigint) {
  const { attemptKey, callKey } = {
    attemptKey: `${taskId}:probe:x:1#0.1.1.0`,
    callKey: `${taskId}:probe:x:1`,
  };
  const payer = { tenantId: 'tenant', userId: 'user', taskId };
  const held = await test.stores.gate.hold(
    {
      ...{ attemptKey, callKey, payer, stepId: 'x', provider: 'simulated', model: MODEL, candidate: 0 },
      ...{ owner: 'process test', priceHash: 'hash' },
      estimate: { nanoUsd: 0n, tokens: 0, inputTokens: 0, maxOutputTokens: 1 },
    },
    [{ ...limit(amount), scope: { kind: 'task', id: taskId } }],
  );
  if (held.kind !== 'ok') throw new Error(held.kind);
  await test.stores.gate.undo(held.attempt);
  return held.uses;
}

describe('a call that does not fit', () => {
  it('is counted before it is refused: bytes are only a first bound', async () => {
    await using test = await openTestStores();
    const { bytes, counted } = await estimates(test);
    expect(counted).toBeLessThan(bytes);
    const { visit } = await stage(test, [limit(counted)]);
    expect((await visit()).kind).toBe('completed');
    const { rows } = await test.postgres.query<{ estimate: bigint }>(
      'select estimate_nano_usd as estimate from attempts',
    );
    expect(rows).toEqual([{ estimate: counted }]);
  });

  it('is refused one nano-dollar below what it is counted at, and tells what it needed', async () => {
    await using test = await openTestStores();
    const { counted } = await estimates(test);
    const { visit, fake } = await stage(test, [limit(counted - 1n)]);
    const failure = failureOf(await visit());
    expect(failure).toMatchObject({ scope: 'task', id: 'a', settled: '0.00', held: '0.00' });
    expect(failure.resetsAt).toBeUndefined();
    expect(fake.requests).toHaveLength(0);
    const last = await test.stores.limits.lastRefusal('tenant', { kind: 'task', id: 'a' });
    expect(last?.details).toEqual(failure);
  });

  it('is sent with the output that still fits when the task asked for that', async () => {
    await using test = await openTestStores();
    const { counted } = await estimates(test);
    // Two thousand nano-USD an output token: seven tokens less.
    const { visit, fake } = await stage(test, [limit(counted - 14_000n)]);
    expect(await visit({ onExceeded: 'clamp' })).toMatchObject({ kind: 'completed', clampedTo: 93 });
    expect(fake.requests.map(({ maxOutputTokens }) => maxOutputTokens)).toEqual([93]);
  });

  it('is clamped by a limit in tokens and one in USD alike', async () => {
    await using test = await openTestStores();
    const { counted, tokens } = await estimates(test);
    const { visit, fake } = await stage(test, [
      limit(counted - 14_000n),
      limit(tokens - 20n, { unit: 'tokens' }),
    ]);
    const outcome = await visit({ onExceeded: 'clamp' });
    expect(outcome).toMatchObject({ kind: 'completed', clampedTo: 80 });
    expect(fake.requests.map(({ maxOutputTokens }) => maxOutputTokens)).toEqual([80]);
    const { rows } = await test.postgres.query<{ tokens: bigint }>(
      'select estimate_tokens as tokens from attempts',
    );
    expect(rows[0]?.tokens).toBe(tokens - 20n);
  });

  it('is refused when not even one token of output fits', async () => {
    await using test = await openTestStores();
    const { visit } = await stage(test, [limit(1n)]);
    expect((await visit({ onExceeded: 'clamp' })).kind).toBe('refuse');
  });

  it('waits until its window turns when the task asked for that, and is refused on all time', async () => {
    await using test = await openTestStores();
    const { visit } = await stage(test, [limit(1n, { window: 'hour' })]);
    const outcome = await visit({ onExceeded: 'wait' });
    if (outcome.kind !== 'budget_wait') throw new Error(outcome.kind);
    const turnsAt = Date.parse(outcome.failure.resetsAt ?? '');
    expect(turnsAt % 3_600_000).toBe(0);
    expect(Date.now() + outcome.ms).toBeGreaterThanOrEqual(turnsAt - 1_000);
    expect(outcome.ms).toBeLessThanOrEqual(3_601_000);
    await test.stores.limits.set('tenant', { kind: 'user', id: 'user' }, [limit(1n)], { by: 'test' });
    // The limit that never turns is the one that is told.
    expect(await visit({ onExceeded: 'wait', visit: 2 })).toMatchObject({
      kind: 'refuse',
      failure: { scope: 'user' },
    });
  });

  it('asks or degrades when the task asked for that', async () => {
    await using test = await openTestStores();
    const { visit } = await stage(test, [limit(1n)]);
    expect(await visit({ onExceeded: 'ask' })).toMatchObject({ kind: 'ask', failure: { scope: 'task' } });
    expect(await visit({ onExceeded: 'degrade', visit: 2 })).toMatchObject({
      kind: 'degrade',
      failure: { scope: 'task' },
    });
  });

  it('goes on with what a grant adds to the limit, for its own task alone', async () => {
    await using test = await openTestStores();
    const { counted } = await estimates(test);
    const { visit, dependencies } = await stage(test, []);
    await beginTask(test, 'b', []);
    await test.stores.limits.set('tenant', { kind: 'user', id: 'user' }, [limit(counted - 1n)], {
      by: 'test',
    });
    await test.postgres.query(
      `insert into budget_grants (tenant_id, task_id, scope, scope_id, unit, limit_window, approval_id, amount)
       values ('tenant', 'a', 'user', 'user', 'usd', 'total', 'one', 1)`,
    );
    expect((await visitOnce(dependencies, 'b')).kind).toBe('refuse');
    expect((await visit()).kind).toBe('completed');
  });
});

describe('a call that only the holds of others stand in the way of', () => {
  it('waits for them, and takes what the task asked for once that took too long', async () => {
    await using test = await openTestStores();
    const { counted } = await estimates(test);
    const { visit, fake } = await stage(test, [limit(counted + counted / 2n)]);
    const held = await test.stores.gate.hold(
      {
        ...{ attemptKey: 'a:run:other:1#0.1.1.0', callKey: 'a:run:other:1' },
        ...{
          payer: { tenantId: 'tenant', userId: 'user', taskId: 'a' },
          stepId: 'other',
          provider: 'simulated',
        },
        ...{ model: MODEL, candidate: 0, owner: 'process test', priceHash: 'hash' },
        estimate: { nanoUsd: counted, tokens: 1, inputTokens: 1, maxOutputTokens: 1 },
      },
      [{ ...limit(counted * 2n), scope: { kind: 'task', id: 'a' } }],
    );
    expect(held.kind).toBe('ok');
    expect(await visit({ onExceeded: 'clamp' })).toMatchObject({ kind: 'held', limit: 'budget of task a' });
    expect(await visit({ visit: 2, heldWaitOver: true })).toMatchObject({ kind: 'refuse' });
    const outcome = await visit({ visit: 3, heldWaitOver: true, onExceeded: 'clamp' });
    expect(outcome.kind).toBe('completed');
    expect(fake.requests[0]?.maxOutputTokens).toBeLessThan(100);
  });
});

describe('a payer that is refused again and again', () => {
  it('is refused without the stores, until a limit changes', async () => {
    await using test = await openTestStores();
    const { counted } = await estimates(test);
    const spendBreaker = createSpendBreaker({
      enabled: true,
      intervalMs: 60_000,
      timeoutMs: 60_000,
      failureThreshold: 2,
    });
    let asked = 0;
    const { visit, dependencies } = await stage(test, [limit(NANO)], {}, { spendBreaker });
    const counting = {
      ...dependencies,
      limits: {
        ...dependencies.limits,
        binding: (payer: Parameters<typeof dependencies.limits.binding>[0]) => {
          asked += 1;
          return dependencies.limits.binding(payer);
        },
      },
    };
    await test.stores.limits.set('tenant', { kind: 'user', id: 'user' }, [limit(counted - 1n)], {
      by: 'test',
    });
    for (const n of [1, 2]) expect((await visit({ visit: n })).kind).toBe('refuse');
    const early = await visitOnce(counting, 'a', { visit: 3 });
    expect(early).toMatchObject({ kind: 'refuse', failure: { scope: 'user', id: 'user' } });
    expect(asked).toBe(0);
    spendBreaker.forget('tenant');
    await test.stores.limits.set('tenant', { kind: 'user', id: 'user' }, [limit(counted)], { by: 'test' });
    expect((await visitOnce(counting, 'a', { visit: 4 })).kind).toBe('completed');
    expect(asked).toBe(1);
  });
});

describe('the first calls of a user whom nobody knows', () => {
  it('admit at most one of eight at once under a default limit of one nano-dollar', async () => {
    const user = [limit(1n)];
    await using test = await openTestStores({ defaultLimits: { tenant: [], user, session: [], task: [] } });
    // A call of this model is held at one nano-dollar, and costs as much.
    const cheap = {
      ...PRICE,
      input: 0n,
      cachedInput: 0n,
      cacheWrite5m: 0n,
      cacheWrite1h: 0n,
      output: 10_000n,
    };
    const fake = models();
    const base = callDependencies(test, fake);
    const dependencies = {
      ...base,
      catalog: { ...base.catalog, modelOf: () => ({ maxOutputTokens: 1_000, prices: [cheap] }) },
    };
    const ids = ['1', '2', '3', '4', '5', '6', '7', '8'];
    await Promise.all(ids.map((id) => beginTask(test, id)));
    const outcomes = await Promise.all(ids.map((id) => visitOnce(dependencies, id)));
    const kinds = outcomes.map(({ kind }) => kind).toSorted();
    expect(fake.requests).toHaveLength(1);
    expect(kinds.filter((kind) => kind === 'completed')).toHaveLength(1);
    expect(kinds.every((kind) => ['completed', 'held', 'refuse'].includes(kind))).toBe(true);
    const again = await Promise.all(ids.slice(0, 4).map((id) => visitOnce(dependencies, id, { visit: 2 })));
    expect(fake.requests).toHaveLength(1);
    expect(again.filter(({ kind }) => kind === 'completed').length).toBeLessThanOrEqual(1);
    const settled = await test.stores.accounts.settled('tenant', { kind: 'user', id: 'user' });
    expect(settled.nanoUsd).toBe(1n);
  });

  it('refuses the first call on a limit of zero, on every scope', async () => {
    await using test = await openTestStores();
    const { visit, fake } = await stage(test, []);
    for (const kind of ['tenant', 'user', 'session', 'task'] as const) {
      const scope = { kind, id: { tenant: 'tenant', user: 'user', session: 's', task: 'a' }[kind] };
      await test.stores.limits.set('tenant', scope, [limit(0n, { window: 'month' })], { by: 'test' });
      expect(await visit({ sessionId: 's' })).toMatchObject({ kind: 'refuse', failure: { scope: kind } });
      await test.stores.limits.set('tenant', scope, [], { by: 'test' });
    }
    expect(fake.requests).toHaveLength(0);
  });
});
