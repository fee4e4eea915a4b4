// Set-up step of `npm test` alone: the programs of others through which event streams are read there, nginx and Chromium. Finds or
// installs them and starts neither; nothing that Weir does needs them.
import { join } from 'node:path';
import { isExecutable, SetupError, tail, which } from './setup-command.mjs';
import { findManager, installHint, installPackage } from './setup-system.mjs';

const PROGRAMS = [
  {
    name: 'nginx',
    commands: ['nginx'],
    // Debian keeps it where the PATH of an ordinary user does not look.
    places: ['usr/sbin/nginx', 'usr/local/sbin/nginx', 'opt/homebrew/bin/nginx'],
    packages: { default: ['nginx'] },
    brew: 'brew install nginx',
  },
  {
    name: 'chromium',
    commands: ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'],
    places: [
      'Applications/Chromium.app/Contents/MacOS/Chromium',
      'Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
    ],
    packages: { default: ['chromium'], 'apt-get': ['chromium', 'chromium-browser'] },
    brew: 'brew install --cask chromium',
  },
];

/**
 * Finds nginx and Chromium, and installs what is missing with the system's package manager when we are root.
 *
 * @param {{env: Record<string, string | undefined>, platform?: string, isRoot?: boolean, systemRoot?: string,
 *   say?: (line: string) => void}} options
 * @returns {Promise<{nginx: string, chromium: string}>} paths of the programs
 * @throws {SetupError} what is missing, and the command that installs it
 */
export async function setUpReaders(options) {
  const context = {
    platform: process.platform,
    isRoot: process.getuid?.() === 0,
    systemRoot: '/',
    say: () => {},
    ...options,
  };
  const found = {};
  for (const program of PROGRAMS)
    found[program.name] = findProgram(program, context) ?? (await installProgram(program, context));
  return found;
}

function findProgram({ commands, places }, { env, systemRoot }) {
  const onPath = commands.map((command) => which(command, env)).find((path) => path !== null);
  return onPath ?? places.map((place) => join(systemRoot, place)).find((path) => isExecutable(path));
}

async function installProgram(program, context) {
  const { env, platform, isRoot, systemRoot, say } = context;
  if (platform === 'darwin') throw new SetupError(missing(program.name, program.brew));
  const manager = findManager(env);
  if (manager === undefined)
    throw new SetupError(missing(program.name, 'with the package manager of this system'));
  const packages = program.packages[manager.command] ?? program.packages.default;
  const hint = installHint(manager, packages[0]);
  if (!isRoot) throw new SetupError(missing(program.name, hint));
  say(`${program.name}: installing it with ${manager.command} …`);
  const output = await installPackage(manager, {
    packages,
    services: program.name === 'nginx' ? ['nginx'] : [],
    env,
    systemRoot,
  });
  const path = findProgram(program, context);
  if (path !== undefined) return path;
  throw new SetupError(
    `${missing(program.name, hint)}\n${manager.command} was tried and said:\n${tail(output)}`,
  );
}

function missing(name, hint) {
  return (
    `${name} is not installed, and the tests that read event streams through it fail without it.\n` +
    `Install it (${hint}), or run the tests once as root; then run the same command again.`
  );
}
