import { expect, it } from 'vitest';
import { createBreakers } from '../../src/calls/breakers.ts';
import type { BreakersView } from '../../src/client/wire.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createFleetBreakers } from '../../src/stores/fleet-breakers.ts';
import { cuttable } from '../support/holds.ts';
import { openTestRedis } from '../support/redis.ts';
import { QUIET } from '../support/stores.ts';
import { openTestGateway } from './open-gateway.ts';

const SETTINGS = {
  enabled: true,
  intervalMs: 60_000,
  timeoutMs: 30_000,
  failureThreshold: 3,
  successThreshold: 2,
  maxRequests: 1,
};

const isFailure = () => true;

it('shows stores of the gateway and models of the fleet, what is down, and since when', async () => {
  await using test = await openTestRedis();
  const redis = cuttable(test.redis);
  const metrics = createMetrics();
  const breakers = createBreakers({ settingsOf: () => SETTINGS, meter: metrics, log: QUIET });
  const store = breakers.store('redis', { isFailure, hangMs: 1_000 });
  breakers.tool('search', { isFailure, hangMs: 1_000 });
  await using models = breakers.models({
    fleet: createFleetBreakers(redis),
    models: () => ['a/x', 'a/y'],
    isFailure,
    hangMs: 1_000,
    probeLeaseMs: 1_000,
  });
  await using gateway = await openTestGateway({ breakers });
  const show = async (): Promise<BreakersView> =>
    (await gateway.app.inject({ url: '/api/v1/breakers' })).json<BreakersView>();

  const before = await show();
  expect(before).toMatchObject({ level: 'none', down: [] });
  expect(before.breakers.map(({ name, kind, scope, state }) => [name, kind, scope, state])).toEqual([
    ['llm:a/x', 'llm', 'fleet', 'closed'],
    ['llm:a/y', 'llm', 'fleet', 'closed'],
    ['redis', 'redis', 'process', 'closed'],
    ['tool:search', 'tool', 'process', 'closed'],
  ]);
  expect(before.breakers[2]).toEqual({
    name: 'redis',
    kind: 'redis',
    scope: 'process',
    state: 'closed',
    retryAfterMs: 0,
    calls: 0,
    failures: 0,
    settings: SETTINGS,
  });

  await models.of('a/y').run(async () => undefined);
  for (let n = 0; n < 3; n += 1) {
    await models
      .of('a/x')
      .run(() => Promise.reject(new Error('down')))
      .catch(() => undefined);
    await store.run(() => Promise.reject(new Error('down'))).catch(() => undefined);
  }
  await models.settled();
  const after = await show();
  expect(after).toMatchObject({ level: 'moderate', down: ['llm:a', 'redis'] });
  const [x, y, own] = after.breakers;
  expect(x).toMatchObject({ state: 'open', scope: 'fleet', since: expect.any(String) });
  expect(x?.retryAfterMs).toBeGreaterThan(0);
  expect(y).toMatchObject({ state: 'closed', calls: 1, failures: 0 });
  expect(own).toMatchObject({ state: 'open', scope: 'process' });
  const page = await metrics.registry.metrics();
  expect(page).toContain('weir_degradation_level 2');
  expect(page).toContain('weir_breaker_state{breaker="llm:a/x"} 2');
  expect(page).toContain('weir_breaker_changes_total{breaker="redis",state="open"} 1');

  redis.isCut = true;
  const alone = await show();
  expect(alone.breakers[0]).toMatchObject({ name: 'llm:a/x', scope: 'process', state: 'open' });
});
