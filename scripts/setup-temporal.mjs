// Set-up step: a Temporal dev server program, found, downloaded or built. It never starts the server.
import {
  createWriteStream,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { acquireLock } from './process-lock.mjs';
import { formatDuration, isExecutable, run, SetupError, tail, which } from './setup-command.mjs';

const OLDEST_SERVER = [1, 31];
const DOWNLOADS = 'https://temporal.download';
const REACH_MS = 5_000;
const DOWNLOAD_MS = 180_000;
const PROGRESS_MS = 20_000;
const MODULE = 'github.com/temporalio/cli';
const PROGRAM = `${MODULE}/cmd/temporal`;
const ARCHITECTURES = { x64: 'amd64', arm64: 'arm64' };

/**
 * Finds or makes the Temporal CLI, whose `server start-dev` the embedded stack runs.
 *
 * @returns {Promise<{path: string | null, text: string}>} path null: TEMPORAL_ADDRESS says where a server runs
 */
export async function setUpTemporal(context) {
  const { env, say } = context;
  if (env.TEMPORAL_ADDRESS) return { path: null, text: 'TEMPORAL_ADDRESS is set, nothing to start' };
  const onPath = await findOnPath(env);
  if (onPath.path !== null) return onPath;
  if (onPath.text !== '') say(onPath.text);
  const target = cacheTarget(context);
  if (isExecutable(target.path)) return { path: target.path, text: `from the cache, ${target.path}` };
  mkdirSync(target.folder, { recursive: true });
  const release = await waitForLock(`${target.path}.lock`, context);
  try {
    if (isExecutable(target.path))
      return { path: target.path, text: `made by another set-up, ${target.path}` };
    removeLeftovers(target);
    return await makeProgram(target, context);
  } finally {
    release();
  }
}

/** The version that a `temporal --version` line reports for its server, or null. */
function serverVersion(output) {
  const match = /\bServer (\d+)\.(\d+)\.(\d+)/.exec(output);
  return match === null ? null : match.slice(1, 4).map(Number);
}

async function findOnPath(env) {
  const path = which('temporal', env);
  if (path === null) return { path: null, text: '' };
  const version = serverVersion((await run(path, ['--version'], { env })).output);
  const oldest = OLDEST_SERVER.join('.');
  if (version === null) return { path: null, text: `${path} is not used: it names no server version` };
  const text = `${path}, server ${version.join('.')}`;
  if (isNewEnough(version)) return { path, text };
  return { path: null, text: `${text} is not used: it is older than ${oldest}` };
}

function isNewEnough([major, minor]) {
  return major > OLDEST_SERVER[0] || (major === OLDEST_SERVER[0] && minor >= OLDEST_SERVER[1]);
}

/** One place per user, machine type and version, so that all clones share what took minutes to make. */
function cacheTarget({ root, env, platform, arch }) {
  const pinned = new RegExp(`${MODULE} v(\\S+)`).exec(
    readFileSync(join(root, 'dev', 'temporal', 'go.mod'), 'utf8'),
  );
  if (pinned === null)
    throw new SetupError(`dev/temporal/go.mod requires no ${MODULE}: the checkout is damaged`);
  const home = env.HOME || homedir();
  const base =
    env.XDG_CACHE_HOME || join(home, ...(platform === 'darwin' ? ['Library', 'Caches'] : ['.cache']));
  const folder = join(base, 'weir');
  const goArch = ARCHITECTURES[arch] ?? arch;
  const name = `temporal-cli-${pinned[1]}-${platform}-${goArch}`;
  return { folder, name, path: join(folder, name), version: pinned[1], os: platform, arch: goArch };
}

async function waitForLock(file, { say, signal }) {
  const began = Date.now();
  let nextWord = 0;
  for (;;) {
    const lock = acquireLock(file);
    if (lock.kind === 'acquired') return lock.release;
    const waited = Date.now() - began;
    if (waited >= nextWord) {
      say(`another set-up (process ${lock.owner.pid}) is making it; waiting, ${formatDuration(waited)}`);
      nextWord += PROGRESS_MS;
    }
    await delay(300, undefined, { signal });
  }
}

/** Under the lock nobody else writes here: half-made files are those of set-ups that were killed. */
function removeLeftovers({ folder, name }) {
  for (const entry of readdirSync(folder)) {
    if (entry.startsWith(`${name}.tmp-`)) rmSync(join(folder, entry), { recursive: true });
  }
}

async function makeProgram(target, context) {
  const folder = mkdtempSync(`${target.path}.tmp-`);
  try {
    const downloaded = await download(target, folder, context);
    const made = downloaded ?? (await build(folder, context));
    renameSync(made.path, target.path);
    return { path: target.path, text: `${made.text}, ${target.path}` };
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 }); // a dying compiler may still be writing
  }
}

