// What a stack may be told, and what that means once the environment has been looked at. No process is started here.
import { resolve } from 'node:path';
import { parseDuration } from '../../src/config/durations.ts';
import { given } from './external.ts';
import { type Commands, WEIR_COMMANDS } from './weir-process.ts';

/** Preferred ports; 0: any free one. */
export type StackPorts = {
  gateway: number;
  /** of the first worker; the others take the next free ones */
  metrics: number;
  temporal: number;
  temporalUi: number;
  redis: number;
  postgres: number;
  provider: number;
};

export type StackOptions = {
  /** folder for data, logs and stack.json; one stack at a time */
  stateDir: string;
  /** number of worker processes */
  workers: number;
  /** false: servers only, no migrations, workers or gateway */
  processes?: boolean;
  ports?: Partial<StackPorts>;
  /** commits to Postgres wait for the disk; default: until the operating system has them, which a crash of the machine may lose */
  durable?: boolean;
  /** further arguments of the simulated provider */
  providerArgs?: readonly string[];
  /** further variables; they win over `environment` and over what the stack itself passes to its processes */
  env?: Readonly<Record<string, string>>;
  /** where addresses, keys and PATH come from, and what processes inherit; default: our own environment */
  environment?: NodeJS.ProcessEnv;
  /** stand-ins for tests */
  commands?: Partial<Commands>;
  /** how long workers may let running calls finish; default: WEIR_SHUTDOWN_GRACE, else 30 s */
  graceMs?: number;
  /** gets one message per event, possibly of several lines */
  log?: (line: string) => void;
  /** ends a start that is under way; `startStack` then rejects after having stopped everything */
  signal?: AbortSignal;
  /** kills every process at once, while starting, running or stopping */
  kill?: AbortSignal;
};

export type ResolvedOptions = Required<Omit<StackOptions, 'signal' | 'kill' | 'ports' | 'commands'>> & {
  ports: StackPorts;
  commands: Commands;
  signal: AbortSignal;
  kill: AbortSignal;
  /** undefined: requests need no key */
  adminKey: string | undefined;
  gatewayHost: string;
};

const DEFAULT_GRACE_MS = 30_000;

/** Fills in defaults, and what the environment says. */
export function resolveOptions(options: StackOptions): ResolvedOptions {
  const environment = { ...(options.environment ?? ownEnvironment()), ...options.env };
  const never = new AbortController().signal;
  return {
    ...options,
    environment,
    stateDir: resolve(options.stateDir),
    processes: options.processes ?? true,
    ports: { ...preferredPorts(environment), ...options.ports },
    commands: { ...WEIR_COMMANDS, ...options.commands },
    durable: options.durable ?? false,
    providerArgs: options.providerArgs ?? [],
    env: options.env ?? {},
    graceMs: options.graceMs ?? parseDuration(environment['WEIR_SHUTDOWN_GRACE'] ?? '') ?? DEFAULT_GRACE_MS,
    log: options.log ?? ((line) => void process.stdout.write(`${line}\n`)),
    signal: options.signal ?? never,
    kill: options.kill ?? never,
    adminKey: given(environment, 'WEIR_ADMIN_KEY'),
    gatewayHost: environment['WEIR_GATEWAY_HOST'] || '127.0.0.1',
  };
}

/** The usual ports. Numbers that the processes themselves would refuse are left to them to complain about. */
function preferredPorts(environment: NodeJS.ProcessEnv): StackPorts {
  const from = (name: string, usual: number) => {
    const text = environment[name] ?? '';
    return /^\d{1,5}$/.test(text) && Number(text) < 65_536 ? Number(text) : usual;
  };
  return {
    gateway: from('WEIR_GATEWAY_PORT', 8080),
    metrics: from('METRICS_PORT', 2112),
    temporal: 7233,
    temporalUi: 8233,
    redis: 6379,
    postgres: 5432,
    provider: 0,
  };
}

function ownEnvironment(): NodeJS.ProcessEnv {
  return process.env;
}
