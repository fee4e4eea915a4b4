// What must be true of the gate when nothing runs: no hold is left anywhere, and every counter that is trusted says what the ledger
// says. It reads the stores' keys by itself and knows nothing of how counters are kept up.

import { budgetKeys } from '../../src/stores/keys.ts';
import type { Scope } from '../../src/task/budget.ts';
import { fromIntervalKey } from '../../src/task/window.ts';
import { eventually } from './eventually.ts';
import { readCounters } from './scope-counters.ts';
import type { TestStores } from './stores.ts';

/** "Holds 0 within 15 s of idling". */
const HOLDS_END_WITHIN_MS = 15_000;

export type IdleReport = {
  /** From the moment of the call until nothing was held. */
  readonly seconds: number;
  /** Counters that were compared with the ledger, over all scopes and windows. */
  readonly counters: number;
};

/** Waits until no attempt is open and no counter holds anything, 15 s at most. Throws what is still held, or what differs. */
export async function idle(test: TestStores): Promise<IdleReport> {
  const startedAt = performance.now();
  const counters = await eventually(async () => {
    const { count } = await test.stores.ledger.openHolds();
    if (count > 0) throw new Error(`${count} attempts are open`);
    let compared = 0;
    for (const tenantId of await test.stores.ledger.tenants())
      compared += await compareTenant(test, tenantId);
    return compared;
  }, HOLDS_END_WITHIN_MS);
  return { seconds: (performance.now() - startedAt) / 1_000, counters };
}

async function compareTenant(test: TestStores, tenantId: string): Promise<number> {
  const { mode, generation } = await test.stores.ledger.gate(tenantId);
  const counters =
    mode === 'redis'
      ? await redisCounters(test, tenantId, generation)
      : await postgresCounters(test, tenantId, generation);
  for (const counter of counters) {
    const { scope, interval } = counter;
    const booked = await test.stores.accounts.settled(tenantId, scope, fromIntervalKey(interval));
    const found = [counter.heldNanoUsd, counter.heldTokens, counter.settledNanoUsd, counter.settledTokens];
    const due = [0n, 0n, booked.nanoUsd, booked.tokens];
    if (found.join() !== due.join())
      throw new Error(
        `counters of ${tenantId}/${scope.kind}/${scope.id} ${interval} in ${mode}: held and settled are ${found.join(', ')}, due ${due.join(', ')}`,
      );
  }
  return counters.length;
}

type Counter = {
  readonly scope: Scope;
  readonly interval: string;
  readonly settledNanoUsd: bigint;
  readonly settledTokens: bigint;
  readonly heldNanoUsd: bigint;
  readonly heldTokens: bigint;
};

/** Scopes hydrated for the present server and generation; nobody trusts the others. */
async function redisCounters(test: TestStores, tenantId: string, generation: bigint): Promise<Counter[]> {
  const { redis } = test;
  const { holds, leases } = budgetKeys(redis.prefix, tenantId);
  const [held, leased] = await redis.command((client) =>
    Promise.all([client.hkeys(holds), client.zcard(leases)]),
  );
  if (held.length + leased > 0)
    throw new Error(`tenant ${tenantId}: ${held.length} holds and ${leased} leases are left (${held[0]})`);
  const wanted = `${generation}:${await redis.runId()}`;
  const place = `${redis.prefix}:{t:${tenantId}}:scope:`;
  const counters: Counter[] = [];
  for (const key of await keysLike(test, `${place}*`)) {
    const hash = await readCounters(redis, key);
    if (hash['hydrated'] !== wanted) continue;
    const [, kind = '', id = ''] = /^([a-z]+):(.*)$/.exec(key.slice(place.length)) ?? [];
    for (const interval of (hash['intervals'] ?? '').split(';').filter((one) => one !== '')) {
      const amount = (field: string) => BigInt(hash[`${interval}:${field}`] ?? 0);
      counters.push({
        scope: { kind: kind as Scope['kind'], id }, // the key is built from the kind
        interval,
        settledNanoUsd: amount('usd:settled'),
        settledTokens: amount('tokens:settled'),
        heldNanoUsd: amount('usd:held'),
        heldTokens: amount('tokens:held'),
      });
    }
  }
  return counters;
}

async function keysLike({ redis }: TestStores, pattern: string): Promise<readonly string[]> {
  const found = new Set<string>();
  await redis.command(async (client) => {
    for await (const keys of client.scanStream({ match: pattern, count: 1_000 }))
      for (const key of keys as string[]) found.add(key);
  });
  return [...found];
}

async function postgresCounters(
  { postgres }: TestStores,
  tenantId: string,
  generation: bigint,
): Promise<readonly Counter[]> {
  const { rows } = await postgres.query<Omit<Counter, 'scope'> & { kind: Scope['kind']; id: string }>(
    `select scope as kind, scope_id as id, interval_key as interval, settled_nano_usd as "settledNanoUsd",
       settled_tokens as "settledTokens", held_nano_usd as "heldNanoUsd", held_tokens as "heldTokens"
     from budget_counters where tenant_id = $1 and generation = $2`,
    [tenantId, generation],
  );
  return rows.map(({ kind, id, ...counter }) => ({ ...counter, scope: { kind, id } }));
}
