// Processes that share breakers on one real Redis, each with a connection and a state of its own.

import { expect, vi } from 'vitest';
import { type BreakersOptions, createBreakers } from '../../src/calls/breakers.ts';
import { isProviderFailure } from '../../src/calls/govern.ts';
import { LlmError, type LlmErrorFields } from '../../src/llm/error.ts';
import { createFleetBreakers } from '../../src/stores/fleet-breakers.ts';
import type { Redis } from '../../src/stores/redis.ts';
import type { BreakerSettings } from '../../src/task/breaker.ts';
import { eventually } from '../support/eventually.ts';
import { cuttable } from '../support/holds.ts';
import type { TestRedis } from '../support/redis.ts';
import { QUIET } from '../support/stores.ts';

const MODEL = 'simulated/small';
export const NAME = `llm:${MODEL}`;

export const SETTINGS: BreakerSettings = {
  enabled: true,
  intervalMs: 60_000,
  timeoutMs: 60_000,
  failureThreshold: 5,
  successThreshold: 1,
  maxRequests: 1,
};

export const FAULT = { kind: 'unknown', stage: 'answered', status: 503 } as const satisfies LlmErrorFields;
export const THROTTLED = {
  kind: 'rate_limited',
  stage: 'answered',
  status: 429,
} as const satisfies LlmErrorFields;

type ProcessOptions = {
  readonly settings?: Partial<BreakerSettings>;
  readonly hangMs?: number;
  readonly probeLeaseMs?: number;
};

/** One process: what it hears of others, and every command that it sends. */
export function openProcess(
  redis: Redis,
  { settings = {}, hangMs = 60_000, probeLeaseMs = 10_000 }: ProcessOptions,
) {
  const changes: string[] = [];
  const cut = cuttable(redis);
  const run = vi.spyOn(cut, 'run');
  const meter: BreakersOptions['meter'] = {
    breakerReady: () => undefined,
    breaker: (_, state) => changes.push(state),
    degraded: () => undefined,
  };
  const breakers = createBreakers({ settingsOf: () => ({ ...SETTINGS, ...settings }), meter, log: QUIET });
  const models = breakers.models({
    fleet: createFleetBreakers(cut),
    models: () => [MODEL],
    isFailure: isProviderFailure,
    hangMs,
    probeLeaseMs,
  });
  const breaker = models.of(MODEL);
  /** One call: undefined when it was refused, else what became of it. */
  const call = async (fault?: LlmErrorFields): Promise<'refused' | 'answered' | 'failed'> => {
    const entry = await breaker.enter();
    if (entry.kind === 'refused') return 'refused';
    const error = fault === undefined ? undefined : new LlmError('a fault of the test', fault);
    entry.pass.end(isProviderFailure(error) ? 'failed' : 'succeeded');
    await models.settled();
    return error === undefined ? 'answered' : 'failed';
  };
  return { breaker, breakers, call, changes, cut, models, run };
}

type TestProcess = ReturnType<typeof openProcess>;

/** Processes that have heard of each other's channel, so that no change is missed. */
export async function openFleet(
  test: Pick<TestRedis, 'redis' | 'prefix' | 'connect'>,
  count: number,
  options: ProcessOptions = {},
) {
  const connections = await Promise.all(Array.from({ length: count }, () => test.connect()));
  const processes = connections.map((redis) => openProcess(redis, options));
  await eventually(async () => {
    const [, listeners] = await test.redis.command((client) =>
      client.pubsub('NUMSUB', `${test.prefix}:breakers`),
    );
    expect(listeners).toBe(count);
  });
  return {
    processes,
    async [Symbol.asyncDispose]() {
      for (const one of processes) await one.models[Symbol.asyncDispose]();
    },
  };
}

export function at(processes: readonly TestProcess[], index: number): TestProcess {
  const found = processes[index % processes.length];
  if (found === undefined) throw new Error(`there is no process ${index}`);
  return found;
}

export async function openIt(processes: readonly TestProcess[]): Promise<void> {
  for (let n = 0; n < SETTINGS.failureThreshold; n += 1) await at(processes, n).call(FAULT);
  await eventually(() => {
    for (const { breaker } of processes) expect(breaker.state).toBe('open');
  });
}

/** Its time is over, for Redis and for everybody. */
export async function expire(
  test: Pick<TestRedis, 'redis' | 'prefix'>,
  processes: readonly TestProcess[],
): Promise<void> {
  await test.redis.command((client) => client.hset(keyOf(test), 'until', '1'));
  const fleet = createFleetBreakers(test.redis);
  const [view] = (await fleet.read([{ name: NAME, settings: SETTINGS }])).values();
  if (view === undefined) throw new Error('Redis does not know the breaker');
  // As a process hears it that was late: of a change after the last one.
  for (const { models } of processes) models.adopt(NAME, { ...view, era: view.era + 1 });
  await eventually(() => {
    for (const { breaker } of processes) expect(breaker.state).toBe('half_open');
  });
}

export const keyOf = (test: Pick<TestRedis, 'prefix'>) => `${test.prefix}:{p:simulated}:breaker:${NAME}`;
