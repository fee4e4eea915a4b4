// Orders of events in which a charge was once lost, doubled or invented, or a hold stayed for ever. Each has a name of its own.

import { expect, it } from 'vitest';
import type { CallDependencies } from '../../src/calls/call.ts';
import { CallAborted, createCalls } from '../../src/calls/govern.ts';
import { reap } from '../../src/calls/reaper.ts';
import { LlmError } from '../../src/llm/error.ts';
import type { LanguageModels } from '../../src/llm/language-model.ts';
import { budgetKeys } from '../../src/stores/keys.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { ALWAYS } from '../../src/task/window.ts';
import { beginTask, callDependencies, contextOf, requestOf, visitOnce } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels, type FakeStep } from '../support/fake-models.ts';
import { changeRecord, readCounters } from '../support/scope-counters.ts';
import { hardLimit, openTestStores, type TestStores } from '../support/stores.ts';

const USAGE = { ...NO_USAGE, inputTokens: 3, outputTokens: 2 };
const REPLY = { kind: 'reply', pieces: ['hello ', 'world'], usage: USAGE } as const;
const COST = 7_000n;
const DEAD = async () => 0;

function gateway<Result>() {
  let open: (value: Result) => void = () => undefined;
  const passed = new Promise<Result>((resolve) => {
    open = resolve;
  });
  return { open, passed };
}

async function ledgerOf(test: TestStores, taskId: string) {
  const rows = await test.stores.accounts.rows({ taskIds: [taskId] });
  return rows.map(({ kind, nanoUsd, billable }) => ({ kind, nanoUsd, billable }));
}

/** What Redis has as settled and held for the task, in nano-USD. */
async function countersOf(
  test: TestStores,
  taskId: string,
): Promise<{ settled: string | null; held: string | null }> {
  const { scope } = budgetKeys(test.prefix, 'tenant');
  const key = scope('task', taskId);
  const { 'all:usd:settled': settled = null, 'all:usd:held': held = null } = await readCounters(
    test.redis,
    key,
  );
  return { settled, held };
}

/** A worker that freezes in the middle of its request: it renews nothing and answers when it is thawed. */
function freezing(test: TestStores, step: FakeStep, then: readonly FakeStep[] = []) {
  const thaw = gateway<void>();
  const models = createFakeModels([{ ...step, until: thaw.passed }, ...then]);
  const dependencies = callDependencies(test, models, { leaseMs: 200, leaseRenewalMs: 600_000 });
  return { models, dependencies, thaw: () => thaw.open() };
}

async function inFlight(models: { inFlight(): number }): Promise<void> {
  await eventually(() => {
    if (models.inFlight() === 0) throw new Error('nothing was sent yet');
  });
}

it('estimates a sent attempt whose record came back from a snapshot as not sent', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a');
  const { models, dependencies } = freezing(test, { kind: 'hang' });
  const controller = new AbortController();
  const visit = createCalls(dependencies).visit(requestOf('a'), contextOf(controller, 'handover'));
  await inFlight(models);
  // As an older snapshot has it, read by another server process.
  const { holds, leases } = budgetKeys(test.prefix, 'tenant');
  const [attemptKey = ''] = await test.redis.command((client) => client.zrange(leases, '0', '-1'));
  await changeRecord(test.redis, holds, attemptKey, { sent: 'n', hydrated: '1:another-server' });
  await eventually(async () => {
    await reap(dependencies, DEAD);
    expect(await ledgerOf(test, 'a')).toMatchObject([{ kind: 'estimate' }]);
  });
  controller.abort(new Error('stop'));
  await expect(visit).rejects.toBeInstanceOf(CallAborted);
});

it('estimates a lost attempt at what its heartbeat told when its lease was not renewed in time', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a');
  const { models, dependencies } = freezing(test, { kind: 'hang' }, [REPLY]);
  const controller = new AbortController();
  const visit = createCalls(dependencies).visit(requestOf('a'), contextOf(controller, 'handover'));
  await inFlight(models);
  const next = { ...contextOf(), seenBefore: 40 };
  await createCalls(dependencies).visit(requestOf('a', { attempt: 2 }), next);
  const rows = await test.stores.accounts.rows({ taskIds: ['a'] });
  expect(rows.find((row) => row.kind === 'estimate')).toMatchObject({ inputTokens: 3n, outputTokens: 40n });
  controller.abort(new Error('stop'));
  await expect(visit).rejects.toBeInstanceOf(CallAborted);
});

