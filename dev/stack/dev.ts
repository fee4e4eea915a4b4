// `weir dev`: a stack that stays up until somebody stops it. It only starts, tells and stops; stack.ts does the work.
import { type Stack, type StackOptions, startStack } from './stack.ts';
import { StackError } from './stack-error.ts';
import { stackFile } from './stack-info.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export type DevOptions = Omit<StackOptions, 'signal' | 'kill' | 'processes'>;

/**
 * Runs a stack until SIGINT, SIGTERM or SIGHUP, or until a part of it fails for good. The first signal stops everything
 * in order, the second kills what is left.
 *
 * @returns the exit code: 0 when it was stopped by a signal, 1 when it could not start or a part failed; what was
 *   wrong has then been written to stderr
 */
export async function runDev(options: DevOptions): Promise<number> {
  const log = options.log ?? ((line: string) => void process.stdout.write(`${line}\n`));
  const stop = new AbortController();
  const kill = new AbortController();
  const stopped = new Promise<undefined>((resolve) => {
    stop.signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
  const onSignal = () => {
    if (stop.signal.aborted) {
      log('killing what is left');
      kill.abort();
    } else {
      log('\nstopping; running calls may finish (once more kills at once)');
      stop.abort();
    }
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  try {
    return await run({ ...options, log, signal: stop.signal, kill: kill.signal }, stopped);
  } finally {
    for (const name of SIGNALS) process.off(name, onSignal);
  }
}

async function run(
  options: StackOptions & { log: (line: string) => void; signal: AbortSignal },
  stopped: Promise<undefined>,
): Promise<number> {
  let stack: Stack;
  options.log('starting the stack');
  try {
    stack = await startStack(options);
  } catch (error) {
    if (options.signal.aborted) return 0;
    return complain(error);
  }
  options.log(describe(stack, options.stateDir));
  const failure = await Promise.race([stopped, stack.failed]);
  if (failure !== undefined) process.stderr.write(`${failure}\n`);
  await stack.stop();
  options.log('stopped');
  return failure === undefined ? 0 : 1;
}

function complain(error: unknown): number {
  if (!(error instanceof StackError)) throw error;
  process.stderr.write(`the stack did not start: ${error.message}\n`);
  return 1;
}

function describe({ info }: Stack, stateDir: string): string {
  const rows: [string, string | undefined][] = [
    ['gateway', info.gateway],
    ['API docs', info.gateway && `${info.gateway}/docs`],
    ['Temporal Web UI', info.temporalUi],
    ['simulated provider', info.provider],
    ['all addresses', stackFile(stateDir)],
  ];
  const shown = rows.filter(([, value]) => value !== undefined);
  const lines = shown.map(([name, value]) => `  ${name.padEnd(20)}${value}`);
  return ['Weir is running. Ctrl-C stops it.', ...lines].join('\n');
}
