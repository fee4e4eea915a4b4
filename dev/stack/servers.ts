// Which servers a stack consists of: one part for each that it starts, and an address for each that the user gave.
// How a server is started stands in its own file.
import { join } from 'node:path';
import { checkPostgres, checkRedis, checkTemporal, given } from './external.ts';
import { PortAnchor } from './port-anchor.ts';
import { startPostgres } from './postgres.ts';
import { hasProviderKey, startProvider } from './provider.ts';
import { startRedis } from './redis.ts';
import type { Start } from './server.ts';
import type { StackPorts } from './stack-options.ts';
import { startTemporal } from './temporal.ts';
import { findTool } from './tools.ts';

export type ServerName = 'temporal' | 'postgres' | 'redis' | 'provider';

/** Addresses that were given instead of servers. */
export type GivenAddresses = { temporal?: string; postgres?: string; redis?: string; provider?: string };

export type ServerPlan = {
  /** how to start each server that is not given; calling it again uses the same port and data */
  start: Partial<Record<ServerName, Start>>;
  given: GivenAddresses;
  namespace: string;
};

export type ServerPlanOptions = {
  stateDir: string;
  environment: NodeJS.ProcessEnv;
  ports: StackPorts;
  providerCommand?: readonly string[] | undefined;
  providerArgs?: readonly string[] | undefined;
  durable?: boolean | undefined;
};

/**
 * Decides what is started, and finds the programs for it.
 *
 * @throws StackError when a program is missing, or a file that should hold an address cannot be read
 */
export function planServers(options: ServerPlanOptions): ServerPlan {
  const { environment } = options;
  const namespace = environment['TEMPORAL_NAMESPACE'] || 'default';
  const addresses = {
    temporal: given(environment, 'TEMPORAL_ADDRESS'),
    postgres: given(environment, 'DATABASE_URL'),
    redis: given(environment, 'REDIS_URL'),
    provider: environment['SIMULATED_BASE_URL']?.replace(/\/v1\/?$/, '') || undefined,
  };
  const start: ServerPlan['start'] = {
    ...(addresses.temporal === undefined && { temporal: temporal(options, namespace) }),
    ...(addresses.postgres === undefined && { postgres: postgres(options) }),
    ...(addresses.redis === undefined && { redis: redis(options) }),
    ...(addresses.provider === undefined && !hasProviderKey(environment) && { provider: provider(options) }),
  };
  const known = Object.entries(addresses).filter(([, address]) => address !== undefined);
  return { start, given: Object.fromEntries(known), namespace };
}

/** @throws StackError naming the first given server that does not answer */
export async function checkGiven({ temporal, postgres, redis }: GivenAddresses): Promise<void> {
  if (temporal !== undefined) await checkTemporal(temporal);
  if (postgres !== undefined) await checkPostgres(postgres);
  if (redis !== undefined) await checkRedis(redis);
}

function temporal({ stateDir, environment, ports }: ServerPlanOptions, namespace: string): Start {
  const program = findTool('temporal', toolFolders(stateDir, environment));
  const port = new PortAnchor('Temporal', ports.temporal);
  const uiPort = new PortAnchor('the Temporal Web UI', ports.temporalUi);
  const dataFile = join(stateDir, 'temporal.db');
  return async (context) => {
    const fixed = { program, dataFile, namespace };
    const server = await startTemporal(context, { ...fixed, port: port.wish, uiPort: uiPort.wish });
    port.settle(server.port);
    uiPort.settle(server.uiPort);
    return server;
  };
}

function postgres({ stateDir, ports, durable }: ServerPlanOptions): Start {
  const port = new PortAnchor('Postgres', ports.postgres);
  return (context) =>
    port.keep(startPostgres(context, { dataDir: join(stateDir, 'postgres'), port: port.wish, durable }));
}

function redis({ stateDir, environment, ports }: ServerPlanOptions): Start {
  const program = findTool('redis', toolFolders(stateDir, environment));
  const port = new PortAnchor('Redis', ports.redis);
  return (context) =>
    port.keep(startRedis(context, { program, dataDir: join(stateDir, 'redis'), port: port.wish }));
}

function provider({ stateDir, ports, providerCommand, providerArgs }: ServerPlanOptions): Start {
  const port = new PortAnchor('the simulated provider', ports.provider);
  const requestLog = join(stateDir, 'provider-requests.jsonl');
  const fixed = { command: providerCommand, args: providerArgs, requestLog };
  return (context) => port.keep(startProvider(context, { ...fixed, port: port.wish }));
}

function toolFolders(stateDir: string, environment: NodeJS.ProcessEnv): string[] {
  const chosen = environment['WEIR_STATE_DIR'];
  return chosen ? [stateDir, chosen] : [stateDir];
}
