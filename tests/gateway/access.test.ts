// Who may use the API, which pages are open, and what a client is told when something is away.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createApp } from '../../src/gateway/app.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createPostgres } from '../../src/stores/postgres.ts';
import { createRedis } from '../../src/stores/redis.ts';
import { createStores } from '../../src/stores/stores.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

describe('with keys', () => {
  let gateway: TestGateway;
  beforeAll(async () => {
    gateway = await openTestGateway({ settings: { auth: 'keys', adminKey: 'sesame-öpen' } });
  });
  afterAll(() => gateway[Symbol.asyncDispose]());
  const status = async (url: string, headers: Record<string, string> = {}) =>
    (await gateway.app.inject({ method: 'GET', url, headers })).statusCode;

  test.each([
    [{ authorization: 'Bearer sesame-öpen' }, 200],
    [{ authorization: 'bearer  sesame-öpen' }, 200],
    [{ 'x-api-key': 'sesame-öpen' }, 200],
    [{}, 401],
    [{ authorization: 'Bearer sesame' }, 401],
    [{ authorization: 'Bearer sesame-öpen2' }, 401],
    [{ authorization: 'Bearer ' }, 401],
    [{ authorization: 'Basic sesame-öpen' }, 401],
    [{ 'x-api-key': '' }, 401],
    [{ authorization: 'Bearer wrong', 'x-api-key': 'sesame-öpen' }, 401],
  ])('%j gets %i', async (headers, expected) => {
    expect(await status('/api/v1/tasks', headers)).toBe(expected);
  });

  test('every route below /api/v1 asks for the key before it looks at anything else', async () => {
    const { paths } = (await gateway.app.inject('/openapi.json')).json();
    const routes = Object.entries<Record<string, unknown>>(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => ({ method, url: path.replaceAll(/\{\w+\}/g, 'x') })),
    );
    const api = routes.filter(({ url }) => url.startsWith('/api/v1/'));
    expect(api).toHaveLength(24);
    for (const { method, url } of api) {
      const answer = await gateway.app.inject({
        method: method.toUpperCase() as 'GET',
        url,
        payload: '{',
        headers: { 'content-type': 'application/json' },
      });
      expect(`${method} ${url} ${answer.statusCode}`).toBe(`${method} ${url} 401`);
      expect(answer.json()).toMatchObject({ type: 'Unauthorized' });
      expect(answer.headers['www-authenticate']).toBe('Bearer');
    }
  });

  test.each(['/health/live', '/health/ready', '/metrics', '/openapi.json', '/docs/'])(
    '%s is open',
    async (url) => {
      expect(await status(url)).toBe(200);
    },
  );
});

describe('pages of operators', () => {
  test('readiness asks every server and names the one that failed', async () => {
    let isAway = false;
    const redis = async () => {
      if (isAway) throw new Error('away');
    };
    await using gateway = await openTestGateway({ probes: { redis, postgres: async () => undefined } });
    const ready = () => gateway.app.inject('/health/ready');
    expect([(await ready()).statusCode, (await ready()).json()]).toEqual([
      200,
      { ready: true, checks: { redis: 'ok', postgres: 'ok' } },
    ]);
    isAway = true;
    expect([(await ready()).statusCode, (await ready()).json()]).toEqual([
      503,
      { ready: false, checks: { redis: 'failed', postgres: 'ok' } },
    ]);
    expect((await gateway.app.inject('/health/live')).json()).toEqual({ live: true });
  });

  test('the document describes every route with its answers, and refers to nothing that is not there', async () => {
    await using gateway = await openTestGateway();
    const document = (await gateway.app.inject('/openapi.json')).json();
    expect(document.openapi).toBe('3.1.0');
    expect(Object.keys(document.paths)).toEqual([
      '/health/live',
      '/health/ready',
      '/metrics',
      '/api/v1/tasks',
      '/api/v1/tasks/{taskId}/budget',
      '/api/v1/tasks/{taskId}',
      '/api/v1/tasks/{taskId}/cancel',
      '/api/v1/tasks/{taskId}/events',
      '/api/v1/tasks/{taskId}/stream',
      '/api/v1/tasks/stream',
      '/api/v1/tasks/{taskId}/ws',
      '/api/v1/budgets',
      '/api/v1/budgets/{scope}/{id}',
      '/api/v1/budgets/{scope}/{id}/explain',
      '/api/v1/tasks/{taskId}/explain',
      '/api/v1/approvals',
      '/api/v1/approvals/{approvalId}',
      '/api/v1/usage',
      '/api/v1/usage/rerate',
      '/api/v1/limits',
      '/api/v1/queues',
      '/api/v1/breakers',
      '/api/v1/texts',
    ]);
    const names = [...JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(
      ([, name]) => name,
    );
    expect(new Set(names)).toEqual(new Set(Object.keys(document.components.schemas)));
    for (const [path, methods] of Object.entries<Record<string, { responses: object; summary: string }>>(
      document.paths,
    ))
      for (const [method, { responses, summary }] of Object.entries(methods)) {
        expect(summary, `${method} ${path}`).toBeTruthy();
        if (path.startsWith('/api/'))
          expect(Object.keys(responses), `${method} ${path}`).toContain('default');
      }
  });

  test('a route that is not there is a problem document too', async () => {
    await using gateway = await openTestGateway();
    for (const [method, url] of [
      ['GET', '/nope?x=1'],
      ['DELETE', '/api/v1/tasks'],
      ['GET', '/api/v1/tasks/%zz'],
    ] as const) {
      const answer = await gateway.app.inject({ method, url });
      expect(answer.headers['content-type']).toContain('application/problem+json');
      expect([400, 404]).toContain(answer.statusCode);
    }
  });
});

test('a store that is away is 503 with a time to come back, and nothing of it is told', async () => {
  await using gateway = await openTestGateway();
  const { log } = gateway.parts;
  const postgres = createPostgres(
    { url: 'postgres://someone:secret@127.0.0.1:1/x', schema: 'x', poolSize: 2, statementTimeoutMs: 1_000 },
    log,
  );
  const redis = createRedis(
    { url: 'redis://127.0.0.1:1', keyPrefix: 'x', commandTimeoutMs: 200, policyChecked: true },
    log,
  );
  const stores = createStores(postgres, redis, {
    calendar: { zone: 'UTC', weekStart: 'monday' },
    leaseMs: 1_000,
    attemptMs: 1_000,
    defaultLimits: { tenant: [], user: [], session: [], task: [] },
    events: { ringCapacity: 10, onPublished: () => undefined },
  });
  const app = await createApp({ ...gateway.parts, stores, metrics: createMetrics() });
  for (const url of [
    '/api/v1/tasks',
    '/api/v1/tasks/x',
    '/api/v1/tasks/x/stream',
    '/api/v1/usage',
    '/api/v1/budgets/user/u/explain',
  ]) {
    const answer = await app.inject(url);
    expect(`${url} ${answer.statusCode}`).toBe(`${url} 503`);
    expect(answer.json()).toMatchObject({ type: 'Unavailable' });
    expect(answer.headers['retry-after-ms']).toBe('1000');
    expect(answer.body).not.toMatch(/secret|127\.0\.0\.1|ECONN/);
  }
  await app.close();
  await redis.close();
  await postgres.close();
});
