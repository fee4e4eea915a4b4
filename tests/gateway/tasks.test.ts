// Tasks over HTTP: what is accepted, what is refused and how, and what can be read of it.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { TaskExistsError } from '../../src/client/task-client.ts';
import { eventually } from '../support/eventually.ts';
import { createStoredTask } from './events.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await openTestGateway();
});
afterAll(() => gateway[Symbol.asyncDispose]());
beforeEach(() => {
  gateway.temporal.refuseStart = undefined;
  gateway.temporal.takesCancel = true;
});

const INPUT = { userId: 'u1', query: 'What is a weir?' };

const submit = (payload: unknown, options: { url?: string; headers?: Record<string, string> } = {}) =>
  gateway.app.inject({
    method: 'POST',
    url: options.url ?? '/api/v1/tasks',
    headers: { 'content-type': 'application/json', ...options.headers },
    payload: typeof payload === 'string' ? payload : JSON.stringify(payload),
  });
const get = (url: string) => gateway.app.inject({ method: 'GET', url });
const post = (url: string) => gateway.app.inject({ method: 'POST', url });

describe('submitting', () => {
  test('answers 202 with an id, the status and links, and the task can be read at once', async () => {
    const answer = await submit(INPUT);
    expect(answer.statusCode).toBe(202);
    const { taskId, status, links } = answer.json();
    expect(taskId).toMatch(/^task-/);
    expect(status).toBe('queued');
    const self = `/api/v1/tasks/${taskId}`;
    expect(links).toEqual({
      self,
      events: `${self}/events`,
      stream: `${self}/stream`,
      cancel: `${self}/cancel`,
    });
    expect(answer.headers['location']).toBe(self);
    expect((await get(self)).json()).toMatchObject({
      taskId,
      status: 'queued',
      userId: 'u1',
      tenantId: 'default',
      costUsd: '0.00',
    });
  });

  test('starts the workflow with the input as it came', async () => {
    await submit({ ...INPUT, labels: { a: 'b' } }, { url: '/api/v1/tasks?taskId=own-1' });
    expect(gateway.temporal.started.at(-1)).toEqual({
      taskId: 'own-1',
      input: { ...INPUT, labels: { a: 'b' } },
    });
  });

  test('refuses an id whose task runs with 409, and takes it again once that has ended', async () => {
    const url = '/api/v1/tasks?taskId=own-2';
    expect((await submit(INPUT, { url })).statusCode).toBe(202);
    const again = await submit(INPUT, { url });
    expect(again.statusCode).toBe(409);
    expect(again.json()).toMatchObject({ type: 'TaskExists', status: 409 });
    const task = createStoredTask(gateway.test, 'own-2');
    await task.begin();
    await task.end();
    gateway.temporal.executions.set('own-2', { status: 'running' });
    // The row has ended and its workflow is about to: what is known of the old task stays.
    expect((await submit(INPUT, { url })).statusCode).toBe(409);
    expect((await get('/api/v1/tasks/own-2')).json()).toMatchObject({
      status: 'completed',
      result: { text: 'done' },
    });
    gateway.temporal.executions.set('own-2', { status: 'completed' });
    expect((await submit(INPUT, { url })).statusCode).toBe(202);
  });

  test('leaves no row behind when Temporal knows the task already', async () => {
    gateway.temporal.refuseStart = new TaskExistsError('own-3', undefined);
    expect((await submit(INPUT, { url: '/api/v1/tasks?taskId=own-3' })).statusCode).toBe(409);
    expect((await get('/api/v1/tasks/own-3')).statusCode).toBe(404);
  });

  test('leaves no row behind when Temporal is away, and answers 503 with a time to come back', async () => {
    gateway.temporal.refuseStart = Object.assign(new Error('14 UNAVAILABLE: secret-host:7233'), { code: 14 });
    const answer = await submit(INPUT, { url: '/api/v1/tasks?taskId=own-4' });
    expect(answer.statusCode).toBe(503);
    expect(answer.headers['retry-after']).toBe('1');
    expect(answer.json()).toMatchObject({ type: 'Unavailable' });
    expect(answer.body).not.toContain('secret-host');
    expect((await get('/api/v1/tasks/own-4')).statusCode).toBe(404);
  });

  test('answers 500 without a word of the cause when something unforeseen happens', async () => {
    gateway.temporal.refuseStart = new Error('password=hunter2');
    const answer = await submit(INPUT);
    expect(answer.statusCode).toBe(500);
    expect(answer.json()).toEqual({ type: 'Internal', title: 'The gateway failed', status: 500 });
  });

  const NOTHING_STARTED: [string, unknown, string[]][] = [
    ['a missing user and an empty query', { query: ' ' }, ['query', 'userId']],
    ['an unknown field', { ...INPUT, foo: 1 }, ['foo']],
    ['query and messages', { ...INPUT, messages: [{ role: 'user', content: 'x' }] }, ['query']],
    ['an unknown model', { ...INPUT, model: 'no/such' }, ['model']],
    ['an unknown tool', { ...INPUT, tools: ['search'] }, ['tools.0']],
    ['more output than the model has', { ...INPUT, maxOutputTokens: 9_999_999 }, ['maxOutputTokens']],
    ['a negative budget', { ...INPUT, budget: { usd: -1, tokens: -1 } }, ['budget.usd', 'budget.tokens']],
    ['a NUL', { ...INPUT, query: 'a\u0000b' }, ['query']],
    ['a lone surrogate', { ...INPUT, query: 'a\ud800' }, ['query']],
    [
      'what does not exist yet',
      { ...INPUT, strategy: 'dag', approval: { before: 'start' } },
      ['strategy', 'approval.before'],
    ],
    ['a list', [INPUT], ['']],
    ['a number', 7, ['']],
    ['null', 'null', ['']],
  ];
  test.each(NOTHING_STARTED)('refuses %s with its paths, and starts nothing', async (_, input, paths) => {
    const before = gateway.temporal.started.length;
    const answer = await submit(input);
    expect(answer.statusCode).toBe(400);
    expect(answer.headers['content-type']).toContain('application/problem+json');
    expect(answer.json()).toMatchObject({ type: 'InvalidTask', status: 400 });
    expect(answer.json().faults.map((fault: { path: string }) => fault.path)).toEqual(paths);
    expect(gateway.temporal.started).toHaveLength(before);
  });

  test('refuses an id that is none', async () => {
    const answer = await submit(INPUT, { url: '/api/v1/tasks?taskId=a%20b' });
    expect(answer.json()).toMatchObject({ type: 'InvalidTask', faults: [{ path: 'taskId' }] });
  });

  test.each([
    [
      '413 for more than 1 MiB',
      413,
      JSON.stringify({ ...INPUT, query: 'x'.repeat(1024 * 1024) }),
      'application/json',
    ],
    ['415 for a body that is no JSON', 415, '<a/>', 'application/xml'],
    ['400 for JSON that is broken', 400, '{"userId":', 'application/json'],
    ['400 for an empty body', 400, '', 'application/json'],
    ['400 for a prototype', 400, '{"__proto__":{"userId":"x"},"query":"y"}', 'application/json'],
  ])('answers %s', async (_, status, payload, type) => {
    const answer = await submit(payload, { headers: { 'content-type': type } });
    expect(answer.statusCode).toBe(status);
    expect(answer.headers['content-type']).toContain('application/problem+json');
    expect(answer.json()).toMatchObject({ status });
  });

  test('waits for the result as long as it is preferred', async () => {
    const answering = submit(INPUT, { url: '/api/v1/tasks?taskId=wait-1', headers: { prefer: 'wait=20' } });
    await eventually(() => expect(gateway.temporal.started.at(-1)?.taskId).toBe('wait-1'));
    const task = createStoredTask(gateway.test, 'wait-1');
    await task.begin();
    await task.end();
    const answer = await answering;
    expect(answer.statusCode).toBe(200);
    expect(answer.headers['preference-applied']).toBe('wait=20');
    expect(answer.json()).toMatchObject({ taskId: 'wait-1', status: 'completed', result: { text: 'done' } });
  });

  test('answers 202 when the task takes longer than is preferred', async () => {
    const answer = await submit(INPUT, {
      url: '/api/v1/tasks?taskId=wait-2',
      headers: { prefer: 'respond-async, wait=0' },
    });
    expect(answer.statusCode).toBe(202);
    expect(answer.json()).toMatchObject({ taskId: 'wait-2', status: 'queued' });
  });
});