/** The official archive; null when it cannot be had, for whatever reason: then it is built. */
async function download(target, folder, { env, say, signal, downloads = DOWNLOADS }) {
  const url = `${downloads}/cli/archive/v${target.version}?platform=${target.os}&arch=${target.arch}`;
  say(`downloading the CLI ${target.version}`);
  const archive = join(folder, 'temporal.tar.gz');
  try {
    await fetchTo(url, archive, signal);
  } catch (error) {
    signal?.throwIfAborted();
    say(
      `${new URL(url).host} cannot be used (${error.cause?.code ?? error.cause?.message ?? error.message})`,
    );
    return null;
  }
  const unpacked = await run('tar', ['-xzf', archive, '-C', folder], { env });
  const path = join(folder, 'temporal');
  const version = serverVersion((await run(path, ['--version'], { env })).output);
  if (version !== null && isNewEnough(version))
    return { path, text: `server ${version.join('.')}, downloaded` };
  say(`the download holds no usable server:\n${tail(unpacked.output)}`);
  return null;
}

async function fetchTo(url, file, outer) {
  const stop = new AbortController();
  const signal = outer === undefined ? stop.signal : AbortSignal.any([stop.signal, outer]);
  let timer = setTimeout(() => stop.abort(new Error(`no answer within ${REACH_MS / 1000} s`)), REACH_MS);
  try {
    const response = await fetch(url, { signal });
    if (!response.ok || response.body === null) throw new Error(`status ${response.status}`);
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(new Error('too slow')), DOWNLOAD_MS);
    await pipeline(Readable.fromWeb(response.body), createWriteStream(file), { signal });
  } finally {
    clearTimeout(timer);
  }
}

async function build(folder, { root, env, platform, signal, say }) {
  const go = which('go', env);
  if (go === null) throw new SetupError(noServer(platform, 'Go is not installed to build it'));
  const cwd = join(root, 'dev', 'temporal');
  say('building it with Go: 7 to 9 minutes on two cores, once on this machine');
  const began = Date.now();
  const packages = { total: 0, compiled: 0 };
  const timer = setInterval(() => {
    const { total, compiled } = packages;
    const part = total === 0 ? 'fetching Go modules' : `compiled ${compiled} of ${total} packages`;
    say(`building, ${part}, ${formatDuration(Date.now() - began)}`);
  }, PROGRESS_MS);
  try {
    const path = join(folder, 'temporal');
    // Go's own temporary files go with ours, also when it is killed.
    const goEnv = { ...env, GOTMPDIR: folder };
    const output = await compile(go, path, packages, { cwd, env: goEnv, signal });
    if (output !== null) throw new SetupError(buildFailed(platform, output, signal));
    const version = serverVersion((await run(path, ['--version'], { env })).output);
    if (version === null) throw new SetupError(noServer(platform, 'what Go built does not run'));
    return { path, text: `server ${version.join('.')}, built in ${formatDuration(Date.now() - began)}` };
  } finally {
    clearInterval(timer);
  }
}

/** Fetches the modules, then compiles, counting packages as it goes. Answers null, or what Go said when it failed. */
async function compile(go, path, packages, options) {
  let needed = 0;
  const onNeeded = (line) => {
    if (isPackage(line)) needed += 1;
  };
  const list = await run(go, ['list', '-deps', PROGRAM], { ...options, onLine: onNeeded });
  if (list.code !== 0) return list.output;
  packages.total = needed;
  const onCompiled = (line) => {
    if (isPackage(line)) packages.compiled += 1;
  };
  const args = ['build', '-v', '-trimpath', '-ldflags', '-s -w', '-o', path, PROGRAM];
  const built = await run(go, args, { ...options, onLine: onCompiled });
  return built.code === 0 ? null : built.output;
}

/** Go writes package paths, and between them what it fetches. */
function isPackage(line) {
  return !line.startsWith('go: ');
}

function buildFailed(platform, output, signal) {
  if (signal?.aborted) return 'the build of the Temporal server was stopped';
  return noServer(platform, `its build with Go failed:\n${tail(output)}`);
}

function noServer(platform, why) {
  const install =
    platform === 'darwin' ? 'brew install temporal, or brew install go' : 'install Go 1.26 or newer';
  return (
    `there is no Temporal server to start: ${why}\n` +
    `One of these helps: ${install}; put a \`temporal\` CLI (server ${OLDEST_SERVER.join('.')} or newer) on the PATH; ` +
    'or set TEMPORAL_ADDRESS to a server that runs. Then run the same command again.'
  );
}
