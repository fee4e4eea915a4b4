// What `begin` asks of rate control before a task's first call.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { giveUpPlaces, rateDelay } from '../../src/activities/rate.ts';
import { estimateInputTokens } from '../../src/llm/count.ts';
import { type Priority, parseTaskInput } from '../../src/task/input.ts';
import { beginTask, MODEL } from '../support/calls.ts';
import { openTestStores, storesOn, type TestStores } from '../support/stores.ts';
import { SETTINGS } from '../support/workflow-worker.ts';

let test: TestStores;
let tasks = 0;

beforeAll(async () => {
  test = await openTestStores();
});

afterAll(() => test[Symbol.asyncDispose]());

/** A provider of its own with so many requests a minute, of which a burst is used up. */
async function stage(rpm: number, candidates: readonly string[] | undefined = undefined) {
  tasks += 1;
  const model = `p${tasks}/small`;
  const stores = storesOn(test, { rates: { rules: { provider: () => ({ rpm }) } } });
  const taskId = `task-${tasks}`;
  await beginTask(test, taskId);
  const parsed = parseTaskInput({ tenantId: 'tenant', userId: 'user', query: 'why' });
  if (parsed.kind === 'invalid') throw new Error('the input of the test is invalid');
  const dependencies = {
    ...stores,
    tokens: { upperBound: estimateInputTokens },
    log: { ...test.log, warn: () => undefined },
  };
  const settings = { ...SETTINGS, model, candidates: candidates ?? [model] };
  const delayOf = (priority: Priority = 'normal', change: Partial<typeof dependencies> = {}) =>
    rateDelay(
      { ...dependencies, ...change },
      {
        taskId,
        runId: 'run',
        stepId: 'answer',
        input: { ...parsed.input, priority },
        settings,
        queuedAtMs: undefined,
      },
    );
  const { provider = '' } = /^(?<provider>[^/]+)/.exec(model)?.groups ?? {};
  const request = (callKey: string, isBooked = false) => ({
    ...{ provider, model, tenantId: 'tenant', callKey, candidate: 0, attemptKey: `${callKey}#0.1.1.0` },
    ...{ priority: 'normal' as const, tokens: { input: 1, output: 1 }, isBooked },
  });
  for (let n = 0; n < Math.max(1, (rpm * 5) / 60); n += 1) await stores.rates.admit(request(`other-${n}`));
  return { taskId, stores, delayOf, request, provider, model, dependencies };
}

describe('rateDelay', () => {
  it('books a long wait, once, and shows it', async () => {
    const { taskId, delayOf, provider } = await stage(60);
    const delay = await delayOf();
    expect(delay).toMatchObject({ limit: `${provider} rpm`, isBooked: true });
    expect(delay?.ms).toBeGreaterThan(0);
    const repeated = await delayOf();
    expect(repeated?.ms).toBeLessThanOrEqual(delay?.ms ?? 0);
    expect(await test.stores.tasks.get(taskId)).toMatchObject({
      status: 'waiting',
      waiting: { reason: `${provider} rpm`, kind: 'rate' },
    });
    const events = await test.stores.events.ring(taskId, undefined, 100);
    expect(events.filter((event) => event.type === 'rate_wait')).toHaveLength(1);
  });

  it('tells a wait beyond the horizon, and books nothing', async () => {
    const { delayOf } = await stage(1);
    expect(await delayOf('low')).toMatchObject({ isBooked: false });
  });

  it('is nothing where a slot is free or a short wait will do', async () => {
    const { delayOf, taskId } = await stage(600);
    expect(await delayOf()).toBeUndefined();
    expect(await test.stores.tasks.get(taskId)).toMatchObject({ status: 'running' });
  });

  it('leaves a model that its provider blocks to the call, where there are others', async () => {
    const blocked = await stage(6_000);
    await blocked.stores.rates.cool(blocked.provider, 20_000);
    expect(await blocked.delayOf()).toMatchObject({ limit: `${blocked.provider} cooldown`, isBooked: true });
    const model = `p${tasks + 1}/small`;
    const choosing = await stage(6_000, [model, MODEL]);
    await choosing.stores.rates.cool(choosing.provider, 20_000);
    expect(await choosing.delayOf()).toBeUndefined();
  });

  it('keeps no task from beginning when it cannot be asked', async () => {
    const { delayOf } = await stage(60);
    const away = () => Promise.reject(new Error('no such script'));
    expect(await delayOf('normal', { rates: { delay: away, unbook: away } as never })).toBeUndefined();
  });
});

describe('giveUpPlaces', () => {
  it('gives booked places back, and minds none that cannot be', async () => {
    const { stores, request, model, dependencies } = await stage(60);
    expect(await stores.rates.admit(request('left'))).toMatchObject({ isBooked: true });
    const places = [{ callKey: 'left', model, candidate: 0 }];
    await giveUpPlaces(dependencies, places);
    const next = await stores.rates.admit(request('next'));
    expect(next.kind === 'wait' && next.ms).toBeLessThanOrEqual(1_000);
    const away = () => Promise.reject(new Error('away'));
    await giveUpPlaces({ ...dependencies, rates: { ...stores.rates, unbook: away } }, places);
  });
});
