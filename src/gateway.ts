#!/usr/bin/env node

// The gateway process: HTTP, event streams, metrics and the API's documentation on one port. It holds no state. Nobody imports this file.

import { openLiveConfig } from './config/live-config.ts';
import { checkGatewayExposure, notEnforced } from './config.ts';
import { createApp } from './gateway/app.ts';
import { createLogger } from './log.ts';
import { closingAfter, openParts } from './process.ts';
import { hangUps, startReloading } from './reload.ts';
import { isPostgresOutage } from './stores/postgres.ts';
import { isRedisOutage } from './stores/redis.ts';

async function main(): Promise<void> {
  const live = openLiveConfig();
  const { config } = live;
  checkGatewayExposure(config);
  const log = createLogger({ ...config.log, service: 'gateway' });
  const ignored = notEnforced(config);
  if (ignored.length > 0) log.warn('accepted but not enforced yet', { settings: ignored });

  await closingAfter(log, async (closers) => {
    const parts = await openParts({ ...live, kind: 'gateway', log }, closers);
    const reloading = startReloading({ live, meter: parts.metrics.config, log, signals: hangUps() });
    closers.push(async () => reloading[Symbol.asyncDispose]());
    const app = await createApp({
      ...parts,
      client: parts.tasks,
      log,
      isStoreAway: (error) => isPostgresOutage(error) && isRedisOutage(error),
      settings: {
        auth: config.auth,
        adminKey: config.gateway.adminKey,
        heartbeatMs: config.event.heartbeatMs,
        shutdownGraceMs: config.gateway.shutdownGraceTimeMs,
      },
    });
    closers.push(() => app.close());
    const url = await listen(app, config.gateway);
    log.info('gateway is ready', { url, docs: `${url}/docs` });
    log.info('gateway stops', { signal: await stopSignal() });
  });
}

type Listener = { listen(options: { host: string; port: number }): Promise<string> };

async function listen(app: Listener, { host, port }: { host: string; port: number }): Promise<string> {
  try {
    return await app.listen({ host, port });
  } catch (error) {
    const code = error instanceof Error ? Reflect.get(error, 'code') : undefined;
    if (code !== 'EADDRINUSE') throw error;
    const message = `port ${port} on ${host} is in use: set WEIR_GATEWAY_PORT to another one, or 0 for a free one`;
    throw new Error(message, { cause: error });
  }
}

const STOPS = ['SIGTERM', 'SIGINT'] as const;

/** The first one. After it any of them ends the process at once, as if nobody had ever listened. */
function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const stop = (name: NodeJS.Signals) => {
      for (const one of STOPS) process.off(one, stop);
      resolve(name);
    };
    for (const name of STOPS) process.on(name, stop);
  });
}

main().catch((error: unknown) => {
  process.stderr.write(`weir gateway: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
