// Runs `weir` as a user does: a process of its own, in a folder of its own, with nothing in its environment but what a test gives it.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));

type Ran = { readonly code: number | null; readonly stdout: string; readonly stderr: string };

export type Shell = AsyncDisposable & {
  /** Working folder; its `.weir` is where stack.json is looked for. */
  readonly folder: string;
  weir(args: readonly string[], env?: Readonly<Record<string, string>>, stdin?: string): Promise<Ran>;
  /** Without waiting for its end. */
  start(args: readonly string[], env?: Readonly<Record<string, string>>): Running;
};

type Running = {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly done: Promise<Ran>;
};

/** Ends what is still running when it is disposed. */
export async function openShell(): Promise<Shell> {
  const folder = await mkdtemp(join(tmpdir(), 'weir-cli-'));
  const running = new Set<ChildProcess>();
  const start: Shell['start'] = (args, env = {}) => {
    const child = spawn(process.execPath, [CLI, ...args], {
      cwd: folder,
      env: { PATH: process.env['PATH'] ?? '', HOME: folder, ...env },
    });
    running.add(child);
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const done = new Promise<Ran>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => {
        running.delete(child);
        resolve({ code, stdout, stderr });
      });
    });
    return { child, done, output: () => stdout + stderr };
  };
  return {
    folder,
    start,
    weir(args, env, stdin = '') {
      const { child, done } = start(args, env);
      child.stdin?.end(stdin);
      return done;
    },
    async [Symbol.asyncDispose]() {
      for (const child of running) child.kill('SIGKILL');
      await rm(folder, { recursive: true, force: true });
    },
  };
}