it('books the difference of a frozen worker that wakes up given up by temporal and without postgres', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a');
  const { models, dependencies, thaw } = freezing(test, REPLY, [REPLY]);
  const controller = new AbortController();
  const { ledger } = test.stores;
  const failed = new Set<string>();
  const failOnce = (step: string) => {
    // Its first heartbeat tells it that somebody else has the call now.
    controller.abort(new Error('timed out'));
    if (failed.has(step)) return;
    failed.add(step);
    throw new RangeError(`postgres is away: ${step}`);
  };
  const frozen: CallDependencies = {
    ...dependencies,
    isOutage: (error) => error instanceof RangeError,
    ledger: {
      ...ledger,
      settle: async (...end) => {
        failOnce('settle');
        return ledger.settle(...end);
      },
    },
    gate: {
      ...dependencies.gate,
      scopeVersions: async (...scopes) => {
        failOnce('versions');
        return dependencies.gate.scopeVersions(...scopes);
      },
    },
  };
  const visit = createCalls(frozen).visit(requestOf('a'), contextOf(controller, 'handover'));
  await inFlight(models);
  expect(await visitOnce(dependencies, 'a', { attempt: 2 })).toMatchObject({ kind: 'completed' });
  thaw();
  await expect(visit).rejects.toBeInstanceOf(CallAborted);
  const rows = await ledgerOf(test, 'a');
  expect(rows.map((row) => row.kind).sort()).toEqual(['adjust', 'charge', 'estimate']);
  expect(rows.filter((row) => row.billable)).toHaveLength(1);
  expect(rows.reduce((sum, row) => sum + row.nanoUsd, 0n)).toBe(2n * COST);
});

it('sends nothing for a call that was answered while the worker was frozen between hold and intent', async () => {
  await using test = await openTestStores();
  await beginTask(test, 'a');
  const models = createFakeModels([REPLY]);
  const dependencies = callDependencies(test, models);
  const frozen = gateway<void>();
  const reached = gateway<void>();
  const zombie: CallDependencies = {
    ...dependencies,
    ledger: {
      ...dependencies.ledger,
      intent: async (...intent) => {
        reached.open();
        await frozen.passed;
        return dependencies.ledger.intent(...intent);
      },
    },
  };
  const first = visitOnce(zombie, 'a');
  await reached.passed;
  const second = await visitOnce(dependencies, 'a', { attempt: 2 });
  frozen.open();
  expect(await first).toEqual(second);
  expect(models.requests).toHaveLength(1);
  expect(await ledgerOf(test, 'a')).toEqual([{ kind: 'charge', nanoUsd: COST, billable: true }]);
});

it('releases a hold whose record was rebuilt between its taking and its voiding', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a', [hardLimit('usd', 10_000_000n)]);
  const dependencies = callDependencies(test, createFakeModels([REPLY]), { leaseMs: 200 });
  const dying = {
    ...dependencies,
    gate: { ...dependencies.gate, markSent: () => new Promise<boolean>(() => undefined) },
  };
  void visitOnce(dying, 'a');
  const [attempt] = await eventually(async () => {
    const started = await test.stores.ledger.startedOfTenant('tenant');
    if (started.length === 0) throw new Error('no intent yet');
    return started;
  });
  if (attempt === undefined) throw new Error('no attempt');
  await eventually(async () => expect((await test.stores.redisGate.take(attempt)).kind).toBe('taken'));
  const { scope } = budgetKeys(test.prefix, 'tenant');
  await test.redis.command((client) => client.del(scope('task', 'a')));
  await test.stores.hydrate({
    tenantId: 'tenant',
    scope: { kind: 'task', id: 'a' },
    intervals: [ALWAYS],
    generation: 1n,
  });
  expect(await countersOf(test, 'a')).toMatchObject({ held: attempt.estimate.nanoUsd.toString() });
  await eventually(async () => {
    await reap(dependencies, DEAD);
    expect(await countersOf(test, 'a')).toEqual({ settled: '0', held: '0' });
  });
  expect(await ledgerOf(test, 'a')).toMatchObject([{ kind: 'void', nanoUsd: 0n }]);
});

