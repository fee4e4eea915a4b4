// Where the gateway and Temporal are: flags, then environment, then the file of a running stack. Addresses of two systems are never
// mixed: a task must not be started in one and looked for in another.

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { CliEnvironment } from '../config.ts';
import { CliError } from './fault.ts';

export type AddressFlags = {
  readonly url?: string | undefined;
  readonly apiKey?: string | undefined;
  readonly temporal?: string | undefined;
};

/** What a command needs of `stack.json`. */
type StackFile = {
  readonly path: string;
  readonly gateway?: string;
  readonly temporal?: string;
  readonly namespace?: string;
  readonly postgres?: string;
  readonly redis?: string;
  readonly provider?: string;
  readonly adminKey?: string;
};

export type Gateway = { readonly url: string; readonly apiKey?: string };

export type Addresses = {
  readonly gateway: Gateway | undefined;
  /** The environment that `loadConfig` is to read for this Temporal; undefined when none is known. */
  readonly temporal: { readonly environment: CliEnvironment['variables'] } | undefined;
  readonly stack: StackFile | undefined;
};

export const DEFAULT_STATE_DIR = '.weir';

/** Variables that point at a Temporal which is not the stack's. */
const TEMPORAL_ELSEWHERE = /^TEMPORAL_(API_KEY|API_KEY_FILE|TLS.*|PROFILE|CONFIG_FILE|GRPC_META_.*)$/;
const TEMPORAL_GIVEN = ['TEMPORAL_ADDRESS', 'TEMPORAL_CONFIG_FILE', 'TEMPORAL_PROFILE'] as const;

/** @throws CliError when stack.json is there and cannot be read */
export function findAddresses(flags: AddressFlags, { variables }: CliEnvironment): Addresses {
  const url = flags.url ?? variables['WEIR_URL'];
  const address = flags.temporal ?? variables['TEMPORAL_ADDRESS'];
  const isTemporalGiven =
    flags.temporal !== undefined || TEMPORAL_GIVEN.some((name) => variables[name] !== undefined);
  const file = readStackFile(variables);
  const isOther =
    (url !== undefined && !isSame(url, file?.gateway)) ||
    (isTemporalGiven && (address === undefined || !isSame(address, file?.temporal)));
  const stack = isOther ? undefined : file;
  return {
    gateway: findGateway(url, flags.apiKey ?? variables['WEIR_API_KEY'], stack),
    temporal: isTemporalGiven
      ? { environment: { ...variables, ...(address === undefined ? {} : { TEMPORAL_ADDRESS: address }) } }
      : findStackTemporal(stack, variables),
    stack,
  };
}

function findGateway(
  url: string | undefined,
  apiKey: string | undefined,
  stack: StackFile | undefined,
): Gateway | undefined {
  const found = url ?? stack?.gateway;
  if (found === undefined) return undefined;
  const key = apiKey ?? stack?.adminKey;
  return { url: found, ...(key === undefined ? {} : { apiKey: key }) };
}

function findStackTemporal(
  stack: StackFile | undefined,
  variables: CliEnvironment['variables'],
): Addresses['temporal'] {
  if (stack?.temporal === undefined) return undefined;
  return { environment: { ...withoutTemporal(variables), ...temporalVariables(stack) } };
}

function temporalVariables(stack: StackFile): Record<string, string> {
  return {
    ...(stack.temporal === undefined ? {} : { TEMPORAL_ADDRESS: stack.temporal }),
    ...(stack.namespace === undefined ? {} : { TEMPORAL_NAMESPACE: stack.namespace }),
  };
}

function withoutTemporal(variables: CliEnvironment['variables']): CliEnvironment['variables'] {
  return Object.fromEntries(Object.entries(variables).filter(([name]) => !TEMPORAL_ELSEWHERE.test(name)));
}

/** The environment of a worker or gateway that joins the running stack: what the caller's own leaves out comes from the file. */
export function joiningEnvironment({ variables }: CliEnvironment): CliEnvironment['variables'] {
  const stack = readStackFile(variables);
  if (stack === undefined) return variables;
  const isGiven = (name: string) => variables[name] !== undefined || variables[`${name}_FILE`] !== undefined;
  const isOwnTemporal = TEMPORAL_GIVEN.every((name) => variables[name] === undefined);
  const found: Record<string, string | undefined> = {
    ...(isOwnTemporal ? temporalVariables(stack) : {}),
    DATABASE_URL: stack.postgres,
    REDIS_URL: stack.redis,
    SIMULATED_BASE_URL: stack.provider === undefined ? undefined : `${stack.provider}/v1`,
    // The usual ports are the stack's own.
    METRICS_PORT: '0',
    WEIR_GATEWAY_PORT: '0',
    ...(isGiven('WEIR_AUTH') || isGiven('WEIR_ADMIN_KEY') ? {} : authVariables(stack)),
  };
  const missing = Object.entries(found).filter(([name, value]) => value !== undefined && !isGiven(name));
  return { ...(isOwnTemporal ? withoutTemporal(variables) : variables), ...Object.fromEntries(missing) };
}

function authVariables({ adminKey }: StackFile): Record<string, string> {
  return adminKey === undefined ? { WEIR_AUTH: 'off' } : { WEIR_AUTH: 'keys', WEIR_ADMIN_KEY: adminKey };
}

/** Undefined when no stack is running there. */
function readStackFile(variables: CliEnvironment['variables']): StackFile | undefined {
  const path = stackFilePath(variables);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new CliError(`${path} cannot be read (${String(code)})`, error);
  }
  try {
    const content: unknown = JSON.parse(text);
    if (typeof content === 'object' && content !== null) return { ...content, path };
  } catch (error) {
    throw new CliError(`${path} is no JSON`, error);
  }
  throw new CliError(`${path} holds no addresses`);
}

function stackFilePath(variables: CliEnvironment['variables']): string {
  return join(resolve(variables['WEIR_STATE_DIR'] ?? DEFAULT_STATE_DIR), 'stack.json');
}

function isSame(given: string, known: string | undefined): boolean {
  const plain = (address: string) => address.replace('localhost', '127.0.0.1').replace(/\/+$/, '');
  return known !== undefined && plain(given) === plain(known);
}

/** @throws CliError naming every place where the address could have been */
export function requireGateway(addresses: Addresses, { variables }: CliEnvironment): Gateway {
  if (addresses.gateway !== undefined) return addresses.gateway;
  throw new CliError(
    `where is the gateway? Give --url or WEIR_URL (and --api-key or WEIR_API_KEY), or start a stack with \`weir dev\`, which writes ${stackFilePath(variables)} (WEIR_STATE_DIR)`,
  );
}

/** @throws CliError naming every place where an address could have been */
export function requireTemporal(
  addresses: Addresses,
  { variables }: CliEnvironment,
): NonNullable<Addresses['temporal']> {
  if (addresses.temporal !== undefined) return addresses.temporal;
  throw new CliError(
    `where is Temporal? Give --temporal or TEMPORAL_ADDRESS, or start a stack with \`weir dev\`, which writes ${stackFilePath(variables)} (WEIR_STATE_DIR)`,
  );
}

/** @throws CliError when neither of the two ways in is known */
export function requireAny(addresses: Addresses, { variables }: CliEnvironment): void {
  if (addresses.gateway !== undefined || addresses.temporal !== undefined) return;
  throw new CliError(
    `where is Weir? Give --url or WEIR_URL (and --api-key or WEIR_API_KEY) for the gateway, --temporal or TEMPORAL_ADDRESS for Temporal, or start a stack with \`weir dev\`, which writes ${stackFilePath(variables)} (WEIR_STATE_DIR)`,
  );
}
