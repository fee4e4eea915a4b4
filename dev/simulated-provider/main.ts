#!/usr/bin/env node
// The simulated provider as a process: flags in, one line out when it is ready, SIGTERM or SIGINT to stop it.

import { parseArgs } from 'node:util';
import { ProblemError } from './problem.ts';
import { startSimulatedProvider } from './server.ts';

const USAGE = `usage: node dev/simulated-provider/main.ts --port N [--host 127.0.0.1] [--rpm N|unlimited] [--tpm N|unlimited]
         [--latency-ms N] [--first-token-ms N] [--chunk-delay-ms N] [--tokens-per-chunk N] [--seed N] [--log-file PATH]
`;

const TEXT = { type: 'string' } as const;
const OPTIONS = {
  port: TEXT,
  host: TEXT,
  rpm: TEXT,
  tpm: TEXT,
  'latency-ms': TEXT,
  'first-token-ms': TEXT,
  'chunk-delay-ms': TEXT,
  'tokens-per-chunk': TEXT,
  seed: TEXT,
  'log-file': TEXT,
  help: { type: 'boolean' },
} as const;

type Flags = ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>['values'];

async function main(): Promise<void> {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help === true) {
    process.stdout.write(USAGE);
    return;
  }
  const provider = await startSimulatedProvider(optionsFrom(values));
  process.stdout.write(`simulated provider listening on ${provider.url}\n`);
  const stop = () => {
    provider.close().catch(fail);
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

function optionsFrom(flags: Flags) {
  const port = numberFlag(flags, 'port', 65_535);
  if (port === undefined) throw new Error('--port is missing (0 takes a free one)');
  const given = {
    host: flags.host,
    latency: numberFlag(flags, 'latency-ms'),
    firstTokenMs: numberFlag(flags, 'first-token-ms'),
    chunkDelayMs: numberFlag(flags, 'chunk-delay-ms'),
    tokensPerChunk: numberFlag(flags, 'tokens-per-chunk'),
    seed: numberFlag(flags, 'seed'),
    logFile: flags['log-file'],
  };
  return {
    port,
    limits: { ...defined({ rpm: limitFlag(flags, 'rpm'), tpm: limitFlag(flags, 'tpm') }) },
    ...defined(given),
  };
}

function limitFlag(flags: Flags, name: 'rpm' | 'tpm'): number | undefined {
  return flags[name] === 'unlimited' ? Infinity : numberFlag(flags, name);
}

function numberFlag(flags: Flags, name: Exclude<keyof Flags, 'help'>, max = 1e12): number | undefined {
  const text = flags[name];
  if (text === undefined) return undefined;
  if (!/^\d{1,13}$/.test(text) || Number(text) > max)
    throw new Error(`--${name} must be a whole number up to ${max}, got '${text}'`);
  return Number(text);
}

function defined<T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };
}

/** One message, no stack. */
function fail(error: unknown): void {
  process.stderr.write(`simulated provider: ${messageFor(error)}\n`);
  process.exitCode = 1;
}

function messageFor(error: unknown): string {
  if (error instanceof ProblemError) return error.message;
  if (!(error instanceof Error)) return String(error);
  const { code, port, path } = error as NodeJS.ErrnoException & { port?: number };
  if (code === 'EADDRINUSE') return `port ${port} is taken: stop what listens there, or give another --port`;
  if (code === 'EACCES' && port !== undefined)
    return `port ${port} may not be used by this user: give a --port above 1023`;
  if (path !== undefined) return `the log file ${path} cannot be written (${code})`;
  return code?.startsWith('ERR_PARSE_ARGS') ? `${error.message}\n${USAGE}` : error.message;
}

main().catch(fail);
