// What frees a Redis that has no more memory: text of the live feeds that is old, entries of the log feeds that are stored, and calls
// that end.

import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { startHousekeeping } from '../../src/housekeeping.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createEventLog } from '../../src/stores/event-log.ts';
import { budgetKeys, eventKeys } from '../../src/stores/keys.ts';
import { callDependencies } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { createFakeModels } from '../support/fake-models.ts';
import { estimateOf, holdOnce, limitOn, NANO, payerOf } from '../support/holds.ts';
import { type OwnRedis, openOwnRedis } from '../support/own-redis.ts';
import { stageRates } from '../support/rates.ts';
import { readCounters } from '../support/scope-counters.ts';
import { openTestStores, QUIET, type TestStores } from '../support/stores.ts';
import { eventsStage, step, steps } from './events-stage.ts';

const HOUR_MS = 3_600_000;

let own: OwnRedis;
let test: TestStores;
const { begin, write, publish, ring, rowsNow } = eventsStage(() => test);
beforeAll(async () => {
  own = await openOwnRedis();
  test = await openTestStores(
    { persists: false },
    { ...inject('servers'), redis: (await own.start()).address },
  );
});
afterAll(async () => {
  await test?.[Symbol.asyncDispose]();
  await own?.[Symbol.asyncDispose]();
});

describe('a full Redis', () => {
  it('is freed of old text though a milestone waits that it cannot take, and takes it then', async () => {
    const task = await begin();
    const { live } = eventKeys(test.prefix, task.taskId);
    const then = Date.now() - 120_000;
    for (let n = 0; n < 200; n += 1)
      await test.redis.command((client) => client.xadd(live, `${then + n}-0`, 'b', 'x'.repeat(100_000)));
    await fill();
    await write(task, [step('waits')]);
    await expect(publish(task)).rejects.toThrow('OOM');
    await test.postgres.query("update events set at = now() - interval '1 minute'");
    await using _ = keepHouse();
    await eventually(async () => expect(await ring(task)).toHaveLength(1));
    await empty();
  });

  it('lets persisters take away what they have stored', async () => {
    const task = await begin();
    for (const one of steps(12)) await test.stores.events.append(task, [one]);
    const log = createEventLog(test.postgres, test.redis, { batchSize: 2, onRefused: () => undefined });
    const persister = log.openPersister('p');
    await persister.pass();
    await fill();
    while (await persister.pass());
    expect((await rowsNow(task)).map(({ seq }) => seq)).toEqual(steps(12).map((_, n) => n + 1));
    expect((await log.state()).backlog).toBe(0);
    await persister.leave();
    await empty();
  });

  it('takes back what calls held', async () => {
    const { redisGate } = test.stores;
    const payer = payerOf('full');
    const held = {
      attemptKey: 'task-full:run:answer:1#0.1.1.0',
      payer,
      estimate: estimateOf(NANO),
      limits: [limitOn(payer, 'user', 5n * NANO)],
    };
    expect((await holdOnce(test.stores, held)).kind).toBe('ok');
    const { rates, provider, model, tenantId, admit, keys } = stageRates(test.redis, {
      provider: () => ({ maxParallel: 2 }),
    });
    const { attemptKey } = held;
    expect((await admit({ callKey: 'held', attemptKey })).kind).toBe('admitted');
    await fill();
    await expect(redisGate.renew(held, 1)).rejects.toThrow('OOM');
    await redisGate.release(held, 'void', { nanoUsd: 0n, tokens: 0 });
    await rates.giveBack({ provider, model, tenantId, attemptKey }, { input: 0, output: 0, isSent: false });
    await empty();
    const { scope } = budgetKeys(test.prefix, payer.tenantId);
    expect(await readCounters(test.redis, scope('user', payer.userId))).toMatchObject({
      'all:usd:held': '0',
    });
    expect(await test.redis.command((client) => client.zcard(keys.outerLeases))).toBe(0);
  });
});

describe('old text of the live feeds', () => {
  it('goes though a task cannot be published', async () => {
    const bad = await begin();
    const { meta, live } = eventKeys(test.prefix, bad.taskId);
    await test.redis.command((client) =>
      client.multi().del(live).set(meta, 'no hash').xadd(live, '5-1', 'b', 'old').exec(),
    );
    await write(bad, [step('a')]);
    await test.postgres.query("update events set at = now() - interval '1 minute'");
    await using _ = keepHouse();
    await eventually(async () => expect(await test.redis.command((client) => client.xlen(live))).toBe(0));
  });
});

/** From now on it may have half of the memory that it uses: what connections need comes and goes. */
async function fill(): Promise<void> {
  await test.redis.command(async (client) => {
    const [, used] = /used_memory:(\d+)/.exec(await client.info('memory')) ?? [];
    await client.config('SET', 'maxmemory', Math.floor(Number(used) / 2));
  });
}

async function empty(): Promise<void> {
  await test.redis.command((client) => client.config('SET', 'maxmemory', 0));
}

/** Sweeps and trims often; what else there is to do comes once. */
function keepHouse() {
  const { redis, postgres, stores } = test;
  const intervals = { reaperIntervalMs: HOUR_MS, reconcileIntervalMs: HOUR_MS, driftIntervalMs: HOUR_MS };
  return startHousekeeping({
    ...{ redis, postgres, stores, ...intervals, queueCountIntervalMs: HOUR_MS, returnAfterMs: HOUR_MS },
    calls: callDependencies(test, createFakeModels([])),
    lifeOf: async () => 1_000,
    describe: async () => undefined,
    describeQueues: async () => [],
    priorityQueues: false,
    metrics: createMetrics(),
    log: QUIET,
    sweepAfterMs: 50,
    retention: { ledgerMs: HOUR_MS, textsMs: HOUR_MS, eventsMs: HOUR_MS },
  });
}
