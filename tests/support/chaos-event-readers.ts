// Readers over a real gateway, each with the client that users have, while something is done to them or to the servers. Each must have been
// told the whole story in the end.

import { createGatewayClient } from '../../src/client/gateway-client.ts';
import type { Faults } from './event-audit.ts';
import { type EventChaos, openEventChaos } from './event-chaos.ts';
import { taskIds as namesOf } from './event-chaos-plan.ts';
import { EventReader, readStories } from './event-reader.ts';
import { eventually } from './eventually.ts';
import { startGatewayProcess } from './gateway-process.ts';
import { type Relay, startRelay } from './relay.ts';
import { openTestStores, type Servers, type TestStores } from './stores.ts';

export type FollowThroughOptions = {
  readonly servers: Servers;
  readonly tasks: number;
  readonly readersPerTask: number;
  readonly perSecond: number;
  readonly env?: Readonly<Record<string, string>>;
};

export type Disturbed = {
  readonly test: TestStores;
  readonly chaos: EventChaos;
  /** Between the readers and the gateway. */
  readonly relay: Relay;
};

const PATIENCE_MS = 120_000;

/** Readers follow their tasks from the beginning to the end; meanwhile they are disturbed. */
export async function followThrough(
  options: FollowThroughOptions,
  disturb: (what: Disturbed) => Promise<void>,
) {
  const { servers, tasks, readersPerTask } = options;
  await using test = await openTestStores({}, servers);
  const taskIds = namesOf('read', tasks);
  await using chaos = await openEventChaos(test, { ...options, taskIds, publishers: 1, persisters: 1 });
  await using gateway = await startGatewayProcess(test, {
    TEMPORAL_ADDRESS: servers.temporal,
    DATABASE_URL: servers.postgres,
    REDIS_URL: servers.redis,
    ...options.env,
  });
  await using relay = await startRelay(gateway.port);
  const stopping = new AbortController();
  const readers = taskIds.flatMap((taskId) => Array.from({ length: readersPerTask }, () => taskId));
  const following = readers.map((taskId) => startReader(relay, taskId, stopping.signal));
  try {
    await eventually(() => {
      const idle = following.filter(({ told }) => told.events === 0).length;
      if (idle > 0) throw new Error(`${idle} readers have seen nothing`);
    }, PATIENCE_MS);
    await disturb({ test, chaos, relay });
    await chaos.finish();
    const storedMs = await chaos.stored();
    await eventually(() => {
      const open = following.filter(({ reader }) => !reader.isOver).length;
      if (open > 0) throw new Error(`${open} readers are not at the end`);
    }, PATIENCE_MS).catch(() => undefined /* what they lack is told below */);
    return { ...(await judge(test, taskIds, following)), tasks, storedMs };
  } finally {
    stopping.abort();
    await Promise.all(following.map(({ done }) => done));
  }
}

type Following = {
  readonly taskId: string;
  readonly reader: EventReader;
  readonly told: { events: number; outages: number; failure: unknown };
  readonly done: Promise<void>;
};

function startReader({ port }: Relay, taskId: string, signal: AbortSignal): Following {
  const client = createGatewayClient({ url: `http://127.0.0.1:${port}` });
  const reader = new EventReader();
  const told: Following['told'] = { events: 0, outages: 0, failure: undefined };
  const onOutage = () => {
    told.outages += 1;
  };
  const follow = async () => {
    for await (const event of client.follow(taskId, { signal, onOutage })) {
      told.events += 1;
      reader.take(event);
    }
  };
  const done = follow().catch((error: unknown) => {
    told.failure = error;
  });
  return { taskId, reader, told, done };
}

async function judge(test: TestStores, taskIds: readonly string[], following: readonly Following[]) {
  const stories = await readStories(test, taskIds);
  const faults: Faults = [];
  for (const [index, { taskId, reader, told }] of following.entries()) {
    const own = reader.faults(stories.get(taskId) ?? { milestones: [], answers: new Map() });
    if (told.failure !== undefined) own.push(`it gave up: ${told.failure}`);
    faults.push(...own.map((fault) => `reader ${index} of ${taskId}: ${fault}`));
  }
  const sum = (figure: (one: Following) => number) => following.reduce((all, one) => all + figure(one), 0);
  return {
    faults: faults.slice(0, 50),
    readers: following.length,
    events: sum(({ told }) => told.events),
    reconnects: sum(({ told }) => told.outages),
    resets: sum(({ reader }) => reader.resets),
    snapshots: sum(({ reader }) => reader.snapshots),
  };
}
