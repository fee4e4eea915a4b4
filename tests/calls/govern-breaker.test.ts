// Governed calls of four workers before a provider that fails: what a breaker keeps them from, and that it costs nobody anything.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { CallDependencies } from '../../src/calls/call.ts';
import { AttemptFailed } from '../../src/calls/govern.ts';
import type { LlmErrorFields } from '../../src/llm/error.ts';
import { budgetKeys } from '../../src/stores/keys.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { beginTask, callDependencies, MODEL, visitOnce } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels, type FakeModels, type FakeStep } from '../support/fake-models.ts';
import { connectAgain, hardLimit, openTestStores, type TestStores } from '../support/stores.ts';
import { at, expire, FAULT, keyOf, openFleet, openIt, THROTTLED } from './breaker-fleet.ts';

const USAGE = { ...NO_USAGE, inputTokens: 3, outputTokens: 2 };
const REPLY: FakeStep = { kind: 'reply', pieces: ['hello ', 'world'], usage: USAGE };
/** A throttled provider is cooled for all: here every call is to reach it. */
const UNPACED = { rateControl: false };
const LIMIT = hardLimit('usd', 10_000_000n);

let test: TestStores;
let ids = 0;

beforeAll(async () => {
  test = await openTestStores();
});
afterAll(async () => {
  await test?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  const key = keyOf(test);
  await test.redis.command((client) => client.del(key, `${key}:counts`, `${key}:probes`));
});

const failing = (error: LlmErrorFields): FakeStep => ({ kind: 'error', error });

/** Four workers with breakers of their own on one Redis, all before the same provider. */
async function openWorkers(script: (index: number) => FakeStep) {
  const connections: AsyncDisposable[] = [];
  const connect = async () => {
    const connection = await connectAgain(test);
    connections.push(connection);
    return connection.redis;
  };
  const fleet = await openFleet({ redis: test.redis, prefix: test.prefix, connect }, 4);
  const models = createFakeModels((_, index) => script(index));
  const workers: CallDependencies[] = fleet.processes.map((process) => ({
    ...callDependencies(test, models, UNPACED),
    breakerOf: process.models.of,
  }));
  return {
    models,
    processes: fleet.processes,
    /** The next call, at the next worker. */
    async call(): Promise<{ taskId: string; outcome: unknown }> {
      const taskId = `task-${++ids}`;
      await beginTask(test, taskId, [LIMIT]);
      const worker = workers[ids % workers.length];
      if (worker === undefined) throw new Error('there is no worker');
      const outcome = await visitOnce(worker, taskId).catch((error: unknown) => error);
      await Promise.all(fleet.processes.map((process) => process.models.settled()));
      return { taskId, outcome };
    },
    async [Symbol.asyncDispose]() {
      await fleet[Symbol.asyncDispose]();
      for (const connection of connections) await connection[Symbol.asyncDispose]();
    },
  };
}

async function callTimes(times: number, call: () => Promise<{ taskId: string; outcome: unknown }>) {
  const made = [];
  for (let n = 0; n < times; n += 1) made.push(await call());
  return made;
}

const isRefused = (outcome: unknown) =>
  typeof outcome === 'object' && outcome !== null && Reflect.get(outcome, 'reason') === 'breaker_open';

/** Holds of the test's tenant that are left, wherever they are. */
async function holdsLeft(): Promise<number> {
  const { holds, leases } = budgetKeys(test.prefix, 'tenant');
  const [records, lives] = await test.redis.command((client) =>
    Promise.all([client.exists(holds), client.exists(leases)]),
  );
  return records + lives + (await test.stores.ledger.openHolds()).count;
}