it('voids a row whose hold was taken when whoever took it died before it said so', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a');
  const dependencies = callDependencies(test, createFakeModels([REPLY]), { leaseMs: 200 });
  const dying = {
    ...dependencies,
    gate: { ...dependencies.gate, markSent: () => new Promise<boolean>(() => undefined) },
  };
  void visitOnce(dying, 'a');
  const attempt = await eventually(async () => {
    const [started] = await test.stores.ledger.startedOfTenant('tenant');
    if (started === undefined) throw new Error('no intent yet');
    return started;
  });
  await eventually(async () => expect((await test.stores.redisGate.take(attempt)).kind).toBe('taken'));
  await eventually(async () => {
    await reap(dependencies, DEAD);
    expect(await ledgerOf(test, 'a')).toMatchObject([{ kind: 'void', nanoUsd: 0n }]);
  });
});

it('counts a late difference once when the estimate was committed and not released yet', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a', [hardLimit('usd', 10_000_000n)]);
  const { models, dependencies, thaw } = freezing(test, REPLY);
  const first = visitOnce(dependencies, 'a');
  await inFlight(models);
  const dying = {
    ...dependencies,
    gate: { ...dependencies.gate, release: () => Promise.reject(new Error('killed')) },
  };
  await eventually(async () => {
    await reap(dying, DEAD);
    expect(await ledgerOf(test, 'a')).toMatchObject([{ kind: 'estimate' }]);
  });
  thaw();
  await expect(first).rejects.toMatchObject({ by: 'fenced' });
  await eventually(async () => {
    await reap(dependencies, DEAD);
    expect(await countersOf(test, 'a')).toEqual({ settled: COST.toString(), held: '0' });
  });
});

it('books back an estimate of an attempt that turns out never to have left', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a', [hardLimit('usd', 10_000_000n)]);
  const { models, dependencies, thaw } = freezing(test, {
    kind: 'error',
    error: { kind: 'connection', stage: 'unsent' },
  });
  const first = visitOnce(dependencies, 'a');
  await inFlight(models);
  await eventually(async () => {
    await reap(dependencies, DEAD);
    expect(await ledgerOf(test, 'a')).toMatchObject([{ kind: 'estimate' }]);
  });
  thaw();
  await expect(first).rejects.toMatchObject({ by: 'fenced' });
  expect((await test.stores.accounts.settled('tenant', { kind: 'task', id: 'a' })).nanoUsd).toBe(0n);
  expect(await countersOf(test, 'a')).toEqual({ settled: '0', held: '0' });
});

it('charges nothing when a cancel comes before the request was written', async () => {
  await using test = await openTestStores();
  await beginTask(test, 'a');
  const controller = new AbortController();
  const models: LanguageModels = {
    has: () => true,
    async stream() {
      controller.abort(new Error('the user left'));
      throw new LlmError('aborted while connecting', { kind: 'aborted', stage: 'unsent' });
    },
  };
  const visit = createCalls(callDependencies(test, models)).visit(requestOf('a'), contextOf(controller));
  await expect(visit).rejects.toMatchObject({ by: 'cancelled' });
  expect(await ledgerOf(test, 'a')).toMatchObject([{ kind: 'void', nanoUsd: 0n }]);
});

it('voids an attempt whose mark was not answered: only this process could have sent it', async () => {
  await using test = await openTestStores();
  await beginTask(test, 'a');
  const models = createFakeModels([REPLY]);
  const dependencies = callDependencies(test, models);
  const lossy: CallDependencies = {
    ...dependencies,
    gate: {
      ...dependencies.gate,
      markSent: async (...mark) => {
        await dependencies.gate.markSent(...mark);
        throw new Error('the answer was lost');
      },
    },
  };
  await expect(visitOnce(lossy, 'a')).rejects.toThrow('the answer was lost');
  await visitOnce(dependencies, 'a', { attempt: 2 });
  expect(models.requests).toHaveLength(1);
  expect(await ledgerOf(test, 'a')).toEqual([
    { kind: 'void', nanoUsd: 0n, billable: false },
    { kind: 'charge', nanoUsd: COST, billable: true },
  ]);
});

