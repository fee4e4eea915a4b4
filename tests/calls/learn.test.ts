// What calls learn of their provider's limits: a real HTTP provider with limits of its own, whose headers and refusals reach the buckets.

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { startSimulatedProvider } from '../../dev/simulated-provider/server.ts';
import type { CallDependencies } from '../../src/calls/call.ts';
import { createLanguageModels } from '../../src/llm/models.ts';
import { rateKeys } from '../../src/stores/keys.ts';
import { beginTask, callDependencies, MODEL, visitOnce } from '../support/calls.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const RULES = { rates: { rules: { provider: () => ({ rpm: 6_000 }) } } };

let provider: Awaited<ReturnType<typeof startSimulatedProvider>>;

beforeAll(async () => {
  provider = await startSimulatedProvider();
});
afterAll(() => provider[Symbol.asyncDispose]());

async function control(method: 'PUT' | 'DELETE', path: string, body?: unknown): Promise<void> {
  const response = await fetch(`${provider.url}/control/${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw new Error(`the control endpoint answered ${response.status}`);
}

beforeEach(async () => {
  await control('DELETE', 'faults');
  await control('DELETE', 'requests');
  await control('PUT', 'settings', { rpm: 60_000, tpm: 60_000_000 });
});

function dependenciesOf(test: TestStores, onThrottled: (provider: string) => void = () => undefined) {
  const models = createLanguageModels({
    providers: {
      simulated: { protocol: 'openai', baseUrl: `${provider.url}/v1`, available: true },
    },
  });
  const dependencies = callDependencies(test, models);
  return { ...dependencies, meter: { ...dependencies.meter, throttled: onThrottled } };
}

/** Visits a call as a workflow does: it waits when it is told to, and comes again. */
async function callThrough(dependencies: CallDependencies, taskId: string): Promise<number> {
  for (let visit = 1; ; visit += 1) {
    const outcome = await visitOnce(dependencies, taskId, { visit });
    if (outcome.kind === 'completed') return visit;
    if (outcome.kind !== 'wait') throw new Error(`the call ended as ${outcome.kind}`);
    await sleep(outcome.ms);
  }
}

const bucketOf = (test: TestStores, field: string) =>
  test.redis.command((client) => client.hget(rateKeys(test.prefix, 'simulated', MODEL).inner, field));

describe('an answer', () => {
  it('teaches what its headers say', async () => {
    await using test = await openTestStores(RULES);
    await beginTask(test, 'a');
    await control('PUT', 'settings', { rpm: 120, tpm: 9_000 });
    await callThrough(dependenciesOf(test), 'a');
    expect(await bucketOf(test, 'limit:rpm')).toBe('120.000 120.000');
    expect(await bucketOf(test, 'limit:tpm')).toBe('9000.000 9000.000');
  });

  it('is not lost when what it says cannot be noted', async () => {
    await using test = await openTestStores(RULES);
    await beginTask(test, 'a');
    const away = async () => {
      throw new Error('nobody is there');
    };
    const learntRates = { heard: away, throttled: away };
    const dependencies = { ...dependenciesOf(test), learntRates, log: { ...test.log, warn: () => test.log } };
    expect(await callThrough(dependencies, 'a')).toBe(1);
  });
});

describe('a provider that refuses', () => {
  it('is asked once for each of its hints by one call', async () => {
    await using test = await openTestStores(RULES);
    await beginTask(test, 'a');
    await control('PUT', 'faults', [{ match: {}, times: 5, status: 429, retryAfterMs: 300 }]);
    const throttled: string[] = [];
    await callThrough(
      dependenciesOf(test, (name) => throttled.push(name)),
      'a',
    );
    const statuses = provider.requests().map((request) => request.status);
    expect(statuses).toEqual([429, 429, 429, 429, 429, 200]);
    expect(throttled).toEqual(Array.from({ length: 5 }, () => 'simulated'));
  });

  it('is asked once for each of its hints by many calls that come after the first refusal', async () => {
    await using test = await openTestStores(RULES);
    const names = Array.from({ length: 8 }, (_, n) => `task-${n}`);
    for (const name of names) await beginTask(test, name);
    await control('PUT', 'faults', [{ match: {}, times: 1, status: 529, retryAfterMs: 50_000 }]);
    const dependencies = dependenciesOf(test);
    expect(await visitOnce(dependencies, 'task-0')).toMatchObject({ kind: 'wait' });
    const outcomes = await Promise.all(names.slice(1).map((name) => visitOnce(dependencies, name)));
    for (const outcome of outcomes) expect(outcome).toMatchObject({ kind: 'wait' });
    expect(provider.requests()).toHaveLength(1);
  });

  it('is believed over the limits of this side, which fall', async () => {
    await using test = await openTestStores(RULES);
    await beginTask(test, 'a');
    await control('PUT', 'settings', { rpm: 120 });
    await control('PUT', 'faults', [{ match: {}, times: 1, status: 429, retryAfterMs: 20 }]);
    await callThrough(dependenciesOf(test), 'a');
    expect(await bucketOf(test, 'limit:rpm')).toBe('84.000 120.000');
  });

  it('is asked with another key at once, and blocked for nobody', async () => {
    await using test = await openTestStores(RULES);
    await beginTask(test, 'a');
    const error = { kind: 'rate_limited', stage: 'answered', status: 429, retryAfterMs: 40_000 } as const;
    const models = createFakeModels([
      { kind: 'error', error: { ...error, hasOtherKey: true } },
      { kind: 'reply' },
    ]);
    await visitOnce(callDependencies(test, models), 'a');
    expect(await bucketOf(test, 'blocked')).toBeNull();
    const { outer } = rateKeys(test.prefix, 'simulated', MODEL);
    expect(await test.redis.command((client) => client.hget(outer, 'blocked'))).toBeNull();
  });
});
