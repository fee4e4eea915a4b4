// A gateway that stops: nobody new gets in, what is under way is answered within the grace time, and what is not is cut.

import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { createStoredTask } from './events.ts';
import { openTestGateway } from './open-gateway.ts';

const RAISED = { limits: [{ unit: 'usd', window: 'total', amount: '3.00' }] } as const;

/** A gateway with one request under way, whose answer comes when the test says so. */
async function openBusyGateway(shutdownGraceMs: number) {
  const gateway = await openTestGateway({ settings: { shutdownGraceMs } });
  const url = await gateway.listen();
  await createStoredTask(gateway.test, 'raise-1').begin();
  const release = Promise.withResolvers<typeof RAISED>();
  gateway.temporal.answerUpdate = () => release.promise as never; // of a raise only the body is looked at
  const request = fetch(`${url}/api/v1/tasks/raise-1/budget`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ usd: '1.00' }),
  });
  await eventually(() => expect(gateway.temporal.told).toHaveLength(1));
  return { gateway, url, request, answer: () => release.resolve(RAISED) };
}

test('answers what is under way, and refuses whoever connects meanwhile', async () => {
  const { gateway, url, request, answer } = await openBusyGateway(60_000);
  const closed = gateway.app.close();
  const port = Number(new URL(url).port);
  await eventually(async () => {
    const socket = connect(port, '127.0.0.1');
    const [error] = await Promise.race([once(socket, 'error'), once(socket, 'connect')]).catch((e) => [e]);
    socket.destroy();
    expect(error).toMatchObject({ code: 'ECONNREFUSED' });
  });
  answer();
  const response = await request;
  expect([response.status, await response.json()]).toMatchObject([200, { taskId: 'raise-1' }]);
  await closed;
  await gateway[Symbol.asyncDispose]();
});

test('cuts what is not answered when the grace time is over', async () => {
  const { gateway, request, answer } = await openBusyGateway(50);
  const cut = expect(request).rejects.toThrow();
  await gateway.app.close();
  await cut;
  answer();
  await gateway[Symbol.asyncDispose]();
});

test('answers a request that waits for its task at once, the task being accepted', async () => {
  await using gateway = await openTestGateway({ settings: { shutdownGraceMs: 60_000 } });
  const url = await gateway.listen();
  const waiting = fetch(`${url}/api/v1/tasks`, {
    method: 'POST',
    headers: { prefer: 'wait=60', 'content-type': 'application/json' },
    body: JSON.stringify({ userId: 'u', query: 'q' }),
  });
  await eventually(() => expect(gateway.temporal.started).toHaveLength(1));
  await gateway.app.close();
  expect((await waiting).status).toBe(202);
});
