// The cap on a tenant's tasks, and what waits in the queues, over HTTP.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PRIORITIES } from '../../src/task/input.ts';
import { openTestGateway, type TestGateway } from './open-gateway.ts';

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await openTestGateway({ stores: { maxQueued: 2 } });
});
afterAll(() => gateway[Symbol.asyncDispose]());

const NONE = { critical: 0, high: 0, normal: 0, low: 0 };
const EMPTY = { waiting: 0, oldestSeconds: 0, addedPerSecond: 0, takenPerSecond: 0 };

describe('the queues', () => {
  test('answer 503 and when to try again while nobody has counted', async () => {
    const answer = await gateway.app.inject({ url: '/api/v1/queues' });
    expect(answer.statusCode).toBe(503);
    expect(answer.json()).toMatchObject({ type: 'Unavailable', title: 'The queues are not counted' });
    expect(Number(answer.headers['retry-after-ms'])).toBeGreaterThan(0);
  });

  test('show what waits for a slot apart from what waits for a quota', async () => {
    await gateway.test.stores.queueCounts.write(
      PRIORITIES.map((priority) => ({
        queue: `weir-${priority}`,
        priority,
        workflows: EMPTY,
        activities: priority === 'high' ? { ...EMPTY, waiting: 5, oldestSeconds: 2.5 } : EMPTY,
        backlog: priority === 'high' ? { ...NONE, high: 4, normal: 1 } : NONE,
        quotaWaiting: priority === 'high' ? { ...NONE, high: 3 } : NONE,
      })),
    );
    const answer = await gateway.app.inject({ url: '/api/v1/queues' });
    expect(answer.statusCode).toBe(200);
    const { at, queues } = answer.json();
    expect(Number.isNaN(Date.parse(at))).toBe(false);
    expect(queues).toHaveLength(4);
    expect(queues[1]).toEqual({
      queue: 'weir-high',
      priority: 'high',
      backlog: 5,
      quotaWaiting: 3,
      workflows: EMPTY,
      activities: { ...EMPTY, waiting: 5, oldestSeconds: 2.5 },
      byPriority: [
        { priority: 'critical', backlog: 0, quotaWaiting: 0 },
        { priority: 'high', backlog: 4, quotaWaiting: 3 },
        { priority: 'normal', backlog: 1, quotaWaiting: 0 },
        { priority: 'low', backlog: 0, quotaWaiting: 0 },
      ],
    });
    expect(queues[0]).toMatchObject({ queue: 'weir-critical', backlog: 0, quotaWaiting: 0 });
  });
});

describe('a tenant with as many tasks as it may have', () => {
  test('is refused with 429, the reason, and when to try again; nothing is started and no row stays', async () => {
    const submit = (taskId: string, tenantId: string) =>
      gateway.app.inject({
        method: 'POST',
        url: `/api/v1/tasks?taskId=${taskId}`,
        payload: { userId: 'u1', query: 'why', tenantId },
      });
    expect((await submit('cap-1', 'acme')).statusCode).toBe(202);
    expect((await submit('cap-2', 'acme')).statusCode).toBe(202);
    const started = gateway.temporal.started.length;
    const refused = await submit('cap-3', 'acme');
    expect(refused.statusCode).toBe(429);
    expect(refused.json()).toMatchObject({ type: 'RateLimited', status: 429 });
    expect(refused.json().detail).toContain('tenant acme has 2 tasks that have not ended');
    expect(refused.headers['retry-after']).toBe('5');
    expect(gateway.temporal.started).toHaveLength(started);
    expect(await gateway.test.stores.tasks.get('cap-3')).toBeUndefined();
    expect((await submit('cap-4', 'other')).statusCode).toBe(202);
  });
});