describe('reading', () => {
  test('shows everything that the row has', async () => {
    const task = createStoredTask(gateway.test, 'read-1');
    await task.begin();
    const { rows } = await gateway.test.postgres.query<{ created: Date }>(
      `update tasks set status = 'waiting', waiting = '{"reason":"openai rpm","until":"2030-01-01T00:00:00.000Z"}', session_id = 's1',
         tier = 'small' where task_id = 'read-1' returning created_at as created`,
    );
    const running = (await get('/api/v1/tasks/read-1')).json();
    expect(running).toMatchObject({
      status: 'waiting',
      sessionId: 's1',
      tier: 'small',
      model: 'simulated/small',
      createdAt: rows[0]?.created.toISOString(),
      waiting: { reason: 'openai rpm', until: '2030-01-01T00:00:00.000Z' },
    });
    expect(running).not.toHaveProperty('result');
    expect(running).not.toHaveProperty('endedAt');
  });

  test('answers 404 for a task that nobody knows, whatever the id', async () => {
    for (const id of ['nobody', 'a'.repeat(128), '%40%3A']) {
      const answer = await get(`/api/v1/tasks/${id}`);
      expect(answer.statusCode).toBe(404);
      expect(answer.json()).toMatchObject({ type: 'NotFound' });
    }
    expect((await get('/api/v1/tasks/a%20b')).statusCode).toBe(400);
  });

  test('asks Temporal for a task that has no row', async () => {
    gateway.temporal.executions.set('plain-1', { given: { userId: 'u9', tenantId: 'acme' } });
    expect((await get('/api/v1/tasks/plain-1')).json()).toMatchObject({
      status: 'queued',
      userId: 'u9',
      tenantId: 'acme',
    });
    const details = { type: 'InvalidTask', faults: [{ path: 'query', expected: 'x', got: 'y' }] } as const;
    gateway.temporal.executions.set('plain-2', { status: 'failed', endedAt: new Date(1) });
    gateway.temporal.failures.set('plain-2', details);
    expect((await get('/api/v1/tasks/plain-2')).json()).toMatchObject({
      status: 'failed',
      userId: '',
      error: { type: 'InvalidTask', details },
      endedAt: '1970-01-01T00:00:00.001Z',
    });
    gateway.temporal.executions.set('plain-3', { status: 'terminated' });
    expect((await get('/api/v1/tasks/plain-3')).json()).toMatchObject({
      status: 'failed',
      error: { type: 'Lost' },
    });
  });
});

