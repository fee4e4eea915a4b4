// Set-up step: a Redis (or Valkey) server program. It finds or installs the program and never leaves one running.
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, SetupError, tail, which } from './setup-command.mjs';

const PROGRAMS = ['redis-server', 'valkey-server'];
const OLDEST = 7;

/** Package managers in the order they are looked for; packages in the order they are tried. */
const MANAGERS = [
  {
    command: 'apt-get',
    packages: ['redis-server', 'valkey-server'],
    refresh: ['update', '-q'],
    install: ['-o', 'DPkg::Lock::Timeout=120', 'install', '-y', '-q', '--no-install-recommends'],
    hint: 'sudo apt-get install redis-server',
  },
  {
    command: 'dnf',
    packages: ['valkey', 'redis'],
    install: ['install', '-y'],
    hint: 'sudo dnf install valkey',
  },
  { command: 'apk', packages: ['redis', 'valkey'], install: ['add'], hint: 'sudo apk add redis' },
  {
    command: 'pacman',
    packages: ['valkey', 'redis'],
    install: ['-Sy', '--noconfirm', '--needed'],
    hint: 'sudo pacman -S valkey',
  },
  {
    command: 'zypper',
    packages: ['redis', 'valkey'],
    install: ['--non-interactive', 'install'],
    hint: 'sudo zypper install redis',
  },
];

/**
 * Finds a Redis server program, or installs one with the system's package manager when we are root.
 *
 * @returns {Promise<{path: string | null, text: string}>} path null: REDIS_URL says where a server runs
 */
export async function setUpRedis({ env, platform, isRoot, say, systemRoot = '/' }) {
  if (env.REDIS_URL || env.REDIS_URL_FILE) return { path: null, text: 'REDIS_URL is set, nothing to start' };
  const found = await findServer(env);
  if (found.path !== null) return found;
  if (platform === 'darwin') throw new SetupError(noRedis('brew install redis', found.text));
  const manager = MANAGERS.find(({ command }) => which(command, env) !== null);
  if (manager === undefined)
    throw new SetupError(noRedis('with the package manager of this system', found.text));
  if (!isRoot) throw new SetupError(noRedis(manager.hint, found.text));
  say(`installing it with ${manager.command}`);
  const output = await install(manager, env, systemRoot);
  const installed = await findServer(env);
  if (installed.path !== null)
    return { ...installed, text: `${installed.text}, installed with ${manager.command}` };
  throw new SetupError(
    `${noRedis(manager.hint, found.text)}\n${manager.command} was tried and said:\n${tail(output)}`,
  );
}

function noRedis(hint, found) {
  return (
    `there is no Redis ${OLDEST} or newer to start (${found}).\n` +
    `Install it (${hint}), or set REDIS_URL to one that runs; then run the same command again.`
  );
}

async function findServer(env) {
  let text = `neither ${PROGRAMS.join(' nor ')} is on the PATH`;
  for (const name of PROGRAMS) {
    const path = which(name, env);
    if (path === null) continue;
    const { output } = await run(path, ['--version'], { env });
    const version = /\bv=(\d+)\.(\d+\.\d+)/.exec(output);
    if (version !== null && Number(version[1]) >= OLDEST) {
      return { path, text: `${path} ${version[1]}.${version[2]}` };
    }
    text = `${path} says ${output.trim().split('\n')[0] || 'nothing'}`;
  }
  return { path: null, text };
}

/** Tries each package; lists of packages are fetched only when that failed. Answers what the last attempt said. */
async function install(manager, env, systemRoot) {
  const quietEnv = { ...env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const policy = forbidServices(manager, systemRoot);
  let output = '';
  try {
    const rounds = manager.refresh === undefined ? [false] : [false, true];
    for (const refresh of rounds) {
      if (refresh) await run(manager.command, manager.refresh, { env: quietEnv });
      for (const name of manager.packages) {
        const result = await run(manager.command, [...manager.install, name], { env: quietEnv });
        if (result.code === 0) return result.output;
        output = result.output;
      }
    }
    return output;
  } finally {
    if (policy !== null) rmSync(policy, { force: true });
    await disableServices(env, systemRoot);
  }
}

/** Debian starts what it installs unless a file says no; one that was there before is its owner's business. */
function forbidServices(manager, systemRoot) {
  const file = join(systemRoot, 'usr/sbin/policy-rc.d');
  if (manager.command !== 'apt-get' || existsSync(file)) return null;
  writeFileSync(file, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  return file;
}

/** The package also enables the service for the next boot, which would take the port of somebody's stack. */
async function disableServices(env, systemRoot) {
  if (!existsSync(join(systemRoot, 'run/systemd/system'))) return;
  for (const name of PROGRAMS) await run('systemctl', ['disable', '--now', name], { env });
}
