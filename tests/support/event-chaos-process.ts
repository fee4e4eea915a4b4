// What the processes of a fault run have in common: the order they are given, connections like those of a worker, and what they tell of
// themselves. A process can be killed at any moment: it finds in Postgres how far it came.

import { createLogger } from '../../src/log.ts';
import { createPostgres } from '../../src/stores/postgres.ts';
import { createRedis } from '../../src/stores/redis.ts';

export type ChaosOrder = {
  readonly postgres: string;
  readonly redis: string;
  readonly schema: string;
  readonly prefix: string;
  readonly name: string;
  /** Of a publisher: its tasks, and how many events a second it publishes. */
  readonly taskIds: readonly string[];
  readonly perSecond: number;
};

/** What a process tells: how much memory it has, and, of a publisher, how many events became visible and pieces were dropped. */
export type ChaosReport = { readonly rss: number; readonly published: number; readonly dropped: number };

const REPORT_EVERY_MS = 200;

export function openChaosProcess() {
  const order = JSON.parse(process.argv[2] ?? '') as ChaosOrder;
  const log = createLogger({ level: 'error', format: 'json', service: order.name });
  const { postgres: url, schema } = order;
  const postgres = createPostgres({ url, schema, poolSize: 10, statementTimeoutMs: 5_000 }, log);
  const redis = createRedis(
    { url: order.redis, keyPrefix: order.prefix, commandTimeoutMs: 500, policyChecked: true },
    log,
  );
  return { order, log, postgres, redis };
}

/** @param figures read at each report */
export function reportToParent(figures: () => Omit<ChaosReport, 'rss'>): void {
  const tell = () => process.send?.({ rss: process.memoryUsage.rss(), ...figures() } satisfies ChaosReport);
  setInterval(tell, REPORT_EVERY_MS).unref();
  // Whoever started it is gone: nobody would stop it.
  process.on('disconnect', () => process.exit(1));
}
