// The embedded stack as a whole: one stack with real servers and stand-ins for Weir's own processes, used by all tests
// in the order of a life: started, parts killed, stopped.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection } from '@temporalio/client';
import pg from 'pg';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { ask } from '../../dev/stack/ready.ts';
import { type Stack, type StackInfo, startStack } from '../../dev/stack/stack.ts';
import { stackFile } from '../../dev/stack/stack-info.ts';
import { processStart } from '../../scripts/process-lock.mjs';
import { loadConfig } from '../../src/config.ts';
import { STAND_INS } from './stack/stand-in.ts';
import { until } from './stack/until.ts';

// several processes one after the other, on a machine that may be busy
vi.setConfig({ testTimeout: 30_000 });

const stateDir = mkdtempSync(join(tmpdir(), 'weir-stack-'));
const lines: string[] = [];
let stack: Stack;
let squatter: Server;

beforeAll(async () => {
  squatter = createServer();
  await new Promise<void>((resolve) => squatter.listen(0, '127.0.0.1', resolve));
  stack = await startStack({
    stateDir,
    workers: 2,
    ports: { gateway: portOf(squatter), metrics: 0, temporal: 0, temporalUi: 0, redis: 0, postgres: 0 },
    environment: withoutAddresses(),
    commands: STAND_INS,
    log: (line) => void lines.push(line),
  });
}, 60_000);

afterAll(async () => {
  await stack?.stop();
  squatter.close();
  rmSync(stateDir, { recursive: true, force: true });
}, 60_000);

test('writes addresses that a client can use as they are', async () => {
  const info = fileInfo();
  expect(info).toEqual(stack.info);
  expect((await fetch(`${info.gateway}/health/ready`)).status).toBe(200);
  expect((await fetch(info.temporalUi ?? '')).status).toBe(200);
  expect((await fetch(`${info.provider}/v1/models`)).status).toBeLessThan(500);
  expect(await ask(Number(new URL(info.redis).port), 'PING')).toBe('+PONG\r\n');
  expect(await query(info.postgres, 'show max_connections')).toEqual([{ max_connections: '200' }]);
  expect(info.metrics).toHaveLength(3);
  expect(info.pids.workers).toHaveLength(2);
  for (const pid of allPids(info)) expect(processStart(pid)).not.toBeNull();
});

test('registers the search attributes before anybody asks for them', async () => {
  await withTemporal(async ({ connection }) => {
    const { customAttributes } = await connection.operatorService.listSearchAttributes({
      namespace: 'default',
    });
    const names = ['WeirCostUsd', 'WeirPriority', 'WeirSession', 'WeirStatus', 'WeirStrategy'];
    expect(Object.keys(customAttributes ?? {}).sort()).toEqual([
      ...names,
      'WeirTenant',
      'WeirTokens',
      'WeirUser',
    ]);
  });
});

test('gives Redis a policy that evicts nothing', async () => {
  const answer = await ask(Number(new URL(stack.info.redis).port), 'CONFIG GET maxmemory-policy');
  expect(answer).toContain('noeviction');
});

test('says that a taken port moved', () => {
  const moved = Number(new URL(stack.info.gateway ?? '').port);
  expect(moved).not.toBe(portOf(squatter));
  expect(lines).toContain(`port ${portOf(squatter)} is taken: the gateway is on ${moved}`);
});

test('tells its processes where everything is, and nothing of a Temporal elsewhere', () => {
  const seen = JSON.parse(log('worker-1').split('\n')[0] ?? '') as Record<string, string>;
  expect(seen).toMatchObject({
    TEMPORAL_ADDRESS: stack.info.temporal,
    TEMPORAL_NAMESPACE: 'default',
    DATABASE_URL: stack.info.postgres,
    REDIS_URL: stack.info.redis,
    SIMULATED_BASE_URL: `${stack.info.provider}/v1`,
    WEIR_AUTH: 'off',
    WEIR_WORKFLOW_BUNDLE: join(stateDir, 'workflow-bundle.js'),
  });
  expect(seen).toMatchObject(stack.env);
  expect(loadConfig({ env: seen }).temporal.connection).toEqual({ address: stack.info.temporal });
  expect(seen).not.toHaveProperty('TEMPORAL_API_KEY');
  expect(JSON.parse(log('gateway').split('\n')[0] ?? '')).not.toHaveProperty('METRICS_PORT');
  expect(log('migrate')).toBe('migrated\n');
  expect(log('bundle')).toBe(`bundled ${join(stateDir, 'workflow-bundle.js')}\n`);
});