describe('listing', () => {
  test('gives every task once, newest first, page by page, also those of one millisecond', async () => {
    const { postgres } = gateway.test;
    for (let index = 0; index < 7; index += 1) await createStoredTask(gateway.test, `page-${index}`).begin();
    await postgres.query(
      `update tasks set user_id = 'pager', created_at = '2026-01-01T00:00:00.0004Z' where task_id like 'page-%'`,
    );
    await postgres.query(`update tasks set created_at = '2026-01-01T00:00:01Z' where task_id = 'page-2'`);
    const seen: string[] = [];
    for (let cursor = ''; ; ) {
      const page = (await get(`/api/v1/tasks?user=pager&limit=2${cursor}`)).json();
      seen.push(...page.tasks.map((task: { taskId: string }) => task.taskId));
      expect(page.tasks.length).toBeLessThanOrEqual(2);
      if (page.next === undefined) break;
      cursor = `&cursor=${page.next}`;
    }
    expect(seen).toEqual(['page-2', 'page-6', 'page-5', 'page-4', 'page-3', 'page-1', 'page-0']);
  });

  test('filters by user, session, tenant and status', async () => {
    const task = createStoredTask(gateway.test, 'filter-1');
    await task.begin();
    await gateway.test.postgres.query(
      `update tasks set user_id = 'f', session_id = 's', tenant_id = 't' where task_id = 'filter-1'`,
    );
    const ids = async (query: string) =>
      (await get(`/api/v1/tasks?${query}`)).json().tasks.map((one: { taskId: string }) => one.taskId);
    expect(await ids('user=f&session=s&tenantId=t&status=running')).toEqual(['filter-1']);
    for (const query of ['user=f&session=x', 'user=f&tenantId=x', 'user=f&status=completed', 'user=nobody'])
      expect(await ids(query)).toEqual([]);
  });

  test.each([
    ['limit=0', 'limit'],
    ['limit=201', 'limit'],
    ['limit=1e2', 'limit'],
    ['status=sleeping', 'status'],
    ['cursor=x', 'cursor'],
    ['user=a%20b', 'user'],
    ['nonsense=1', ''],
  ])('refuses ?%s with 400', async (query, path) => {
    const answer = await get(`/api/v1/tasks?${query}`);
    expect(answer.statusCode).toBe(400);
    expect(answer.json()).toMatchObject({ type: 'InvalidRequest', faults: [{ path }] });
  });
});

describe('cancelling', () => {
  test('asks Temporal, and answers 202 with the task', async () => {
    await createStoredTask(gateway.test, 'cancel-1').begin();
    const answer = await post('/api/v1/tasks/cancel-1/cancel');
    expect(answer.statusCode).toBe(202);
    expect(answer.json()).toMatchObject({ taskId: 'cancel-1', status: 'running' });
    expect(gateway.temporal.cancelled).toContain('cancel-1');
  });

  test('answers 200 for a task that had ended', async () => {
    const task = createStoredTask(gateway.test, 'cancel-2');
    await task.begin();
    await task.end();
    expect((await post('/api/v1/tasks/cancel-2/cancel')).statusCode).toBe(200);
    gateway.temporal.takesCancel = false;
    expect((await post('/api/v1/tasks/cancel-2/cancel')).statusCode).toBe(200);
  });

  test('answers 404 for a task that nobody knows, and 409 for one whose workflow has not started', async () => {
    gateway.temporal.takesCancel = false;
    expect((await post('/api/v1/tasks/nobody/cancel')).statusCode).toBe(404);
    await createStoredTask(gateway.test, 'cancel-3').queue();
    const answer = await post('/api/v1/tasks/cancel-3/cancel');
    expect(answer.statusCode).toBe(409);
    expect(answer.json()).toMatchObject({ type: 'NotStarted' });
  });
});
