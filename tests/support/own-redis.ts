// A Redis of one test file alone, for what would get in the way of others: one that is stopped, or full.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ports } from '../../dev/stack/ports.ts';
import { ProcessTable } from '../../dev/stack/process-table.ts';
import { startRedis } from '../../dev/stack/redis.ts';
import type { Server } from '../../dev/stack/server.ts';
import { findTool } from '../../dev/stack/tools.ts';

export type OwnRedis = AsyncDisposable & {
  /** Starts it; the second time on the port and data that it had. */
  start(): Promise<Server>;
};

export async function openOwnRedis(): Promise<OwnRedis> {
  const folder = await mkdtemp(join(tmpdir(), 'weir-redis-'));
  const table = new ProcessTable(folder);
  let before: Server | undefined;
  return {
    async start() {
      before = await startRedis(
        {
          table,
          ports: new Ports(() => undefined),
          environment: { PATH: '/usr/bin:/bin' },
          signal: new AbortController().signal,
        },
        {
          program: findTool('redis', []),
          dataDir: join(folder, 'redis'),
          port: {
            what: 'Redis',
            preferred: before?.port ?? 0,
            otherwise: before === undefined ? 'any' : 'stay',
          },
        },
      );
      return before;
    },
    async [Symbol.asyncDispose]() {
      await table.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