describe('a provider that answers every other request with 503', () => {
  it('is left alone within twenty calls of four workers; refused calls hold nothing and cost nothing', async () => {
    await using stage = await openWorkers((index) => (index % 2 === 0 ? failing(FAULT) : REPLY));
    const made = await callTimes(30, stage.call);
    const first = made.findIndex(({ outcome }) => isRefused(outcome));
    expect(first).toBeGreaterThanOrEqual(5);
    expect(first).toBeLessThan(20);
    const refused = made.slice(first);
    for (const { outcome } of refused)
      expect(outcome).toMatchObject({ kind: 'unavailable', model: MODEL, retryAfterMs: expect.any(Number) });
    expect(stage.models.requests).toHaveLength(first);
    const rows = await test.stores.accounts.rows({ taskIds: refused.map(({ taskId }) => taskId) });
    expect(rows).toEqual([]);
    const { rows: attempts } = await test.postgres.query(
      'select attempt_key from attempts where task_id = any($1)',
      [refused.map(({ taskId }) => taskId)],
    );
    expect(attempts).toEqual([]);
    expect(await holdsLeft()).toBe(0);
  });

  it('is called once by the whole fleet when its time is over, and by all once that was answered', async () => {
    let isBack = false;
    await using stage = await openWorkers(() => (isBack ? REPLY : failing(FAULT)));
    const { processes, models } = stage;
    await openIt(processes);
    await expire(test, processes);
    isBack = true;
    const gate = Promise.withResolvers<void>();
    let answered = 0;
    const probing: FakeModels = createFakeModels(() => ({ ...REPLY, until: gate.promise }));
    const tries = processes.map(async (process, index) => {
      const taskId = `probe-${++ids}-${index}`;
      await beginTask(test, taskId, [LIMIT]);
      const dependencies = { ...callDependencies(test, probing, UNPACED), breakerOf: process.models.of };
      const outcome = await visitOnce(dependencies, taskId);
      answered += 1;
      return outcome;
    });
    await eventually(() => expect(probing.inFlight()).toBe(1));
    // Those that may not try have their answer while the one that may is still under way.
    await eventually(() => expect(answered).toBe(3));
    gate.resolve();
    const outcomes = await Promise.all(tries);
    expect(outcomes.filter(isRefused)).toHaveLength(3);
    expect(outcomes.filter(({ kind }) => kind === 'completed')).toHaveLength(1);
    expect(probing.requests).toHaveLength(1);
    await eventually(() => {
      for (const { breaker } of processes) expect(breaker.state).toBe('closed');
    });
    const [after] = await callTimes(1, stage.call);
    expect(after?.outcome).toMatchObject({ kind: 'completed' });
    expect(models.requests).toHaveLength(1);
    expect(await holdsLeft()).toBe(0);
  });
});

describe('a provider that throttles', () => {
  it('is never taken for one that is down, however often it says 429', async () => {
    await using stage = await openWorkers(() => failing({ ...THROTTLED, retryAfterMs: 1 }));
    const made = await callTimes(20, stage.call);
    for (const { outcome } of made) expect(isRefused(outcome)).toBe(false);
    for (const { breaker, changes } of stage.processes) {
      expect(breaker.state).toBe('closed');
      expect(changes).toEqual([]);
    }
  });

  it.each([
    ['a wrong request', { kind: 'bad_request', stage: 'answered', status: 400 }],
    ['a refusal of its content', { kind: 'content_filter', stage: 'answered', status: 400 }],
    ['a key that is not valid', { kind: 'auth', stage: 'answered', status: 401 }],
    ['a conflict without a known word', { kind: 'unknown', stage: 'answered', status: 409 }],
    ['an overload', { kind: 'overloaded', stage: 'answered', status: 529 }],
  ] satisfies [string, LlmErrorFields][])('nor is one that answers with %s', async (_, fault) => {
    await using stage = await openWorkers(() => failing(fault));
    await callTimes(12, stage.call);
    for (const { changes } of stage.processes) expect(changes).toEqual([]);
    expect(stage.models.requests).toHaveLength(12);
  });
});

describe('a call that ends before it is sent', () => {
  it('gives its try back, so that the next call may have it', async () => {
    await using stage = await openWorkers(() => REPLY);
    const { processes } = stage;
    await openIt(processes);
    await expire(test, processes);
    const poor = `poor-${++ids}`;
    await beginTask(test, poor, [hardLimit('usd', 1n)]);
    const dependencies = {
      ...callDependencies(test, stage.models, UNPACED),
      breakerOf: at(processes, 0).models.of,
    };
    expect(await visitOnce(dependencies, poor)).toMatchObject({ kind: 'refuse' });
    await at(processes, 0).models.settled();
    const [next] = await callTimes(1, stage.call);
    expect(next?.outcome).toMatchObject({ kind: 'completed' });
  });

  it("was let in and failed: its error is the provider's and not the breaker's", async () => {
    await using stage = await openWorkers(() => failing(FAULT));
    const [made] = await callTimes(1, stage.call);
    expect(made?.outcome).toBeInstanceOf(AttemptFailed);
  });
});
