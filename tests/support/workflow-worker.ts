// A worker in the test's own process: the real workflows from one bundle, activities as the test wrote them, on a queue of its own.

import { randomBytes } from 'node:crypto';
import { Client, Connection } from '@temporalio/client';
import {
  bundleWorkflowCode,
  NativeConnection,
  Runtime,
  Worker,
  type WorkflowBundle,
} from '@temporalio/worker';
import { inject } from 'vitest';
import type { Activities } from '../../src/activities/index.ts';
import { toTemporalLogger } from '../../src/log.ts';
import type { TaskSettings } from '../../src/task/decision.ts';
import { QUIET } from './stores.ts';

export type WorkflowWorker = AsyncDisposable & { readonly temporal: Client; readonly taskQueue: string };

let bundle: Promise<WorkflowBundle> | undefined;

/** On a queue of its own, or on that of a worker before it. */
export async function startWorkflowWorker(
  activities: Activities,
  taskQueue = `t-${randomBytes(6).toString('hex')}`,
): Promise<WorkflowWorker> {
  if (bundle === undefined) {
    Runtime.install({ logger: toTemporalLogger(QUIET) });
    bundle = bundleWorkflowCode({
      workflowsPath: new URL('../../src/workflows/index.ts', import.meta.url).pathname,
      logger: toTemporalLogger(QUIET),
    });
  }
  const { temporal: address } = inject('servers');
  const native = await NativeConnection.connect({ address });
  const worker = await Worker.create({
    connection: native,
    taskQueue,
    workflowBundle: await bundle,
    activities,
  });
  const running = worker.run();
  const connection = await Connection.connect({ address });
  return {
    temporal: new Client({ connection }),
    taskQueue,
    async [Symbol.asyncDispose]() {
      worker.shutdown();
      await running;
      await connection.close();
      await native.close();
    },
  };
}

export const SETTINGS: TaskSettings = {
  model: 'simulated/small',
  cheaper: [],
  onExceeded: 'refuse',
  approval: { before: 'never', timeoutSeconds: 60, onTimeout: 'reject' },
  abort: 'cancel',
  candidates: ['simulated/small'],
  shortHintMs: 5_000,
  strategy: 'simple',
  maxOutputTokens: 100,
  callMaxDurationMs: 60_000,
  heartbeatTimeoutMs: 5_000,
  heldWaitMs: 1_500,
  maxTextBytes: 65_536,
  searchAttributes: true,
  priorityQueues: true,
  fairnessWeight: 1,
};