test('refuses a second stack in the same folder, and leaves the first alone', async () => {
  const second = startStack({ stateDir, workers: 0, processes: false, log: () => undefined });
  await expect(second).rejects.toThrow(`a stack is already running in ${stateDir} (process ${process.pid}`);
  expect((await fetch(`${stack.info.gateway}/health/ready`)).status).toBe(200);
  expect(fileInfo()).toEqual(stack.info);
});

test('starts a dead worker again and keeps stack.json true', async () => {
  const [dead, other] = stack.info.pids.workers;
  await stack.killWorker(0);
  await until(() => expect(fileInfo().pids.workers).toEqual([other]));
  await until(() => expect(fileInfo().pids.workers).toHaveLength(2));
  expect(fileInfo().pids.workers).not.toContain(dead);
  expect(fileInfo().pids.workers).toContain(other);
  expect(lines.join('\n')).toContain(`worker-1 (process ${dead}) ended with signal SIGKILL; its last lines:`);
});

test('brings Temporal back on its file after a kill', async () => {
  const workflowId = 'survivor';
  await withTemporal(async ({ client }) => {
    await client.workflow.start('nobodyRunsThis', { taskQueue: 'none', workflowId, args: [] });
  });
  const { address, pid } = { address: stack.info.temporal, pid: stack.info.pids.temporal };
  await stack.kill('temporal');
  await until(() => expect(fileInfo().pids.temporal).toEqual(expect.any(Number)));
  expect(fileInfo().pids.temporal).not.toBe(pid);
  expect(stack.info.temporal).toBe(address);
  await withTemporal(async ({ client }) => {
    const { status } = await client.workflow.getHandle(workflowId).describe();
    expect(status.name).toBe('RUNNING');
  });
});

test('brings Postgres back with every committed row after a kill', async () => {
  const url = stack.info.postgres;
  await query(url, 'create table kept (n int)');
  await query(url, 'insert into kept values (7)');
  await stack.kill('postgres');
  await until(async () => expect(await query(url, 'select n from kept')).toEqual([{ n: 7 }]));
});

test('keeps a halted part down until it is resumed, and its data', async () => {
  const port = Number(new URL(stack.info.redis).port);
  await ask(port, 'SET kept 7');
  await stack.halt('redis', { kill: true });
  await expect(ask(port, 'PING')).rejects.toThrow('ECONNREFUSED');
  expect(fileInfo().pids).not.toHaveProperty('redis');
  await stack.resume('redis');
  expect(await ask(port, 'GET kept')).toBe('$1\r\n7\r\n');
  expect(fileInfo().pids.redis).toEqual(expect.any(Number));
});

test('stops everything it started and leaves no process, address or lock', async () => {
  const pids = allPids(stack.info);
  await stack.stop();
  for (const pid of pids) expect(processStart(pid)).toBeNull();
  expect(log('worker-2')).toMatch(/drained\n$/);
  expect(log('gateway')).toMatch(/drained\n$/);
  const left = readdirSync(stateDir).filter((name) => /stack|processes|lock/.test(name));
  expect(left).toEqual([]);
  expect(existsSync(stackFile(stateDir))).toBe(false);
});

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** The tests have an environment of their own: somebody's keys and servers must not change what is tested. */
function withoutAddresses(): NodeJS.ProcessEnv {
  const { PATH, HOME } = process.env;
  return { PATH, HOME, TEMPORAL_API_KEY: 'of another server', METRICS_PORT: '1' };
}

function fileInfo(): StackInfo {
  return JSON.parse(readFileSync(stackFile(stateDir), 'utf8')) as StackInfo;
}

function log(name: string): string {
  return readFileSync(join(stateDir, 'logs', `${name}.log`), 'utf8');
}

function allPids({ pids: { workers, ...others } }: StackInfo): number[] {
  return [...workers, ...Object.values(others)];
}

async function query(connectionString: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

async function withTemporal(use: (temporal: { client: Client; connection: Connection }) => Promise<void>) {
  const connection = await Connection.connect({ address: stack.info.temporal });
  try {
    await use({ connection, client: new Client({ connection }) });
  } finally {
    await connection.close();
  }
}
