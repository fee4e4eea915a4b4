// What goes wrong when a stack starts, runs or is killed itself: one clear message, and no process left behind. The
// servers run once for all tests; each test has a state folder of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { stopLeftovers } from '../../dev/stack/process-table.ts';
import { type Stack, type StackInfo, type StackOptions, startStack } from '../../dev/stack/stack.ts';
import { checkStateFolder } from '../../dev/stack/state-folder.ts';
import { isRunning, type ProcessRecord, processStart } from '../../scripts/process-lock.mjs';
import { STAND_INS, standIn } from './stack/stand-in.ts';
import { until } from './stack/until.ts';

// several processes one after the other, on a machine that may be busy
vi.setConfig({ testTimeout: 30_000 });

const FREE = { gateway: 0, metrics: 0, temporal: 0, temporalUi: 0, redis: 0, postgres: 0 };
const base = mkdtempSync(join(tmpdir(), 'weir-faults-'));
const quiet = () => undefined;
const outputs = new WeakMap<ChildProcess, string>();
const launched: { child: ChildProcess; stateDir: string }[] = [];
let servers: Stack;
let count = 0;

beforeAll(async () => {
  servers = await startStack({
    ...{ stateDir: join(base, 'servers'), workers: 0, processes: false, ports: FREE, log: quiet },
    environment: pathOnly(),
  });
}, 60_000);

afterAll(async () => {
  await servers?.stop();
  rmSync(base, { recursive: true, force: true });
}, 60_000);

// What a test that failed half way has left running is a nuisance to whoever looks into it.
afterEach(async () => {
  for (const { child, stateDir } of launched.splice(0)) {
    child.kill('SIGKILL');
    await stopLeftovers(stateDir, quiet);
  }
});

test('names what is wrong with a state folder that is a file', async () => {
  const stateDir = join(base, 'a-file');
  writeFileSync(stateDir, '');
  await expect(startStack({ stateDir, workers: 1, log: quiet })).rejects.toThrow(
    `the state folder ${stateDir} cannot be written`,
  );
});

