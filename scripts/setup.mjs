// Set-up: everything that `npm run demo`, `npm run dev` and `npm test` need on this machine. Runs on the host's Node
// (20 or newer) before any package is installed, so it imports nothing but Node and its own parts.
import { mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatDuration, SetupError } from './setup-command.mjs';
import { checkPostgres, setUpPackages } from './setup-packages.mjs';
import { setUpRedis } from './setup-redis.mjs';
import { setUpTemporal } from './setup-temporal.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Does all steps, the slow ones beside each other, and writes what was found to `tools.json` in the state folder.
 *
 * @param {object} options
 * @param {Record<string, string | undefined>} options.env the environment: addresses, PATH, cache folder
 * @param {string} [options.root] the checkout
 * @param {(line: string) => void} [options.log] gets one line per step and its time
 * @param {AbortSignal} [options.signal] ends a running build
 * @param {string} [options.platform] and arch, isRoot, systemRoot, downloads: other machines than this one, for tests
 * @returns {Promise<{temporal: string | null, redis: string | null}>} paths of the programs; null: an address was given
 * @throws {SetupError} the first step that cannot be done, with its remedy
 */
export async function setup(options) {
  const { env, root = ROOT, log = () => {} } = options;
  const failed = new AbortController();
  const signal = AbortSignal.any([failed.signal, ...(options.signal ? [options.signal] : [])]);
  const step = (name, work) => timed(name, work, log, failed);
  const context = {
    platform: process.platform,
    arch: process.arch,
    isRoot: process.getuid?.() === 0,
    ...options,
    root,
    signal,
  };
  const stateDir = resolve(root, env.WEIR_STATE_DIR || '.weir');
  const steps = await Promise.allSettled([
    step('packages', (say) => setUpPackages({ ...context, say })).then(() =>
      step('postgres', () => checkPostgres(context)),
    ),
    step('redis', (say) => setUpRedis({ ...context, say })),
    step('temporal', (say) => setUpTemporal({ ...context, say })),
  ]);
  options.signal?.throwIfAborted();
  failed.signal.throwIfAborted();
  const [, redis, temporal] = steps.map((result) => result.value);
  const tools = { temporal: temporal.path, redis: redis.path };
  writeTools(stateDir, tools);
  return tools;
}

/** Runs one step and says what came of it. The first failure ends the others, as far as they can be ended. */
async function timed(name, work, log, failed) {
  const began = performance.now();
  const label = name.padEnd(9);
  try {
    const result = await work((line) => log(`${label} ${line} …`));
    const text = typeof result === 'string' ? result : result.text;
    log(`${label} ${text} (${formatDuration(performance.now() - began)})`);
    return result;
  } catch (error) {
    if (!failed.signal.aborted) log(`${label} cannot be done (${formatDuration(performance.now() - began)})`);
    failed.abort(error);
    throw error;
  }
}

function writeTools(stateDir, tools) {
  const file = join(stateDir, 'tools.json');
  const text = `${JSON.stringify(tools, null, 2)}\n`;
  try {
    if (readFileSync(file, 'utf8') === text) return;
  } catch {
    // not there yet, or unreadable: the write below says what is wrong
  }
  try {
    mkdirSync(stateDir, { recursive: true });
    writeFileSync(file, text);
  } catch (error) {
    throw new SetupError(
      `${file} cannot be written (${error.code}): make the folder writable, or set WEIR_STATE_DIR to another one`,
    );
  }
}

async function main() {
  const stop = new AbortController();
  for (const [name, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ]) {
    process.once(name, () => {
      process.exitCode = code;
      stop.abort(new SetupError(`stopped by ${name}`));
    });
  }
  try {
    const env = process.env;
    await setup({ env, signal: stop.signal, log: (line) => process.stdout.write(`${line}\n`) });
  } catch (error) {
    const text = error instanceof SetupError ? error.message : error.stack;
    process.stderr.write(`\nset-up stopped: ${text}\n`);
    process.exitCode ||= 1;
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url))
  await main();
