// The gateway process of a fan-out (fan-out.ts): the real application on real stores, without Temporal, which no stream asks. It tells what
// it has cost whenever it is asked.

import type { AddressInfo } from 'node:net';
import { createApp } from '../src/gateway/app.ts';
import type { GatewayParts } from '../src/gateway/parts.ts';
import { createLogger } from '../src/log.ts';
import { createMetrics } from '../src/metrics.ts';
import { LiveFeed } from '../src/stores/live-feed.ts';
import { joinBenchStores } from './harness.ts';

export type GatewayOrder = { readonly kind: 'cost' } | { readonly kind: 'stop' };

export type GatewayCost = {
  readonly cpuMicros: number;
  readonly rssBytes: number;
  readonly readers: number;
  /** Closed because they stayed too far behind. */
  readonly closed: number;
};

const [postgres = '', redis = '', name = '', coalesceMs = '', backlogBytes = ''] = process.argv.slice(2);
const bench = await joinBenchStores({ postgres, redis }, name);
const metrics = createMetrics();
const log = createLogger({ level: 'error', format: 'json', service: 'bench' });
const liveFeed = new LiveFeed(bench.redis, {
  coalesceMs: Number(coalesceMs),
  ringCapacity: 512,
  backlogEvents: backlogBytes === '' ? 1_000 : 1_000_000,
  backlogBytes: Number(backlogBytes || 262_144),
  log,
});
const app = await createApp({
  stores: { ...bench.stores, liveFeed },
  client: temporalThatIsNotAsked(),
  plan: notAsked,
  rerate: notAsked,
  breakers: { report: notAsked },
  probes: {},
  metrics,
  log,
  isStoreAway: () => false,
  settings: { auth: 'off', adminKey: undefined, heartbeatMs: 15_000 },
});
await app.listen({ host: '127.0.0.1', port: 0 });

process.on('message', (order: GatewayOrder) => void obey(order));
process.on('disconnect', () => process.exit(0));
process.send?.((app.server.address() as AddressInfo).port); // it listens on a port

async function obey({ kind }: GatewayOrder): Promise<void> {
  if (kind === 'stop') {
    await app.close();
    await liveFeed.close();
    await bench[Symbol.asyncDispose]();
    process.disconnect();
    return;
  }
  const { user, system } = process.cpuUsage();
  const closed = await metrics.registry.getSingleMetric('weir_stream_readers_closed_total')?.get();
  const readers = await metrics.streamReaders.get();
  process.send?.({
    cpuMicros: user + system,
    rssBytes: process.memoryUsage.rss(),
    readers: readers.values[0]?.value ?? 0,
    closed: closed?.values.find(({ labels }) => labels['reason'] === 'slow')?.value ?? 0,
  } satisfies GatewayCost);
}

function temporalThatIsNotAsked(): GatewayParts['client'] {
  return {
    start: notAsked,
    cancel: notAsked,
    describe: async () => undefined,
    failure: notAsked,
    decideApproval: notAsked,
    raiseBudget: notAsked,
    budgetChanged: notAsked,
  };
}

function notAsked(): never {
  throw new Error('the bench does not ask for this');
}