test('names the room that a full disk does not have', () => {
  expect(() => checkStateFolder(base, Number.MAX_SAFE_INTEGER)).toThrow(
    /is full \(\d+ MB free, .* make room, or set WEIR_STATE_DIR/,
  );
});

test('names the set-up when a program is gone, before anything is started', async () => {
  const stateDir = newFolder();
  writeFileSync(
    join(stateDir, 'tools.json'),
    JSON.stringify({ temporal: '/gone/temporal', redis: '/gone/redis' }),
  );
  await expect(startStack({ stateDir, workers: 1, environment: pathOnly(), log: quiet })).rejects.toThrow(
    'there is no temporal server program to start (/gone/temporal is gone): run `npm run setup`, or set TEMPORAL_ADDRESS',
  );
  expectNothingLeft(stateDir);
});

test('shows the last words of a server that dies while it starts, and stops the others', async () => {
  const stateDir = newFolder();
  const temporal = join(stateDir, 'temporal');
  writeFileSync(temporal, '#!/bin/sh\necho no room for a shard\nexit 3\n', { mode: 0o755 });
  writeFileSync(join(stateDir, 'tools.json'), JSON.stringify({ temporal }));
  const { TEMPORAL_ADDRESS: _, ...environment } = serversEnvironment();
  await expect(start(stateDir, { environment })).rejects.toThrow(
    /^Temporal ended while it was starting, with code 3\n {2}no room for a shard\n {2}\(log: /,
  );
  expectNothingLeft(stateDir);
});

test('shows the last words of a migration that fails', async () => {
  const stateDir = newFolder();
  const commands = { ...STAND_INS, migrate: ['-e', 'throw new Error("no such schema")'] };
  await expect(start(stateDir, { commands })).rejects.toThrow(
    /migrate ended with code 1[\s\S]*no such schema/,
  );
  expectNothingLeft(stateDir);
});

test('names the variable of a server that is given and does not answer', async () => {
  const stateDir = newFolder();
  const environment = { ...serversEnvironment(), REDIS_URL: 'redis://somebody:secret@127.0.0.1:1' };
  await expect(start(stateDir, { environment })).rejects.toThrow(
    /the server that REDIS_URL names cannot be used \(redis:\/\/…@127.0.0.1:1: .*ECONNREFUSED/,
  );
  expectNothingLeft(stateDir);
});

test('requires keys once an admin key is set', async () => {
  const stateDir = newFolder();
  const stack = await start(stateDir, { env: { WEIR_ADMIN_KEY: 'k-1' } });
  try {
    expect(stack.info.adminKey).toBe('k-1');
    expect(stack.env['WEIR_AUTH']).toBe('keys');
    expect(stack.info.pids).toEqual({ gateway: expect.any(Number), workers: [expect.any(Number)] });
  } finally {
    await stack.stop();
  }
});

test('gives up a worker that dies at once again and again', async () => {
  const stateDir = newFolder();
  const broken = join(stateDir, 'broken');
  const stack = await start(stateDir, { env: { BROKEN_IF: broken } });
  try {
    writeFileSync(broken, '');
    await stack.killWorker(0);
    expect(await stack.failed).toMatch(
      /^worker-1 died 5 times in a row and is given up[\s\S]*broken as told/,
    );
    expect(stack.info.pids.workers).toEqual([]);
  } finally {
    await stack.stop();
  }
});

test('stops what a stack that was killed left running, when the next one starts in its folder', async () => {
  const stateDir = newFolder();
  const parent = launch('parent', stateDir);
  const { pids } = await until(() => info(stateDir));
  parent.kill('SIGKILL');
  await once(parent, 'exit');
  const left = [pids.gateway ?? 0, ...pids.workers].map((pid) => ({ pid, started: processStart(pid) }));
  expect(left.every(({ started }) => started !== null)).toBe(true);
  const lines: string[] = [];
  const stack = await start(stateDir, { log: (line) => void lines.push(line) });
  await stack.stop();
  expect(lines.join('\n')).toContain(`an earlier stack was killed; stopping what it left running`);
  expect(lines.join('\n')).toContain(`worker-1 (process ${pids.workers[0]})`);
  expect(left.some((record) => isRunning(record as ProcessRecord))).toBe(false);
});

test('does not touch a process that merely has the number of one left behind', async () => {
  const stateDir = newFolder();
  const stranger = spawn('sleep', ['60']);
  try {
    const record = { name: 'worker-1', pid: stranger.pid, started: 'of an earlier life', signal: 'SIGKILL' };
    writeFileSync(join(stateDir, 'processes.json'), JSON.stringify([record]));
    await stopLeftovers(stateDir, quiet);
    expect(processStart(stranger.pid ?? 0)).not.toBeNull();
  } finally {
    stranger.kill();
  }
});

test('stops in order on one signal, prints the URLs before, and ends with code 0', async () => {
  const stateDir = newFolder();
  const child = launch('dev', stateDir);
  const { gateway, pids } = await until(() => info(stateDir));
  await until(() => expect(output(child)).toContain('Ctrl-C stops it'));
  child.kill('SIGINT');
  expect(await once(child, 'exit')).toEqual([0, null]);
  expect(output(child)).toContain(`API docs            ${gateway}/docs`);
  expect(output(child)).toMatch(/stopped\n$/);
  expect(readFileSync(join(stateDir, 'logs', 'worker-1.log'), 'utf8')).toMatch(/drained\n$/);
  expect(processStart(pids.workers[0] ?? 0)).toBeNull();
  expectNothingLeft(stateDir);
});

test('kills what does not stop on a second signal', async () => {
  const stateDir = newFolder();
  const child = launch('dev', stateDir, { IGNORES_SIGTERM: 'true' });
  const { pids } = await until(() => info(stateDir));
  child.kill('SIGINT');
  const logFile = join(stateDir, 'logs', 'gateway.log');
  await until(() => expect(readFileSync(logFile, 'utf8')).toContain('told to stop, and does not'));
  child.kill('SIGINT');
  expect(await once(child, 'exit')).toEqual([0, null]);
  for (const pid of [pids.gateway ?? 0, ...pids.workers]) expect(processStart(pid)).toBeNull();
  expectNothingLeft(stateDir);
});

test('stops a start that is under way on a signal', async () => {
  const stateDir = newFolder();
  const stop = new AbortController();
  const commands = { ...STAND_INS, gateway: ['-e', 'setInterval(() => undefined, 1000)'] };
  const starting = start(stateDir, { commands, signal: stop.signal });
  await until(() => expect(existsSync(join(stateDir, 'logs', 'gateway.log'))).toBe(true));
  stop.abort();
  await expect(starting).rejects.toThrow('the stack was stopped while it was starting');
  expectNothingLeft(stateDir);
});

/** Weir's own processes as stand-ins, on the servers that run for all tests. */
function start(stateDir: string, options: Partial<StackOptions>): Promise<Stack> {
  const environment = serversEnvironment();
  return startStack({
    stateDir,
    workers: 1,
    ports: FREE,
    commands: STAND_INS,
    log: quiet,
    environment,
    ...options,
  });
}

function serversEnvironment(): NodeJS.ProcessEnv {
  return { ...pathOnly(), ...servers.env };
}

function pathOnly(): NodeJS.ProcessEnv {
  const { PATH, HOME } = process.env;
  return { PATH, HOME };
}

function launch(role: string, stateDir: string, extra: NodeJS.ProcessEnv = {}): ChildProcess {
  const child = spawn(process.execPath, standIn(role, stateDir), {
    env: { ...serversEnvironment(), ...extra },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  outputs.set(child, '');
  launched.push({ child, stateDir });
  child.stdout.on('data', (chunk) => outputs.set(child, output(child) + chunk));
  return child;
}

function output(child: ChildProcess): string {
  return outputs.get(child) ?? '';
}

function newFolder(): string {
  count += 1;
  const stateDir = join(base, `stack-${count}`);
  mkdirSync(stateDir);
  return stateDir;
}

function info(stateDir: string): StackInfo {
  return JSON.parse(readFileSync(join(stateDir, 'stack.json'), 'utf8')) as StackInfo;
}

/** The table of processes is removed only when each of them is gone. */
function expectNothingLeft(stateDir: string): void {
  expect(readdirSync(stateDir).filter((name) => /stack|processes|lock|probe|tmp/.test(name))).toEqual([]);
}
