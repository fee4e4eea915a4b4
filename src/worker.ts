#!/usr/bin/env node
// The worker process: one Temporal Worker per priority's queue on one connection, one bundle and one runtime. Nobody imports this file.

import {
  bundleWorkflowCode,
  NativeConnection,
  Runtime,
  Worker,
  type WorkflowBundleOption,
} from '@temporalio/worker';
import { createActivities } from './activities/index.ts';
import { createCalls } from './calls/govern.ts';
import { pause } from './calls/pause.ts';
import { openLiveConfig } from './config/live-config.ts';
import { notEnforced } from './config.ts';
import { createCoreMetrics } from './core-metrics.ts';
import { serveHealth } from './health.ts';
import { letGoAfterGrace } from './let-go.ts';
import { createLogger, type Logger, toTemporalLogger } from './log.ts';
import { closingAfter, openParts } from './process.ts';
import { hangUps, startReloading } from './reload.ts';
import { PRIORITIES } from './task/input.ts';

async function main(): Promise<void> {
  const live = openLiveConfig();
  const { config } = live;
  const log = createLogger({ ...config.log, service: 'worker' });
  const ignored = notEnforced(config);
  if (ignored.length > 0) log.warn('accepted but not enforced yet', { settings: ignored });
  const core = await createCoreMetrics();
  Runtime.install({
    logger: toTemporalLogger(log),
    telemetryOptions: {
      metrics: { prometheus: core.options },
      logging: { filter: { core: 'WARN', other: 'WARN' } },
    },
  });

  await closingAfter(log, async (closers) => {
    const parts = await openParts({ ...live, kind: 'worker', log }, closers);
    const reloading = startReloading({ live, meter: parts.metrics.config, log, signals: hangUps() });
    closers.push(async () => reloading[Symbol.asyncDispose]());
    let workers: readonly Worker[] = [];
    // Before anything of Temporal's core: what fails here must not leave its threads behind.
    const page = await serveHealth({
      ...config.metrics,
      metrics: async () => (await parts.metrics.registry.metrics()) + (await core.read()),
      probes: {
        ...parts.probes,
        worker: async () => {
          if (!workers.some((worker) => worker.getState() === 'RUNNING'))
            throw new Error('the worker does not poll');
        },
      },
    });
    closers.push(() => page.close());
    const connection = await connect(config.temporal.connection, log);
    closers.push(() => connection.close());
    const letGo = new AbortController();
    const activities = createActivities({
      ...parts.stores,
      calls: createCalls(parts.calls),
      plan: parts.plan,
      tokens: parts.calls.tokens,
      rateMeter: parts.metrics.call,
      health: parts.breakers.health,
      meter: parts.metrics.task,
      letGo: letGo.signal,
      log,
    });
    const workflowBundle = await bundle(config.temporal.workflowBundle, log);
    workers = await Promise.all(
      PRIORITIES.map((priority) =>
        Worker.create({
          connection,
          namespace: config.temporal.namespace,
          taskQueue: `${config.temporal.queuePrefix}-${priority}`,
          workflowBundle,
          activities,
          maxConcurrentActivityTaskExecutions: config.worker.activities[priority],
          // The SDK needs two: one of them serves sticky queues.
          maxConcurrentWorkflowTaskExecutions: Math.max(2, config.worker.workflows[priority]),
          maxHeartbeatThrottleInterval: '1s',
          defaultHeartbeatThrottleInterval: '1s',
          shutdownGraceTime: config.temporal.shutdownGraceTimeMs,
        }),
      ),
    );
    const watch = letGoAfterGrace(workers, config.temporal.shutdownGraceTimeMs, letGo);
    closers.push(async () => watch.stop());
    log.info('worker is ready', { metrics: `http://${config.metrics.host}:${page.port}/metrics` });
    // SIGTERM and SIGINT are the runtime's: they end these, running calls included, within the grace time.
    await Promise.all(workers.map((worker) => worker.run()));
  });
}

const CONNECT_FOR_MS = 60_000;
const CONNECT_AGAIN_MS = 500;

/** The first connection rejects at once without a server; a worker may be started before it. */
async function connect(
  options: Parameters<typeof NativeConnection.connect>[0],
  log: Logger,
): Promise<NativeConnection> {
  const giveUpAt = performance.now() + CONNECT_FOR_MS;
  for (;;) {
    try {
      return await NativeConnection.connect(options);
    } catch (error) {
      if (performance.now() > giveUpAt) throw error;
      log.info('temporal does not answer yet', { address: options?.address, error });
      await pause(CONNECT_AGAIN_MS);
    }
  }
}

async function bundle(path: string | undefined, log: Logger): Promise<WorkflowBundleOption> {
  if (path !== undefined) return { codePath: path };
  return bundleWorkflowCode({
    workflowsPath: new URL('./workflows/index.ts', import.meta.url).pathname,
    logger: toTemporalLogger(log),
  });
}

main().catch((error: unknown) => {
  process.stderr.write(`weir worker: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
