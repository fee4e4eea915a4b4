// A Redis (or Valkey) of the stack's own. Nothing in it may be evicted, and what it acknowledged survives a kill.
import { mkdirSync } from 'node:fs';
import { LOOPBACK, type PortWish } from './ports.ts';
import { ask, waitUntilReady } from './ready.ts';
import type { Server, StartContext } from './server.ts';

export type RedisOptions = {
  /** path of redis-server or valkey-server */
  program: string;
  dataDir: string;
  port: PortWish;
};

/**
 * Starts the server on its data and waits until this very process answers.
 *
 * @returns address: a redis:// URL
 * @throws StackError when it does not start
 */
export function startRedis(context: StartContext, options: RedisOptions): Promise<Server> {
  mkdirSync(options.dataDir, { recursive: true });
  return context.ports.use([options.port], async ([port = 0]) => {
    const child = await context.table.launch({
      name: 'redis',
      command: options.program,
      args: redisArguments(options.dataDir, port),
      env: context.environment,
      stop: { signal: 'SIGTERM', graceMs: 10_000 },
    });
    const probe = async () => (await ask(port, 'INFO server')).includes(`process_id:${child.pid}\r\n`);
    await waitUntilReady(child, probe, {
      what: 'Redis',
      timeoutMs: 30_000,
      ports: [port],
      signal: context.signal,
    });
    return { child, address: `redis://${LOOPBACK}:${port}`, port };
  });
}

/**
 * With `everysec` the log is still handed to the operating system before each answer, so killing the process loses
 * nothing; only a crash of the machine may lose a second.
 */
function redisArguments(dataDir: string, port: number): string[] {
  return [
    ...['--port', String(port), '--bind', LOOPBACK, '--dir', dataDir],
    ...['--appendonly', 'yes', '--appendfsync', 'everysec', '--save', ''],
    ...['--maxmemory-policy', 'noeviction', '--daemonize', 'no'],
  ];
}
