// Models and prices that change while calls run: what was held by one list is settled by it, and a model that is gone is not called.

import { expect, it } from 'vitest';
import type { CallDependencies } from '../../src/calls/call.ts';
import { createCatalogs } from '../../src/calls/catalog.ts';
import { estimateLost } from '../../src/calls/estimate.ts';
import { createCalls } from '../../src/calls/govern.ts';
import { NO_USAGE } from '../../src/task/usage.ts';
import { beginTask, callDependencies, contextOf, MODEL, PRICE, requestOf } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels, type FakeScript } from '../support/fake-models.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';

const USAGE = { ...NO_USAGE, inputTokens: 0, outputTokens: 10 };
const ANSWER = { kind: 'reply', pieces: ['hello'], usage: USAGE } as const;
const PRICED = { [MODEL]: { maxOutputTokens: 1_000, prices: [PRICE] } };
/** Output costs five times as much. */
const DEARER = { [MODEL]: { maxOutputTokens: 1_000, prices: [{ ...PRICE, output: 5n * PRICE.output }] } };

type List = Parameters<typeof createCatalogs>[0] extends () => infer L ? L : never;

/** Calls whose list of models can be exchanged. */
function open(test: TestStores, script: FakeScript) {
  let present: List = { modelsHash: 'first', models: PRICED };
  const catalogs = createCatalogs(() => present);
  const models = createFakeModels(script);
  const dependencies: CallDependencies = Object.defineProperty(
    { ...callDependencies(test, models) },
    'catalog',
    { enumerable: true, get: catalogs },
  );
  catalogs();
  return {
    models,
    dependencies,
    visit: (taskId: string, stop = new AbortController()) =>
      createCalls(dependencies).visit(requestOf(taskId), contextOf(stop)),
    use: (list: List) => {
      present = list;
    },
  };
}

async function booked(test: TestStores, taskId: string) {
  const { rows } = await test.postgres.query<{ kind: string; nano: bigint; hash: string }>(
    'select kind, cost_nano_usd as nano, price_hash as hash from ledger where task_id = $1',
    [taskId],
  );
  return rows;
}

it.each([
  ['has other prices', { modelsHash: 'second', models: DEARER }],
  ['has the model no more', { modelsHash: 'second', models: {} }],
])('settles a call under way by the list it was held with when the next one %s', async (_, next) => {
  await using test = await openTestStores();
  const answer = Promise.withResolvers<void>();
  const { models, use, visit } = open(test, [{ ...ANSWER, until: answer.promise }]);
  await beginTask(test, 'under-way');
  const outcome = visit('under-way');
  await eventually(() => expect(models.inFlight()).toBe(1));
  use(next);
  answer.resolve();
  expect(await outcome).toMatchObject({ kind: 'completed', costUsd: '0.00002' });
  expect(await booked(test, 'under-way')).toEqual([{ kind: 'charge', nano: 20_000n, hash: 'first' }]);
});

it('prices the next call by the new list', async () => {
  await using test = await openTestStores();
  const { use, visit } = open(test, [ANSWER]);
  use({ modelsHash: 'second', models: DEARER });
  await beginTask(test, 'next');
  await visit('next');
  expect(await booked(test, 'next')).toEqual([{ kind: 'charge', nano: 100_000n, hash: 'second' }]);
});

it('estimates a lost attempt by the list it was held with', async () => {
  await using test = await openTestStores();
  const { dependencies, models, use, visit } = open(test, [{ kind: 'hang' }]);
  await beginTask(test, 'lost');
  const stop = new AbortController();
  const hanging = visit('lost', stop);
  await eventually(() => expect(models.inFlight()).toBe(1));
  use({ modelsHash: 'second', models: DEARER });
  const [attempt] = await test.stores.ledger.startedOfCall('lost:run:answer:1');
  if (attempt === undefined) throw new Error('no attempt is open');
  const { usage, nanoUsd } = await estimateLost(dependencies, attempt, 10);
  expect(nanoUsd).toBe(BigInt(usage.inputTokens) * 1_000n + 10n * 2_000n);
  stop.abort();
  await expect(hanging).rejects.toThrow('cancelled');
});

it('does not call a model that is gone, holds nothing for it, and does not fail', async () => {
  await using test = await openTestStores();
  const { models, use, visit } = open(test, []);
  use({ modelsHash: 'second', models: {} });
  await beginTask(test, 'gone');
  expect(await visit('gone')).toEqual({
    kind: 'unavailable',
    reason: 'provider_not_configured',
    model: MODEL,
  });
  expect(models.requests).toEqual([]);
  expect(await test.stores.ledger.openHolds()).toMatchObject({ count: 0 });
});
