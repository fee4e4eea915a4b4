// Workers that are killed and started again. Each life of one has a provider to itself, so that the provider's log tells whose request
// it was: only a request of a life that was killed may end in an estimate.

import { setTimeout as delay } from 'node:timers/promises';
import type { LoggedRequest } from '../../dev/simulated-provider/request-log.ts';
import {
  type SimulatedProvider,
  type SimulatedProviderOptions,
  startSimulatedProvider,
} from '../../dev/simulated-provider/server.ts';
import { eventually } from './eventually.ts';
import type { Fleet, FleetWorker } from './fleet.ts';

export type KilledWorkers = AsyncDisposable & {
  /** SIGKILL to a worker, once it has a request under way or `patienceMs` are over; a new one takes its place. */
  kill(slot: number, patienceMs: number): Promise<void>;
  /** Everything that reached a provider, whoever sent it. */
  requests(): LoggedRequest[];
  /** Requests under way when their worker was killed. */
  cutRequests(): number;
  /** Whether an attempt may have lost its worker: it was killed while the attempt was open. */
  mayBeLost(attemptKey: string): boolean;
  /** Lives that ended by themselves, with the last of what they wrote. */
  crashes(): readonly string[];
};

type Life = { readonly provider: SimulatedProvider; readonly worker: FleetWorker };

export type KilledWorkersOptions = {
  readonly workers: number;
  readonly provider: SimulatedProviderOptions;
};

export async function startKilledWorkers(
  fleet: Fleet,
  options: KilledWorkersOptions,
): Promise<KilledWorkers> {
  const providers: SimulatedProvider[] = [];
  const killedProviders = new Set<SimulatedProvider>();
  const openAtKill = new Set<string>();
  const crashes: string[] = [];
  const stopping = new AbortController();
  let cut = 0;

  const begin = async (): Promise<Life> => {
    const provider = await startSimulatedProvider(options.provider);
    providers.push(provider);
    const env = { SIMULATED_BASE_URL: `${provider.url}/v1` };
    // A worker that is started while a store is away ends with a message; whoever runs it starts it again.
    const worker = await eventually(() => {
      stopping.signal.throwIfAborted();
      return fleet.startWorker(env);
    }, 120_000);
    return { provider, worker };
  };
  const slots = await Promise.all(Array.from({ length: options.workers }, begin));
  const busy = slots.map(() => Promise.resolve());

  const watch = (slot: number, { worker, provider }: Life) => {
    void worker.exited.then((code) => {
      if (stopping.signal.aborted || killedProviders.has(provider)) return;
      crashes.push(`worker ${slot} ended with ${code}:\n${worker.output().slice(-2_000)}`);
      killedProviders.add(provider);
      busy[slot] = (busy[slot] ?? Promise.resolve()).then(() => renew(slot));
    });
  };
  const renew = async (slot: number) => {
    const life = await begin();
    slots[slot] = life;
    watch(slot, life);
  };
  for (const [slot, life] of slots.entries()) watch(slot, life);

  const killOnce = async (slot: number, patienceMs: number) => {
    const life = slots[slot];
    if (life === undefined) throw new Error(`there is no worker ${slot}`);
    const giveUpAt = performance.now() + patienceMs;
    while (underWay(life.provider) === 0 && performance.now() < giveUpAt) await delay(5);
    cut += underWay(life.provider);
    killedProviders.add(life.provider);
    await life.worker.kill();
    // Later than the kill and earlier than any lease ends: what is open now includes all that the kill left behind.
    for (const attemptKey of await eventually(() => openAttempts(fleet), 60_000)) openAtKill.add(attemptKey);
    await renew(slot);
  };

  return {
    kill: (slot, patienceMs) => {
      const done = (busy[slot] ?? Promise.resolve()).then(() => killOnce(slot, patienceMs));
      busy[slot] = done.catch(() => undefined /* whoever asked for the kill is told */);
      return done;
    },
    requests: () => providers.flatMap((provider) => provider.requests()),
    cutRequests: () => cut,
    mayBeLost(attemptKey) {
      const sender = providers.find((one) => one.requests().some((sent) => sent.attemptKey === attemptKey));
      return sender === undefined ? openAtKill.has(attemptKey) : killedProviders.has(sender);
    },
    crashes: () => crashes,
    async [Symbol.asyncDispose]() {
      stopping.abort(new Error('the test is over'));
      await Promise.allSettled(busy);
      await Promise.all(slots.map(({ worker }) => worker.kill()));
      await Promise.all(providers.map((provider) => provider.close()));
    },
  };
}

function underWay(provider: SimulatedProvider): number {
  return provider.requests().filter((one) => one.outcome === null).length;
}

async function openAttempts({ test }: Fleet): Promise<readonly string[]> {
  const { rows } = await test.postgres.query<{ attempt_key: string }>(
    "select attempt_key from attempts where state = 'started'",
  );
  return rows.map((row) => row.attempt_key);
}
