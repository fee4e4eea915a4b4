// How the set-up installs a program of the system: by its package manager, when we are root. It never leaves a service running.
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, which } from './setup-command.mjs';

/** In the order in which they are looked for. */
const MANAGERS = [
  {
    command: 'apt-get',
    refresh: ['update', '-q'],
    install: ['-o', 'DPkg::Lock::Timeout=120', 'install', '-y', '-q', '--no-install-recommends'],
    byHand: 'apt-get install',
  },
  { command: 'dnf', install: ['install', '-y'], byHand: 'dnf install' },
  { command: 'apk', install: ['add'], byHand: 'apk add' },
  { command: 'pacman', install: ['-Sy', '--noconfirm', '--needed'], byHand: 'pacman -S' },
  { command: 'zypper', install: ['--non-interactive', 'install'], byHand: 'zypper install' },
];

/**
 * The package manager of this system, or undefined.
 *
 * @param {Record<string, string | undefined>} env
 */
export function findManager(env) {
  return MANAGERS.find(({ command }) => which(command, env) !== null);
}

/** What a person types who is not root. */
export function installHint(manager, ...packages) {
  return `sudo ${manager.byHand} ${packages.join(' ')}`;
}

/**
 * Tries each package until one is installed; lists of packages are fetched only when that failed.
 *
 * @param {(typeof MANAGERS)[number]} manager
 * @param {{packages: string[], services: string[], env: Record<string, string | undefined>, systemRoot: string}} options
 *   `services` are what the packages would have started at the next boot
 * @returns {Promise<string>} what the last attempt said
 */
export async function installPackage(manager, { packages, services, env, systemRoot }) {
  const quietEnv = { ...env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const policy = forbidServices(manager, systemRoot);
  let output = '';
  try {
    const rounds = manager.refresh === undefined ? [false] : [false, true];
    for (const refresh of rounds) {
      if (refresh) await run(manager.command, manager.refresh, { env: quietEnv });
      for (const name of packages) {
        const result = await run(manager.command, [...manager.install, name], { env: quietEnv });
        if (result.code === 0) return result.output;
        output = result.output;
      }
    }
    return output;
  } finally {
    if (policy !== null) rmSync(policy, { force: true });
    await disableServices(services, env, systemRoot);
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
async function disableServices(services, env, systemRoot) {
  if (!existsSync(join(systemRoot, 'run/systemd/system'))) return;
  for (const name of services) await run('systemctl', ['disable', '--now', name], { env });
}
