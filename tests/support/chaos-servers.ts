// Servers that a test may break: a stack of its own, so that no other test notices, and what can happen to each of them. Every fault is
// over when its promise resolves: the server answers again.

import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ask } from '../../dev/stack/ready.ts';
import { type Stack, startStack } from '../../dev/stack/stack.ts';
import { FREE_PORTS } from './servers.ts';
import type { Servers } from './stores.ts';

export type ChaosServers = AsyncDisposable & {
  readonly servers: Servers;
  /** FLUSHALL: the same process, nothing in it. */
  flushRedis(): Promise<void>;
  /** Killed, and started again without any data. */
  emptyRedis(downMs: number): Promise<void>;
  /** Killed, and started again on what its data were so long ago. */
  ageRedis(ageMs: number): Promise<void>;
  /** Stopped (connections are cut) and started again on its data. */
  stopPostgres(downMs: number): Promise<void>;
  /** Killed and started again on its data. */
  killPostgres(downMs: number): Promise<void>;
  killTemporal(downMs: number): Promise<void>;
};

export async function openChaosServers(): Promise<ChaosServers> {
  const stateDir = await mkdtemp(join(tmpdir(), 'weir-chaos-'));
  const log = () => undefined;
  const stack = await startStack({ stateDir, workers: 0, processes: false, ports: FREE_PORTS, log });
  const { temporal, postgres, redis } = stack.info;
  const data = join(stateDir, 'redis');
  return {
    servers: { temporal, postgres, redis },
    flushRedis: async () => {
      await ask(Number(new URL(redis).port), 'FLUSHALL');
    },
    emptyRedis: (downMs) =>
      whileDown(stack, 'redis', { kill: true }, async () => {
        await delay(downMs);
        await rm(data, { recursive: true });
      }),
    async ageRedis(ageMs) {
      const copy = join(stateDir, 'redis-before');
      await cp(data, copy, { recursive: true });
      await delay(ageMs);
      await whileDown(stack, 'redis', { kill: true }, async () => {
        await rm(data, { recursive: true });
        await cp(copy, data, { recursive: true });
      });
      await rm(copy, { recursive: true });
    },
    stopPostgres: (downMs) => whileDown(stack, 'postgres', { kill: false }, () => delay(downMs)),
    killPostgres: (downMs) => whileDown(stack, 'postgres', { kill: true }, () => delay(downMs)),
    killTemporal: (downMs) => whileDown(stack, 'temporal', { kill: true }, () => delay(downMs)),
    async [Symbol.asyncDispose]() {
      await stack.stop();
      await rm(stateDir, { recursive: true, force: true });
    },
  };
}

async function whileDown(
  stack: Stack,
  part: 'redis' | 'postgres' | 'temporal',
  how: { readonly kill: boolean },
  work: () => Promise<unknown>,
): Promise<void> {
  await stack.halt(part, how);
  await work();
  await stack.resume(part);
}
