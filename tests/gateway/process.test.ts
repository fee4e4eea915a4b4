// The gateway as a process: it refuses to start where it must, serves what the servers hold, and stops while streams are open.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { openTestStores, type TestStores } from '../support/stores.ts';
import { createStoredTask } from './events.ts';

let servers: TestStores;

beforeAll(async () => {
  servers = await openTestStores();
});
afterAll(() => servers[Symbol.asyncDispose]());

const GATEWAY = new URL('../../src/gateway.ts', import.meta.url).pathname;

function start(env: Record<string, string>) {
  const given = inject('servers');
  const child = spawn(process.execPath, [GATEWAY], {
    env: {
      PATH: process.env['PATH'] ?? '',
      TEMPORAL_ADDRESS: given.temporal,
      DATABASE_URL: given.postgres,
      REDIS_URL: given.redis,
      WEIR_POSTGRES_SCHEMA: servers.schema,
      WEIR_REDIS_KEY_PREFIX: servers.prefix,
      WEIR_QUEUE_PREFIX: servers.prefix,
      WEIR_LOG_FORMAT: 'json',
      WEIR_GATEWAY_PORT: '0',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { out: '', error: '' };
  child.stdout.on('data', (chunk) => {
    output.out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    output.error += chunk;
  });
  const ready = () =>
    eventually(() => {
      const url = /"gateway is ready".*?"url":"([^"]+)"/.exec(output.out)?.[1];
      if (url === undefined) throw new Error(`the gateway is not ready: ${output.out}${output.error}`);
      return url;
    }, 50_000);
  return { child, output, exit: once(child, 'exit'), ready };
}

test('serves the API from the real servers, and stops although a stream is open', {
  timeout: 90_000,
}, async () => {
  const { child, output, exit, ready } = start({ WEIR_AUTH: 'off' });
  const url = await ready();
  expect(await (await fetch(`${url}/health/ready`)).json()).toEqual({
    ready: true,
    checks: { temporal: 'ok', redis: 'ok', postgres: 'ok' },
  });
  expect((await fetch(`${url}/api/v1/tasks/nobody`)).status).toBe(404);
  const submitted = await fetch(`${url}/api/v1/tasks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ userId: 'u1', query: 'nobody works on this', model: 'simulated/small' }),
  });
  const { taskId } = (await submitted.json()) as { taskId: string };
  expect(submitted.status).toBe(202);
  const cancelled = await fetch(`${url}/api/v1/tasks/${taskId}/cancel`, { method: 'POST' });
  expect(cancelled.status).toBe(202);
  const metrics = await (await fetch(`${url}/metrics`)).text();
  expect(metrics).toContain(
    'weir_grpc_request_duration_seconds_count{service="WorkflowService",method="StartWorkflowExecution",status="OK"} 1',
  );
  expect(metrics).toContain('weir_breaker_state{breaker="temporal"} 0');

  await createStoredTask(servers, 'open-1').begin();
  const stream = await fetch(`${url}/api/v1/tasks/open-1/stream`);
  const text = stream.text();
  child.kill('SIGTERM');
  expect(await exit).toEqual([0, null]);
  expect(await text).toContain(': the gateway stops, come back');
  expect(output.error).toBe('');
});

test('waits for a request at the first signal, and ends at once at the second', {
  timeout: 90_000,
}, async () => {
  const { child, output, exit, ready } = start({ WEIR_AUTH: 'off', WEIR_GATEWAY_SHUTDOWN_GRACE: '1h' });
  const client = connect(Number(new URL(await ready()).port), '127.0.0.1');
  client.on('error', () => undefined /* it is cut in the end */);
  // A body that never comes to its end: the request is under way once the gateway has said that it goes on.
  client.write('POST /api/v1/tasks HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n');
  client.write('content-length: 99\r\nexpect: 100-continue\r\n\r\n{');
  await once(client, 'data');
  child.kill('SIGTERM');
  await eventually(() => expect(output.out).toContain('"gateway stops"'));
  expect(child.exitCode).toBe(null);
  child.kill('SIGINT');
  expect(await exit).toEqual([null, 'SIGINT']);
  client.destroy();
});

test.each([
  ['without a key on an address that others reach', { WEIR_GATEWAY_HOST: '0.0.0.0' }, /gateway\.adminKey/],
  [
    'with auth off on an address that others reach',
    { WEIR_GATEWAY_HOST: '0.0.0.0', WEIR_AUTH: 'off' },
    /auth: expected keys/,
  ],
])('does not start %s, and says why in one message', async (_, env, message) => {
  const { output, exit } = start(env);
  expect(await exit).toEqual([1, null]);
  expect(output.error).toMatch(message);
  expect(output.error).not.toMatch(/^\s+at /m);
});

test('does not start on a port that is in use, and names the setting', async () => {
  const taken = createServer();
  taken.listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const address = taken.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const { output, exit } = start({ WEIR_AUTH: 'off', WEIR_GATEWAY_PORT: String(port) });
  expect(await exit).toEqual([1, null]);
  expect(output.error).toBe(
    `weir gateway: port ${port} on 127.0.0.1 is in use: set WEIR_GATEWAY_PORT to another one, or 0 for a free one\n`,
  );
  taken.close();
});
