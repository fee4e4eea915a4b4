// Commands that run Weir itself: worker and gateway as child processes, the embedded stack, migrations, the workflow bundle.

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { rename, rm, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CliEnvironment } from '../config.ts';
import { joiningEnvironment } from './addresses.ts';
import { CliError } from './fault.ts';
import { say, tell } from './print.ts';

const FORWARDED = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/** Runs a process of Weir to its end; it joins a running stack where the environment names no servers. @returns its exit code */
export function runProcess(name: 'worker' | 'gateway', environment: CliEnvironment): Promise<number> {
  const path = fileURLToPath(new URL(`../${name}.ts`, import.meta.url));
  const child = spawn(process.execPath, [path], { stdio: 'inherit', env: joiningEnvironment(environment) });
  const forward = (signal: NodeJS.Signals) => {
    // From a terminal the whole group has it already.
    if (signal !== 'SIGINT' || process.stdin.isTTY !== true) child.kill(signal);
  };
  for (const signal of FORWARDED) process.on(signal, forward);
  return new Promise<number>((done, fail) => {
    child.once('error', fail);
    child.once('exit', (code, signal) =>
      done(code ?? 128 + (signal === null ? 0 : constants.signals[signal])),
    );
  }).finally(() => {
    for (const signal of FORWARDED) process.off(signal, forward);
  });
}

/** The embedded stack, until a signal. @returns the exit code */
export async function runDevCommand(options: {
  readonly stateDir: string;
  readonly workers: number;
}): Promise<number> {
  // The stack is no part of the package that production runs, so it is looked for only when asked for.
  const { runDev } = await import('../../dev/stack/dev.ts');
  return runDev({ stateDir: resolve(options.stateDir), workers: options.workers });
}

/** Brings the schema of DATABASE_URL up to date and says what was applied. */
export async function runMigrate(): Promise<void> {
  const { loadConfig } = await import('../config.ts');
  const config = loadConfig();
  const { migrate } = await import('../stores/postgres.ts');
  const applied = await migrate(config.postgres, quietLogger()).catch((error: unknown) => {
    throw new CliError(`the schema could not be brought up to date: ${describeDatabase(error)}`, error);
  });
  if (applied.length === 0) say('nothing to do');
  for (const name of applied) say(`applied ${name}`);
}

/** A refused connection comes as an AggregateError without a message. */
function describeDatabase(error: unknown): string {
  const inner: unknown = error instanceof AggregateError ? error.errors[0] : error;
  return inner instanceof Error ? inner.message : String(inner);
}

/** Writes the workflows as one file for WEIR_WORKFLOW_BUNDLE. The file is there as a whole or not at all. */
export async function runBundle(path: string): Promise<void> {
  const { bundleWorkflowCode } = await import('@temporalio/worker');
  const { code } = await bundleWorkflowCode({
    workflowsPath: workflowsPath(),
    logger: {
      ...quietLogger(),
      warn: (message: string) => tell(message),
      error: (message: string) => tell(message),
    },
  });
  const target = resolve(path);
  const partial = `${target}.${randomUUID()}.part`;
  try {
    await writeFile(partial, code);
    await rename(partial, target);
  } catch (error) {
    await rm(partial, { force: true });
    throw new CliError(
      `${target} cannot be written: ${error instanceof Error ? error.message : error}`,
      error,
    );
  }
  say(`${target}: ${Math.round(code.length / 1024)} KB`);
}

/** The file that Temporal bundles from. */
export function workflowsPath(): string {
  return fileURLToPath(new URL('../workflows/index.ts', import.meta.url));
}

/** A logger that says nothing, for Weir's parts and Temporal's alike: commands speak for themselves, and report what was thrown. */
export function quietLogger() {
  const nothing = () => undefined;
  const lines = {
    log: nothing,
    trace: nothing,
    debug: nothing,
    info: nothing,
    warn: nothing,
    error: nothing,
  };
  const logger = { ...lines, isDebugEnabled: false, child: () => logger };
  return logger;
}
