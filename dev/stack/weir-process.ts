// Workers, the gateway, and the two commands that run before them: Weir's own processes, as the stack starts them.
import { fileURLToPath } from 'node:url';
import { type Child, describeExit } from './child.ts';
import type { PortWish } from './ports.ts';
import { answersOk, waitUntilReady } from './ready.ts';
import type { Server, StartContext } from './server.ts';
import { StackError } from './stack-error.ts';

/** Arguments of the Node program for each process; the tests put stand-ins here. */
export type Commands = {
  worker: readonly string[];
  gateway: readonly string[];
  migrate: readonly string[];
  /** the path of the bundle is appended */
  bundle: readonly string[];
  /** default: the simulated provider of this repository */
  provider?: readonly string[];
};

const source = (name: string): string => fileURLToPath(new URL(`../../src/${name}`, import.meta.url));

export const WEIR_COMMANDS: Commands = {
  worker: [source('worker.ts')],
  gateway: [source('gateway.ts')],
  migrate: [source('cli.ts'), 'migrate'],
  bundle: [source('cli.ts'), 'bundle', '--out'],
};

export type WeirProcess = {
  /** gateway, worker-1, … */
  name: string;
  command: readonly string[];
  /** the address that a client uses, without the port */
  host: string;
  port: PortWish;
  /** tells the process the port that was found, and what of the inherited environment it must not see (undefined) */
  variables: (port: number) => NodeJS.ProcessEnv;
  /** how long running calls may take to finish */
  graceMs: number;
};

const READY_MS = 90_000;
const COMMAND_MS = 120_000;

/**
 * Starts a process and waits until its readiness page says that it reaches Temporal, Redis and Postgres.
 *
 * @returns address: base URL of its pages
 * @throws StackError when it does not get ready
 */
export function startWeirProcess(context: StartContext, options: WeirProcess): Promise<Server> {
  const { name, command, host } = options;
  return context.ports.use([options.port], async ([port = 0]) => {
    const child = await context.table.launch({
      name,
      command: process.execPath,
      args: command,
      env: { ...context.environment, ...options.variables(port) },
      // it closes what it opened after its calls have finished
      stop: { signal: 'SIGTERM', graceMs: options.graceMs + 5_000 },
    });
    const address = `http://${host}:${port}`;
    const probe = () => answersOk(`${address}/health/ready`);
    await waitUntilReady(child, probe, {
      what: name,
      timeoutMs: READY_MS,
      ports: [port],
      signal: context.signal,
    });
    return { child, address, port };
  });
}

/**
 * Runs a command to its end.
 *
 * @throws StackError when it fails, takes over two minutes, or the signal comes
 */
export async function runWeirCommand(
  { table, environment, signal }: StartContext,
  { name, args }: { name: string; args: readonly string[] },
): Promise<void> {
  const child = await table.launch({
    name,
    command: process.execPath,
    args,
    env: environment,
    stop: { signal: 'SIGTERM', graceMs: 2_000 },
  });
  const late = AbortSignal.timeout(COMMAND_MS);
  const exit = await exitOrSignal(child, AbortSignal.any([signal, late]));
  if (exit.code === 0) return;
  const reason = late.aborted
    ? `was not done after ${COMMAND_MS / 1000} s`
    : `ended with ${describeExit(exit)}`;
  throw new StackError(`${name} ${reason}\n${child.tail()}`);
}

async function exitOrSignal(child: Child, signal: AbortSignal) {
  const stop = () => void child.stop();
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop);
  try {
    return await child.exited;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
