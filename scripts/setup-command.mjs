// How the set-up runs other programs and says that it cannot go on. No step lives here.
import { spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join, sep } from 'node:path';

const KEPT_OUTPUT = 64 * 1024;

/** A step that cannot be done. The message is for the user: what failed, why, and the remedy. */
export class SetupError extends Error {
  name = 'SetupError';
}

/**
 * Runs a program to its end and keeps the last 64 KB of what it wrote.
 *
 * @param {string} command a name on `env.PATH`, or a path
 * @param {string[]} args
 * @param {{env: Record<string, string | undefined>, cwd?: string, signal?: AbortSignal, onLine?: (line: string) => void}} options
 *   `onLine` gets every line of both streams; `signal` ends the program and all it started
 * @returns {Promise<{code: number | null, output: string}>} code null: ended by a signal. A program that cannot be
 *   started counts as code 127, with the reason as its output.
 */
export function run(command, args, options) {
  return new Promise((resolve) => {
    let output = '';
    let rest = '';
    const take = (chunk) => {
      output = (output + chunk).slice(-KEPT_OUTPUT);
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) options.onLine?.(line);
    };
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: options.env,
      // A group of its own, so that a signal also ends what the program started: Go dies without its compilers.
      detached: options.signal !== undefined,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', take);
    const stop = () => endGroup(child);
    if (options.signal?.aborted) stop();
    options.signal?.addEventListener('abort', stop, { once: true });
    child.on('error', (error) => {
      if (child.pid === undefined) resolve({ code: 127, output: error.message });
    });
    child.on('close', (code) => {
      options.signal?.removeEventListener('abort', stop);
      resolve({ code, output });
    });
  });
}

function endGroup({ pid }) {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGTERM');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error; // it has just ended by itself
  }
}

/** The path of a program on `env.PATH`, or null. Programs of node_modules are not what the machine offers. */
export function which(name, env) {
  for (const folder of pathWithoutModules(env).split(delimiter)) {
    const path = join(folder, name);
    if (folder !== '' && isExecutable(path)) return path;
  }
  return null;
}

/**
 * PATH without the `node_modules/.bin` folders that npm puts in front: `npm ci` deletes them while it runs, the
 * `node` in them included.
 */
export function pathWithoutModules(env) {
  const modules = `${sep}node_modules${sep}.bin`;
  return (env.PATH ?? '')
    .split(delimiter)
    .filter((folder) => !folder.endsWith(modules))
    .join(delimiter);
}

/** Whether a regular file is there that this user may run. */
export function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false; // absent, or not for us: either way it cannot be run
  }
}

/** The last lines of a program's output, indented below a message. */
export function tail(output, lines = 8) {
  const text = output.trim();
  if (text === '') return '  (it wrote nothing)';
  return text
    .split('\n')
    .slice(-lines)
    .map((line) => `  ${line}`)
    .join('\n');
}

/** Milliseconds as people read them: 0.4 s, 12 s, 3 min 05 s. */
export function formatDuration(ms) {
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`;
}
