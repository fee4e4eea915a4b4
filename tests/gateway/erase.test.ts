// Erasing texts and re-rating over HTTP: who may ask for what, and what is answered.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createGatewayClient } from '../../src/client/gateway-client.ts';
import { addRows, makeMonth } from '../stores/old-months.ts';
import { beginTask, MODEL } from '../support/calls.ts';
import { eventually } from '../support/eventually.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await openTestGateway({ settings: { auth: 'keys', adminKey: 'the-key' } });
});
afterAll(() => gateway[Symbol.asyncDispose]());

const headers = { authorization: 'Bearer the-key' };

describe('DELETE /api/v1/texts', () => {
  const erase = (query: string, given: Record<string, string> = headers) =>
    gateway.app.inject({ method: 'DELETE', url: `/api/v1/texts${query}`, headers: given });

  it('erases what has ended and tells what is still under way', async () => {
    const { tasks, events } = gateway.test.stores;
    await beginTask(gateway.test, 'done');
    await tasks.end({ taskId: 'done', runId: 'run' }, { status: 'completed', resultText: 'a text' }, []);
    await events.publishPending({ taskId: 'done', runId: 'run', tenantId: 'tenant' });
    await beginTask(gateway.test, 'open');
    // Its events are numbered a moment after readers have them, and are on their way until then.
    await eventually(async () => expect(await events.stored('done', 0, 1)).toHaveLength(1));
    const answer = await erase('?tenantId=tenant&userId=user');
    expect(answer.statusCode).toBe(200);
    expect(answer.json()).toEqual({ tasks: 1, events: 0, calls: 0, running: 1 });
    const view = await gateway.app.inject({ url: '/api/v1/tasks/done', headers });
    expect(view.json()).toMatchObject({ status: 'completed' });
    expect(view.body).not.toContain('a text');
  });

  it('needs a key and a tenant, and refuses what is no id', async () => {
    expect((await erase('?tenantId=tenant', {})).statusCode).toBe(401);
    for (const query of ['', '?userId=user', '?tenantId=a%7Bb', '?tenantId=tenant&user=user']) {
      const answer = await erase(query);
      expect([query, answer.statusCode]).toEqual([query, 400]);
    }
  });
});

describe('POST /api/v1/usage/rerate', () => {
  const rerate = (payload: object, given: Record<string, string> = headers) =>
    gateway.app.inject({ method: 'POST', url: '/api/v1/usage/rerate', headers: given, payload });
  const period = { from: '2025-01-01', to: '2025-02-01' };

  it('goes through a long period in parts, and a dry run books nothing', async () => {
    await makeMonth(gateway.test, '2025-01');
    await addRows(gateway.test, [
      { at: '2025-01-02T00:00:00Z', attemptKey: 'x#1', model: 'p/unknown', tenantId: 'rated' },
      { at: '2025-01-03T00:00:00Z', attemptKey: 'y#1', model: MODEL, tenantId: 'rated', nano: 26_001n },
    ]);
    await gateway.test.postgres.query(
      `insert into ledger (held_at, attempt_key, kind, call_key, tenant_id, user_id, provider, model, input_tokens, cache_read_tokens,
         cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, billable, usage_source, price_hash)
       select timestamptz '2025-01-04 00:00Z' + make_interval(secs => n), 'z' || n || '#1', kind, 'z' || n, tenant_id, user_id, provider,
         model, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
         cost_nano_usd, billable, usage_source, price_hash
       from ledger l, generate_series(1, 5100) as n where attempt_key = 'y#1'`,
    );
    const dry = (await rerate({ ...period, dryRun: true })).json();
    expect(dry).toEqual({
      priceHash: 'hash',
      attempts: 5_000,
      adjusted: 4_999,
      differenceUsd: '-0.000004999',
      models: [{ model: MODEL, adjusted: 4_999, differenceUsd: '-0.000004999' }],
      unknownPrices: [{ model: 'p/unknown', attempts: 1 }],
      appliedBefore: 0,
      next: expect.any(String),
    });
    const first = (await rerate(period)).json();
    expect(first).toEqual(dry);
    const rest = (await rerate({ ...period, after: first.next })).json();
    expect(rest).toMatchObject({ attempts: 102, adjusted: 102 });
    expect(rest).not.toHaveProperty('next');
    const url = await gateway.listen();
    const { total } = await createGatewayClient({ url, apiKey: 'the-key' }).usage({ tenant: 'rated' });
    expect(total).toMatchObject({ attempts: 5_102, costUsd: '0.132626001' });
  });

  it.each<[string, object, string]>([
    ['no end', { from: '2025-01-01' }, 'to'],
    ['a time without a zone', { ...period, from: '2025-01-01T00:00' }, 'from'],
    ['a place that it never answered', { ...period, after: 'nonsense' }, 'after'],
    ['a dry run that is neither', { ...period, dryRun: 'yes' }, 'dryRun'],
    ['a field it does not know', { ...period, user: 'ada' }, ''],
  ])('refuses %s', async (_title, body, path) => {
    const answer = await rerate(body);
    expect(answer.statusCode).toBe(400);
    expect(answer.json().faults).toMatchObject([{ path }]);
  });

  it('refuses whoever has no key', async () => {
    expect((await rerate(period, {})).statusCode).toBe(401);
  });
});
