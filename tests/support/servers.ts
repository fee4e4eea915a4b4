// The servers of a test run: Temporal, Postgres and Redis as the embedded stack starts them, on free ports, in a folder of their own.
// Every test takes its own schema, key prefix and task queue on them.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { startStack } from '../../dev/stack/stack.ts';

declare module 'vitest' {
  interface ProvidedContext {
    servers: { readonly temporal: string; readonly postgres: string; readonly redis: string };
  }
}

export const FREE_PORTS = {
  gateway: 0,
  metrics: 0,
  temporal: 0,
  temporalUi: 0,
  redis: 0,
  postgres: 0,
  provider: 0,
} as const;

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const stateDir = await mkdtemp(join(tmpdir(), 'weir-test-'));
  const stack = await startStack({ stateDir, workers: 0, processes: false, ports: FREE_PORTS });
  const { temporal, postgres, redis } = stack.info;
  project.provide('servers', { temporal, postgres, redis });
  return async () => {
    await stack.stop();
    await rm(stateDir, { recursive: true, force: true });
  };
}