it('reaps the others when one attempt cannot be resolved, and books one of an unknown model at its hold', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  for (const taskId of ['a', 'b']) await beginTask(test, taskId);
  const models = createFakeModels(() => ({ kind: 'hang' }));
  const dependencies = callDependencies(test, models, { leaseMs: 200, leaseRenewalMs: 600_000 });
  const controller = new AbortController();
  const visits = ['a', 'b'].map((taskId) =>
    createCalls(dependencies)
      .visit(requestOf(taskId), contextOf(controller, 'handover'))
      .catch(() => undefined),
  );
  await eventually(() => expect(models.inFlight()).toBe(2));
  const elsewhere: CallDependencies = {
    ...dependencies,
    catalog: { ...dependencies.catalog, modelOf: () => undefined },
    messagesOf: ({ taskId }) =>
      taskId === 'a' ? Promise.reject(new Error('not readable')) : Promise.resolve(undefined),
  };
  await eventually(async () => {
    await reap(elsewhere, DEAD);
    expect(await ledgerOf(test, 'b')).toMatchObject([{ kind: 'estimate' }]);
  });
  expect(await ledgerOf(test, 'a')).toEqual([]);
  controller.abort(new Error('stop'));
  await Promise.all(visits);
});

it('forgets the counters of an adjustment that never reached Redis, so that they are rebuilt', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a', [hardLimit('usd', 10_000_000n)]);
  const { models, dependencies, thaw } = freezing(test, REPLY);
  const dying = {
    ...dependencies,
    gate: { ...dependencies.gate, adjust: () => Promise.reject(new Error('killed')) },
  };
  const first = visitOnce(dying, 'a');
  await inFlight(models);
  await eventually(async () => {
    await reap(dependencies, DEAD);
    expect(await ledgerOf(test, 'a')).toMatchObject([{ kind: 'estimate' }]);
  });
  thaw();
  await expect(first).rejects.toThrow('killed');
  // Old enough for the reaper to take it up.
  await test.postgres.query(
    "update ledger set created_at = created_at - interval '10 seconds' where kind = 'adjust'",
  );
  await reap(dependencies, DEAD);
  await test.stores.hydrate({
    tenantId: 'tenant',
    scope: { kind: 'task', id: 'a' },
    intervals: [ALWAYS],
    generation: 1n,
  });
  expect(await countersOf(test, 'a')).toEqual({ settled: COST.toString(), held: '0' });
});

it('books back the estimate of an attempt whose worker was frozen before its mark and finds its hold gone', async () => {
  await using test = await openTestStores({ leaseMs: 200 });
  await beginTask(test, 'a', [hardLimit('usd', 10_000_000n)]);
  const models = createFakeModels([REPLY]);
  const dependencies = callDependencies(test, models, { leaseMs: 200 });
  const frozen = gateway<void>();
  const reached = gateway<void>();
  const zombie: CallDependencies = {
    ...dependencies,
    gate: {
      ...dependencies.gate,
      markSent: async (attempt) => {
        reached.open();
        await frozen.passed;
        return dependencies.gate.markSent(attempt);
      },
    },
  };
  const visit = visitOnce(zombie, 'a');
  await reached.passed;
  // Redis is emptied: nobody knows any more whether the attempt was marked.
  const keys = await test.redis.command((client) => client.keys(`${test.prefix}:*`));
  await test.redis.command((client) => client.del(keys));
  await eventually(async () => {
    await reap(dependencies, DEAD);
    expect(await ledgerOf(test, 'a')).toMatchObject([{ kind: 'estimate' }]);
  });
  frozen.open();
  expect(await visit).toMatchObject({ kind: 'completed' });
  expect(models.requests).toHaveLength(1);
  expect((await ledgerOf(test, 'a')).reduce((sum, row) => sum + row.nanoUsd, 0n)).toBe(COST);
  expect(await countersOf(test, 'a')).toEqual({ settled: COST.toString(), held: '0' });
});
