// Tasks through the gateway on a real Temporal and a real worker process: what a client sees over HTTP from submission to the ledger.

import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createApp } from '../../src/gateway/app.ts';
import type { App } from '../../src/gateway/parts.ts';
import { createMetrics } from '../../src/metrics.ts';
import { HEALTHY } from '../../src/task/degradation.ts';
import { formatCursor, type TaskEvent } from '../../src/task/event.ts';
import { type Fleet, openFleet } from '../support/fleet.ts';
import { textOf, typesOf } from './events.ts';
import { planLikeShipped, rerateWith } from './open-gateway.ts';

let fleet: Fleet;
let app: App;
let url: string;

beforeAll(async () => {
  fleet = await openFleet();
  await fleet.startWorker();
  app = await createApp({
    stores: fleet.test.stores,
    client: fleet.tasks,
    plan: planLikeShipped(),
    rerate: rerateWith(fleet.test),
    probes: {},
    breakers: { report: async () => ({ ...HEALTHY, breakers: [] }) },
    metrics: createMetrics(),
    log: fleet.test.log,
    isStoreAway: () => false,
    settings: { auth: 'off', adminKey: undefined, heartbeatMs: 1_000 },
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  const address = app.server.address() as AddressInfo; // it listens on a port
  url = `http://127.0.0.1:${address.port}/api/v1`;
});
afterAll(async () => {
  await app?.close();
  await fleet?.[Symbol.asyncDispose]();
});

async function submit(input: object, headers: Record<string, string> = {}) {
  const body = JSON.stringify({ userId: 'e2e', ...input });
  const response = await fetch(`${url}/tasks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  });
  return { status: response.status, task: await response.json() };
}

const show = async (path: string) => (await fetch(`${url}${path}`)).json();

/** Reads events until `enough`, then leaves. */
async function read(
  taskId: string,
  after: string | undefined,
  enough: (events: readonly TaskEvent[]) => boolean,
): Promise<TaskEvent[]> {
  const headers: Record<string, string> = after === undefined ? {} : { 'last-event-id': after };
  const response = await fetch(`${url}/tasks/${taskId}/stream`, {
    headers,
    signal: AbortSignal.timeout(25_000),
  });
  let text = '';
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    const whole = text.slice(0, text.lastIndexOf('\n\n') + 1);
    const events = [...whole.matchAll(/^data: (.+)$/gm)].map(
      ([, data]) => JSON.parse(data ?? '') as TaskEvent,
    );
    // Leaving the loop closes the connection.
    if (enough(events)) return events;
  }
  return [...text.matchAll(/^data: (.+)$/gm)].map(([, data]) => JSON.parse(data ?? '') as TaskEvent);
}

test('a reader that comes and goes has the text of the result, and the ledger has its cost', async () => {
  const { task } = await submit({
    query: 'Explain leases in exactly 200 tokens. [[sim:{"chunkDelayMs":20,"id":"r1"}]]',
  });
  const all: TaskEvent[] = [];
  let visits = 0;
  while (all.at(-1)?.type !== 'stream_end') {
    const last = all.at(-1);
    all.push(...(await read(task.taskId, last && formatCursor(last), (events) => events.length >= 8)));
    visits += 1;
  }
  expect(visits).toBeGreaterThan(2);
  expect(all.map((event) => event.seq)).toEqual(all.map((_, index) => index + 1));
  const ended = await show(`/tasks/${task.taskId}`);
  expect(ended).toMatchObject({
    status: 'completed',
    usage: { outputTokens: 200 },
    model: 'simulated/small',
  });
  expect(textOf(all)).toBe(ended.result.text);
  const report = await show(`/usage?group=task&task=${task.taskId}`);
  expect(report.groups).toMatchObject([
    { task: task.taskId, calls: 1, attempts: 1, costUsd: ended.costUsd, billableUsd: ended.costUsd },
  ]);
  expect(Number(ended.costUsd)).toBeGreaterThan(0);
});

test('a task that is waited for comes with its answer', async () => {
  const { status, task } = await submit({ query: 'What is a weir?' }, { prefer: 'wait=20' });
  expect(status).toBe(200);
  expect(task.result.text.length).toBeGreaterThan(20);
});

test('a task that is cancelled in mid-stream says so to its readers', async () => {
  const { task } = await submit({
    query: 'Explain leases in exactly 2000 tokens. [[sim:{"chunkDelayMs":50,"id":"c1"}]]',
  });
  const begun = await read(task.taskId, undefined, (events) =>
    events.some((event) => event.type === 'call_delta'),
  );
  const asked = await fetch(`${url}/tasks/${task.taskId}/cancel`, { method: 'POST' });
  expect(asked.status).toBe(202);
  const last = begun.at(-1);
  const rest = await read(task.taskId, last && formatCursor(last), () => false);
  expect(typesOf(rest)).toMatch(/task_cancelled stream_end$/);
  expect(await show(`/tasks/${task.taskId}`)).toMatchObject({ status: 'cancelled' });
  expect((await fetch(`${url}/tasks/${task.taskId}/cancel`, { method: 'POST' })).status).toBe(200);
});

test('a task that its user cannot pay for fails with the figures of the limit that was put', async () => {
  const put = await fetch(`${url}/budgets/user/poor`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ limits: [{ unit: 'usd', amount: '0.000001' }] }),
  });
  expect(put.status).toBe(200);
  const { status, task } = await submit({ userId: 'poor', query: 'What is a weir?' }, { prefer: 'wait=20' });
  expect(status).toBe(200);
  const details = {
    type: 'BudgetExceeded',
    scope: 'user',
    id: 'poor',
    unit: 'usd',
    limit: '0.000001',
    settled: '0.00',
  };
  expect(task).toMatchObject({
    status: 'failed',
    costUsd: '0.00',
    error: { type: 'BudgetExceeded', details },
  });
  const explained = await show('/budgets/user/poor/explain');
  expect(explained.lastRefusal).toMatchObject(details);
});

test('a task that a plain client started with a bad input is known by its failure', async () => {
  const taskId = `${fleet.queuePrefix}-plain`;
  await fleet.temporal.workflow.start('runTask', {
    workflowId: taskId,
    taskQueue: `${fleet.queuePrefix}-normal`,
    args: [{ userId: 'plain', query: '' }],
  });
  expect(typesOf(await read(taskId, undefined, () => false))).toBe('stream_end');
  expect(await show(`/tasks/${taskId}`)).toMatchObject({
    status: 'failed',
    error: { type: 'InvalidTask', details: { faults: [{ path: 'query' }] } },
  });
});
