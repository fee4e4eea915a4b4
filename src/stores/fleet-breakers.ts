// Breakers that a fleet shares: their state and counts in Redis, one message to all processes when one changes. It decides by the
// server's clock, and knows nothing of what a process does with the answers.

import {
  BREAKER_STATES,
  type BreakerSettings,
  type BreakerState,
  INTERVAL_SLICES,
  MIN_FAILURE_SHARE,
  type PassOutcome,
} from '../task/breaker.ts';
import { isRedisOutage, loadScript, type Redis } from './redis.ts';

const scripts = {
  note: loadScript('breaker-state', 'breaker-note'),
  probe: loadScript('breaker-state', 'breaker-probe'),
} as const;

/** `leftMs` is how long it stays open; `era` is higher after each change, and 0 where Redis knows nothing. */
export type FleetState = { readonly state: BreakerState; readonly leftMs: number; readonly era: number };

export type FleetView = FleetState & {
  readonly calls: number;
  readonly failures: number;
  /** Tries under way. */
  readonly probes: number;
};

/** Told what becomes of breakers anywhere. */
export type FleetListener = {
  changed(name: string, state: FleetState): void;
  /** Changes may have been missed: look at all of them. */
  missed(): void;
};

export type FleetBreakers = ReturnType<typeof createFleetBreakers>;

/** A breaker is called `llm:<provider>/<model>`. */
export function createFleetBreakers(redis: Redis) {
  const channel = `${redis.prefix}:breakers`;
  const run = async (
    script: keyof typeof scripts,
    { name, settings }: AskedBreaker,
    args: readonly (string | number)[],
  ): Promise<FleetState & { readonly verdict: string }> => {
    const { intervalMs, timeoutMs, failureThreshold, successThreshold, maxRequests } = settings;
    const answer = (await redis.run(scripts[script], keysOf(redis.prefix, name), [
      ...[channel, name, intervalMs, timeoutMs, failureThreshold, successThreshold, maxRequests],
      ...[INTERVAL_SLICES, ...args],
    ])) as [string, string, string, string];
    const [verdict, state, leftMs, era] = answer;
    return { verdict, ...toState(state, leftMs, era) };
  };
  return {
    /** Counts ended calls, `failures` of them failed. */
    note: (breaker: AskedBreaker, { calls, failures }: { calls: number; failures: number }) =>
      run('note', breaker, [calls, failures, MIN_FAILURE_SHARE]),

    /** Asks for one of the fleet's tries. It is lost when it is not kept within the lease. */
    async askProbe(
      breaker: AskedBreaker,
      { token, leaseMs }: { token: string; leaseMs: number },
    ): Promise<FleetState & { readonly verdict: 'closed' | 'wait' | 'probe' }> {
      const answer = await run('probe', breaker, [token, 'ask', leaseMs]);
      return { ...answer, verdict: answer.verdict as 'closed' | 'wait' | 'probe' }; // the script's three answers to "ask"
    },

    /** Keeps a try for another lease. False when it is lost. */
    keepProbe: async (breaker: AskedBreaker, { token, leaseMs }: { token: string; leaseMs: number }) =>
      (await run('probe', breaker, [token, 'keep', leaseMs])).verdict === 'kept',

    /** Ends a try. One that was lost teaches nothing. */
    endProbe: (breaker: AskedBreaker, { token, outcome }: { token: string; outcome: PassOutcome }) =>
      run('probe', breaker, [token, outcome, 0]),

    /** States and counts by name. Reads alone. */
    read: (breakers: readonly AskedBreaker[]) => read(redis, breakers),

    isAway: isRedisOutage,

    /** Listens on a connection of its own, until disposed. */
    follow: (listener: FleetListener) => follow(redis, channel, listener),
  };
}

export type AskedBreaker = { readonly name: string; readonly settings: BreakerSettings };

function keysOf(prefix: string, name: string): [string, string, string] {
  const [, provider = ''] = /^llm:([^/]+)\//.exec(name) ?? [];
  const key = `${prefix}:{p:${provider}}:breaker:${name}`;
  return [key, `${key}:counts`, `${key}:probes`];
}

async function read(
  redis: Redis,
  breakers: readonly AskedBreaker[],
): Promise<ReadonlyMap<string, FleetView>> {
  if (breakers.length === 0) return new Map();
  const nowMs = await redis.nowMs();
  const answers = await redis.command((client) => {
    const all = client.pipeline();
    for (const { name } of breakers) {
      const [state, counts, probes] = keysOf(redis.prefix, name);
      all.hmget(state, 'state', 'until', 'era').hgetall(counts).zcount(probes, nowMs, '+inf');
    }
    return all.exec();
  });
  const values = (answers ?? []).map(([error, value]) => {
    if (error !== null) throw error;
    return value;
  });
  return new Map(
    breakers.map(({ name, settings }, index) => {
      const [state, counts, probes] = values.slice(index * 3, index * 3 + 3) as [
        (string | null)[],
        Record<string, string>,
        number,
      ];
      const [word, untilMs, era] = state;
      const leftMs = word === 'open' ? Math.max(0, Number(untilMs ?? 0) - nowMs) : 0;
      const view = {
        ...toState(word ?? 'closed', `${leftMs}`, era ?? '0'),
        ...sumsOf(counts, nowMs - settings.intervalMs),
        probes,
      };
      return [name, view];
    }),
  );
}

function sumsOf(counts: Readonly<Record<string, string>>, oldestMs: number) {
  const sums = { calls: 0, failures: 0 };
  for (const [field, count] of Object.entries(counts)) {
    const [start, what] = field.split(':');
    if (Number(start) > oldestMs && (what === 'calls' || what === 'failures')) sums[what] += Number(count);
  }
  return sums;
}

function follow(redis: Redis, channel: string, listener: FleetListener): AsyncDisposable {
  const client = redis.duplicate();
  const subscribe = async () => {
    await client.subscribe(channel);
    listener.missed();
  };
  client.on('message', (_, text: string) => {
    const change = toChange(text);
    if (change === undefined) listener.missed();
    else listener.changed(change.name, change);
  });
  // After each connection: what was published in between went to nobody.
  client.on('ready', () => {
    subscribe().catch(() => undefined /* the connection broke again, and `ready` comes again */);
  });
  return {
    async [Symbol.asyncDispose]() {
      client.disconnect();
    },
  };
}

/** Undefined for what no script of this version wrote. */
function toChange(text: string): (FleetState & { readonly name: string }) | undefined {
  try {
    const { name, state, leftMs, era } = JSON.parse(text) as Record<string, unknown>;
    return { name: String(name), ...toState(String(state), String(leftMs), String(era)) };
  } catch {
    return undefined;
  }
}

function toState(state: string, leftMs: string, era: string): FleetState {
  const known = BREAKER_STATES.find((word) => word === state);
  if (known === undefined) throw new Error(`a breaker's state in redis is ${JSON.stringify(state)}`);
  return { state: known, leftMs: Number(leftMs), era: Number(era) };
}
