// The gateway as a process of its own, on the run's servers and a test's schema: it can be killed and started again on its port.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { inject } from 'vitest';
import { eventually } from './eventually.ts';
import type { TestStores } from './stores.ts';

export type GatewayProcess = AsyncDisposable & {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
};

const GATEWAY = new URL('../../src/gateway.ts', import.meta.url).pathname;

/** Resolves when it is ready. `env` comes on top of what the process needs to join the test. */
export async function startGatewayProcess(
  { schema, prefix }: Pick<TestStores, 'schema' | 'prefix'>,
  env: Readonly<Record<string, string>> = {},
): Promise<GatewayProcess> {
  const servers = inject('servers');
  const child = spawn(process.execPath, [GATEWAY], {
    env: {
      PATH: process.env['PATH'] ?? '',
      TEMPORAL_ADDRESS: servers.temporal,
      DATABASE_URL: servers.postgres,
      REDIS_URL: servers.redis,
      WEIR_POSTGRES_SCHEMA: schema,
      WEIR_REDIS_KEY_PREFIX: prefix,
      WEIR_QUEUE_PREFIX: prefix,
      WEIR_LOG_FORMAT: 'json',
      WEIR_GATEWAY_PORT: '0',
      WEIR_AUTH: 'off',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exit = once(child, 'exit');
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-20_000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const kill = async () => {
    child.kill('SIGKILL');
    await exit;
  };
  const died = exit.then(() => Promise.reject(new Error(`the gateway ended while it started: ${output}`)));
  try {
    const ready = eventually(() => {
      const said = /"gateway is ready".*?"url":"([^"]+)"/.exec(output)?.[1];
      if (said === undefined) throw new Error(`the gateway is not ready: ${output}`);
      return said;
    }, 50_000);
    const url = await Promise.race([ready, died]);
    return {
      url,
      port: Number(new URL(url).port),
      pid: child.pid ?? 0,
      kill,
      [Symbol.asyncDispose]: kill,
    };
  } catch (error) {
    await kill();
    throw error;
  }
}
