// Set-up step: a Redis (or Valkey) server program. It finds or installs the program and never leaves one running.
import { run, SetupError, tail, which } from './setup-command.mjs';
import { findManager, installHint, installPackage } from './setup-system.mjs';

const PROGRAMS = ['redis-server', 'valkey-server'];
const OLDEST = 7;

/** Packages in the order they are tried, by package manager. */
const PACKAGES = {
  'apt-get': ['redis-server', 'valkey-server'],
  dnf: ['valkey', 'redis'],
  apk: ['redis', 'valkey'],
  pacman: ['valkey', 'redis'],
  zypper: ['redis', 'valkey'],
};

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
  const manager = findManager(env);
  if (manager === undefined)
    throw new SetupError(noRedis('with the package manager of this system', found.text));
  const packages = PACKAGES[manager.command];
  const hint = installHint(manager, packages[0]);
  if (!isRoot) throw new SetupError(noRedis(hint, found.text));
  say(`installing it with ${manager.command}`);
  const output = await installPackage(manager, { packages, services: PROGRAMS, env, systemRoot });
  const installed = await findServer(env);
  if (installed.path !== null)
    return { ...installed, text: `${installed.text}, installed with ${manager.command}` };
  throw new SetupError(
    `${noRedis(hint, found.text)}\n${manager.command} was tried and said:\n${tail(output)}`,
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
