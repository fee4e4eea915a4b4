#!/usr/bin/env node

// The gateway process: HTTP, event streams, metrics and the API's documentation on one port. It holds no state. Nobody imports this file.

import { checkGatewayExposure, loadConfig, notEnforced } from './config.ts';
import { createApp } from './gateway/app.ts';
import { createLogger } from './log.ts';
import { closingAfter, openParts } from './process.ts';
import { isPostgresOutage } from './stores/postgres.ts';
import { isRedisOutage } from './stores/redis.ts';

async function main(): Promise<void> {
  const config = loadConfig();
  checkGatewayExposure(config);
  const log = createLogger({ ...config.log, service: 'gateway' });
  const ignored = notEnforced(config);
  if (ignored.length > 0) log.warn('accepted but not enforced yet', { settings: ignored });

  await closingAfter(log, async (closers) => {
    const parts = await openParts({ config, kind: 'gateway', log }, closers);
    const app = await createApp({
      ...parts,
      client: parts.tasks,
      log,
      isStoreAway: (error) => isPostgresOutage(error) && isRedisOutage(error),
      settings: {
        auth: config.auth,
        adminKey: config.gateway.adminKey,
        heartbeatMs: config.event.heartbeatMs,
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

function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name));
  });
}

main().catch((error: unknown) => {
  process.stderr.write(`weir gateway: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
