// What the model test found, each as one order of steps that is written down: seeds lose their meaning when the scheduler changes.

import { expect, it } from 'vitest';
import type { CallDependencies } from '../../src/calls/call.ts';
import { CallAborted } from '../../src/calls/govern.ts';
import { resolveAttempt } from '../../src/calls/recover.ts';
import { budgetKeys } from '../../src/stores/keys.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { ALWAYS } from '../../src/task/window.ts';
import { beginTask, callDependencies, visitOnce } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { readCounters } from '../support/scope-counters.ts';
import { hardLimit, openTestStores, type TestStores } from '../support/stores.ts';

const REPLY = {
  kind: 'reply',
  pieces: ['hello ', 'world'],
  usage: { ...NO_USAGE, inputTokens: 3, outputTokens: 2 },
} as const;
const COST = 7_000n;
const LEASE_MS = 300;

/** Over all rows of the task. */
async function bookedOf(test: TestStores, taskId: string): Promise<bigint> {
  const rows = await test.stores.accounts.rows({ taskIds: [taskId] });
  return rows.reduce((sum, { nanoUsd }) => sum + nanoUsd, 0n);
}

async function startedOf(test: TestStores) {
  return eventually(async () => {
    const [attempt] = await test.stores.ledger.startedOfTenant('tenant');
    if (attempt === undefined) throw new Error('no attempt was started yet');
    return attempt;
  });
}

it('sends nothing for an attempt that stood still between its mark and its request until others gave it up', async () => {
  await using test = await openTestStores({ leaseMs: LEASE_MS });
  await beginTask(test, 'a');
  const models = createFakeModels([REPLY]);
  const dependencies = callDependencies(test, models, { leaseMs: LEASE_MS });
  const thaw = Promise.withResolvers<void>();
  const marked = Promise.withResolvers<void>();
  const slow: CallDependencies = {
    ...dependencies,
    gate: {
      ...dependencies.gate,
      markSent: async (attempt) => {
        const isMarked = await dependencies.gate.markSent(attempt);
        marked.resolve();
        await thaw.promise;
        return isMarked;
      },
    },
  };
  const first = expect(visitOnce(slow, 'a')).rejects.toBeInstanceOf(CallAborted);
  await marked.promise;
  // Whoever comes next waits for the lease, books an estimate, and sends the call.
  const second = await visitOnce(
    { ...dependencies, settings: { ...dependencies.settings, leaseMs: 60_000 } },
    'a',
    { attempt: 2 },
  );
  thaw.resolve();
  await first;
  expect(second.kind).toBe('completed');
  expect(models.requests).toHaveLength(1);
  // What was booked for the request that never was is taken back.
  expect(await bookedOf(test, 'a')).toBe(COST);
});

it('counts what is booked for an attempt of which neither its worker nor its counter knew', async () => {
  await using test = await openTestStores({ leaseMs: LEASE_MS });
  await beginTask(test, 'a', [hardLimit('usd', 10_000_000n)]);
  const dependencies = callDependencies(test, createFakeModels([REPLY]), { leaseMs: LEASE_MS });
  const { intent } = dependencies.ledger;
  const keys = budgetKeys(test.prefix, 'tenant');
  const hydrated = {
    tenantId: 'tenant',
    scope: { kind: 'task', id: 'a' },
    intervals: [ALWAYS],
    generation: 1n,
  } as const;
  const dying: CallDependencies = {
    ...dependencies,
    ledger: {
      ...dependencies.ledger,
      intent: async (...args) => {
        // Between hold and intent Redis loses everything, and the counter is rebuilt without the attempt.
        const scope = keys.scope('task', 'a');
        await test.redis.command((client) => client.del(keys.holds, keys.leases, scope));
        await test.stores.hydrate(hydrated);
        return intent(...args);
      },
    },
    gate: { ...dependencies.gate, markSent: () => new Promise<boolean>(() => undefined) },
  };
  void visitOnce(dying, 'a');
  const attempt = await startedOf(test);
  await eventually(async () => {
    const leftMs = await resolveAttempt(dependencies, attempt, { task: undefined, seenBefore: 0 });
    expect(leftMs).toBe(0);
  });
  // Whatever was booked, nobody who is held from now on is held against less.
  await test.stores.hydrate(hydrated);
  const counters = await readCounters(test.redis, keys.scope('task', 'a'));
  expect(counters['all:usd:settled']).toBe((await bookedOf(test, 'a')).toString());
  expect(await bookedOf(test, 'a')).toBeGreaterThan(0n);
});
