// Temporal's dev server of the stack's own, with its Web UI. Its database is a file, so tasks survive a restart.
import { Connection } from '@temporalio/client';
import { LOOPBACK, type PortWish } from './ports.ts';
import { acceptsConnections, waitUntilReady } from './ready.ts';
import type { Server, StartContext } from './server.ts';

export type TemporalOptions = {
  /** path of the Temporal CLI */
  program: string;
  dataFile: string;
  port: PortWish;
  uiPort: PortWish;
  namespace: string;
};

export type TemporalServer = Server & { uiPort: number };

const SEARCH_ATTRIBUTES = {
  WeirTenant: 'Keyword',
  WeirUser: 'Keyword',
  WeirSession: 'Keyword',
  WeirPriority: 'Keyword',
  WeirStrategy: 'Keyword',
  WeirStatus: 'Keyword',
  WeirCostUsd: 'Double',
  WeirTokens: 'Int',
};

/**
 * Starts the server on its file, new or old, and waits until its namespace can be used.
 *
 * @returns address: host:port of the gRPC frontend; ui: URL of the Web UI
 * @throws StackError when it does not start
 */
export function startTemporal(context: StartContext, options: TemporalOptions): Promise<TemporalServer> {
  return context.ports.use([options.port, options.uiPort], async ([port = 0, uiPort = 0]) => {
    const child = await context.table.launch({
      name: 'temporal',
      command: options.program,
      args: serverArguments(options, port, uiPort),
      env: context.environment,
      stop: { signal: 'SIGTERM', graceMs: 10_000 },
    });
    const address = `${LOOPBACK}:${port}`;
    const probe = async () =>
      (await acceptsConnections(port)) &&
      (await hasNamespace(address, options.namespace)) &&
      (await acceptsConnections(uiPort));
    await waitUntilReady(child, probe, {
      what: 'Temporal',
      timeoutMs: 60_000,
      ports: [port, uiPort],
      signal: context.signal,
    });
    return { child, address, port, uiPort, ui: `http://${LOOPBACK}:${uiPort}` };
  });
}

function serverArguments(options: TemporalOptions, port: number, uiPort: number): string[] {
  return [
    ...['server', 'start-dev', '--ip', LOOPBACK, '--port', String(port), '--ui-port', String(uiPort)],
    ...['--namespace', options.namespace, '--log-level', 'warn'],
    // the user's own Temporal settings are for other servers
    ...['--disable-config-file', '--disable-config-env'],
    ...['--db-filename', options.dataFile],
    // Together they more than double the workflows per second; a kill of the process loses nothing, only a crash of the
    // machine may.
    ...['--sqlite-pragma', 'journal_mode=WAL', '--sqlite-pragma', 'synchronous=OFF'],
    ...dynamicConfig({
      // Without these, every dispatch waits in steps of 50 ms.
      'history.transferProcessorMaxPollRPS': 2000,
      'history.timerProcessorMaxPollRPS': 2000,
      'history.visibilityProcessorMaxPollRPS': 2000,
      'matching.enableFairness': true,
      // Priority and fairness hold within a partition; of four, some run out of a tenant's tasks before others do.
      'matching.numTaskqueueReadPartitions': 1,
      'matching.numTaskqueueWritePartitions': 1,
    }),
    ...Object.entries(SEARCH_ATTRIBUTES).flatMap(([name, type]) => ['--search-attribute', `${name}=${type}`]),
  ];
}

function dynamicConfig(values: Record<string, number | boolean>): string[] {
  return Object.entries(values).flatMap(([key, value]) => ['--dynamic-config-value', `${key}=${value}`]);
}

async function hasNamespace(address: string, namespace: string): Promise<boolean> {
  const connection = await Connection.connect({ address, connectTimeout: 2_000 });
  try {
    await connection.workflowService.describeNamespace({ namespace });
    return true;
  } finally {
    await connection.close();
  }
}
