import { expect, it } from 'vitest';
import type { RateBucketView, RateLimitsView } from '../../src/client/wire.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

// One a minute: what is left stays the same for as long as a test may take.
const STORES = {
  leaseMs: 600_000,
  models: () => ['openai/a', 'openai/b', 'other/c'],
  rates: {
    rules: {
      provider: (provider: string) => (provider === 'openai' ? { rpm: 1, maxParallel: 3 } : {}),
      tierOf: () => 'small' as const,
      tier: () => ({ rpm: 1 }),
      plan: (tenantId: string) => (tenantId === 'acme' ? { tpm: 5_000 } : {}),
    },
  },
};

async function show(gateway: TestGateway, query = ''): Promise<readonly RateBucketView[]> {
  const response = await gateway.app.inject({ url: `/api/v1/limits${query}` });
  expect(response.statusCode).toBe(200);
  return response.json<RateLimitsView>().buckets;
}

it('shows what is configured, and what is left of it', async () => {
  await using gateway = await openTestGateway({ stores: STORES });
  const { rates } = gateway.test.stores;
  const permit = { provider: 'openai', model: 'openai/a', tenantId: 'acme', attemptKey: 'one' };
  await rates.admit({
    ...{ ...permit, callKey: 'call', candidate: 0 },
    ...{ priority: 'critical', tokens: { input: 1_000, output: 0 } },
  });
  expect(await show(gateway, '?tenantId=acme')).toEqual([
    {
      bucket: 'provider',
      name: 'openai',
      limits: [
        { dimension: 'rpm', configured: 1, effective: 1, remaining: 0 },
        { dimension: 'maxParallel', configured: 3, effective: 3, remaining: 2 },
      ],
    },
    { bucket: 'provider', name: 'other', limits: [] },
    {
      ...{ bucket: 'plan', name: 'acme', tenantId: 'acme' },
      limits: [{ dimension: 'tpm', configured: 5_000, effective: 5_000, remaining: expect.any(Number) }],
    },
    ...(['small', 'medium', 'large'] as const).map((tier) => ({
      ...{ bucket: 'tier', name: tier, tenantId: 'acme' },
      limits: [{ dimension: 'rpm', configured: 1, effective: 1, remaining: tier === 'small' ? 0 : 1 }],
    })),
  ]);
});

it('shows what providers taught, whose bucket is blocked, and until when', async () => {
  await using gateway = await openTestGateway({ stores: STORES });
  const { learntRates } = gateway.test.stores;
  await learntRates.heard('openai/a', [{ scope: 'model', dimension: 'rpm', limit: 60, remaining: 59 }]);
  await learntRates.throttled('openai/a', { readings: [], hintMs: 60_000, ageMs: 0 });
  await learntRates.heard('other/c', [{ scope: 'provider', dimension: 'rpm', limit: 30 }]);
  const buckets = await show(gateway);
  const of = (name: string) => buckets.find((bucket) => bucket.name === name);
  const at = expect.stringMatching(/^\d{4}-\d\d-\d\dT/);
  expect(of('openai/a')).toEqual({
    ...{ bucket: 'model', name: 'openai/a', blockedUntil: at },
    limits: [
      {
        ...{ dimension: 'rpm', learnt: { limit: 42, stated: 60, at }, remaining: 0 },
        ...{ effective: expect.any(Number), heard: { remaining: 59, at } },
      },
    ],
  });
  const effective = of('openai/a')?.limits[0]?.effective;
  expect(effective).toBeGreaterThanOrEqual(42);
  expect(effective).toBeLessThanOrEqual(60);
  expect(of('openai')?.blockedUntil).toBeUndefined();
  expect(of('openai')?.limits[0]).toMatchObject({ configured: 1, effective: 1 });
  expect(of('other')?.limits).toEqual([
    { dimension: 'rpm', learnt: { limit: 30, stated: 30, at }, effective: 30, remaining: expect.any(Number) },
  ]);
  // Nothing binds it by itself.
  expect(of('openai/b')).toBeUndefined();
});

it('shows that limits of providers are turned off', async () => {
  await using gateway = await openTestGateway({
    stores: { ...STORES, rates: { rules: { ...STORES.rates.rules, limitsProviders: () => false } } },
  });
  const [openai] = await show(gateway);
  expect(openai?.limits).toEqual([
    { dimension: 'rpm', configured: 1 },
    { dimension: 'maxParallel', configured: 3 },
  ]);
});

it('is refused without a key, and for an id that is none', async () => {
  await using gateway = await openTestGateway({
    stores: STORES,
    settings: { auth: 'keys', adminKey: 'secret-admin-key' },
  });
  expect((await gateway.app.inject({ url: '/api/v1/limits' })).statusCode).toBe(401);
  const headers = { authorization: 'Bearer secret-admin-key' };
  const refused = await gateway.app.inject({ url: '/api/v1/limits?tenantId=%7Bx%7D', headers });
  expect(refused.statusCode).toBe(400);
});
