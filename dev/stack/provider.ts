// The simulated LLM provider, as a process of the stack. It is started only when no real provider's key is given.
import { fileURLToPath } from 'node:url';
import { LOOPBACK, type PortWish } from './ports.ts';
import { acceptsConnections, waitUntilReady } from './ready.ts';
import type { Server, StartContext } from './server.ts';

const MAIN = fileURLToPath(new URL('../simulated-provider/main.ts', import.meta.url));

export type ProviderOptions = {
  /** arguments of this Node program, without port and log; default: dev/simulated-provider/main.ts */
  command?: readonly string[] | undefined;
  /** further arguments */
  args?: readonly string[] | undefined;
  /** its log of requests, the oracle of the charging tests */
  requestLog: string;
  port: PortWish;
};

/**
 * Starts the provider and waits until it accepts connections.
 *
 * @returns address: its root URL; the OpenAI protocol is below /v1
 * @throws StackError when it does not start
 */
export function startProvider(context: StartContext, options: ProviderOptions): Promise<Server> {
  return context.ports.use([options.port], async ([port = 0]) => {
    const child = await context.table.launch({
      name: 'provider',
      command: process.execPath,
      args: [
        ...(options.command ?? [MAIN]),
        ...['--port', String(port), '--log-file', options.requestLog],
        ...(options.args ?? []),
      ],
      env: context.environment,
      stop: { signal: 'SIGTERM', graceMs: 3_000 },
    });
    await waitUntilReady(child, () => acceptsConnections(port), {
      what: 'the simulated provider',
      timeoutMs: 30_000,
      ports: [port],
      signal: context.signal,
    });
    return { child, address: `http://${LOOPBACK}:${port}`, port };
  });
}

/** Whether the environment names a provider to call, so that none has to be simulated. */
export function hasProviderKey(environment: NodeJS.ProcessEnv): boolean {
  return ['OPENAI_API_KEY', 'ANTHROPIC_API_KEY', 'GOOGLE_API_KEY'].some(
    (name) => Boolean(environment[name]) || Boolean(environment[`${name}_FILE`]),
  );
}
