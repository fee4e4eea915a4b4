// Whether the counters in Redis say what the ledger and the records of holds say. One that differs for longer than calls take is wrong,
// is told, and is rebuilt.

import type { Scope } from '../task/budget.ts';
import { fromIntervalKey } from '../task/window.ts';
import { budgetKeys } from './keys.ts';
import type { Ledger } from './ledger.ts';
import type { Sql } from './postgres.ts';
import { loadScript, type Redis } from './redis.ts';
import { readScopeSums } from './scope-sums.ts';

const inspect = loadScript('holds', 'inspect');

/** A counter that differs: by how much it is beyond the ledger (settled) and beyond the records of holds (held). */
export type Drift = {
  readonly tenantId: string;
  readonly scope: Scope;
  readonly interval: string;
  readonly settledNanoUsd: bigint;
  readonly settledTokens: bigint;
  readonly heldNanoUsd: bigint;
  readonly heldTokens: bigint;
};

export type DriftReport = { readonly checked: number; readonly drifts: readonly Drift[] };

export type DriftCheck = {
  /** Looks at the next scopes, at most some hundreds. What differed in two passes and in every look of each is drift. */
  pass(): Promise<DriftReport>;
};

const SCANNED_PER_PASS = 500;
/** Between the commit of a charge and its release a counter is behind for a moment: any look that agrees is enough. */
const LOOKS = 5;

export function createDriftCheck(
  redis: Redis,
  sql: Sql,
  options: {
    readonly gate: Ledger['gate'];
    readonly pause: (ms: number) => Promise<void>;
    readonly lookEveryMs: number;
  },
): DriftCheck {
  let cursor = '0';
  let suspects = new Set<string>();
  return {
    async pass() {
      const [next, keys] = await redis.command((client) =>
        client.scan(cursor, 'MATCH', `${escaped(redis.prefix)}:{t:*}:scope:*`, 'COUNT', SCANNED_PER_PASS),
      );
      cursor = next;
      const differing = new Set<string>();
      const drifts: Drift[] = [];
      for (const key of new Set([...suspects, ...keys])) {
        const found = await lookRepeatedly(redis, sql, options, key);
        if (found.length === 0) continue;
        if (!suspects.has(key)) differing.add(key);
        else {
          drifts.push(...found);
          await redis.command((client) => client.hdel(key, 'hydrated', 'version', 'intervals', 'hydrating'));
        }
      }
      suspects = differing;
      return { checked: keys.length, drifts };
    },
  };
}

async function lookRepeatedly(
  redis: Redis,
  sql: Sql,
  options: Parameters<typeof createDriftCheck>[2],
  key: string,
): Promise<readonly Drift[]> {
  for (let looks = 1; ; looks += 1) {
    const found = await look(redis, sql, options.gate, key);
    if (found.length === 0 || looks === LOOKS) return found;
    await options.pause(options.lookEveryMs);
  }
}

/** One comparison. A scope that is not hydrated for the present server and generation is trusted by nobody and cannot drift. */
async function look(redis: Redis, sql: Sql, gate: Ledger['gate'], key: string): Promise<readonly Drift[]> {
  const place = toPlace(redis.prefix, key);
  if (place === undefined) return [];
  const { tenantId, scope } = place;
  const { mode, generation } = await gate(tenantId);
  if (mode !== 'redis') return [];
  const values = (await redis.run(
    inspect,
    [budgetKeys(redis.prefix, tenantId).holds, key],
    [scope.kind, scope.id, `${generation}:${await redis.runId()}`],
  )) as string[];
  const counters = Array.from({ length: values.length / FIELDS }, (_, n) => toCounter(values, n * FIELDS));
  const intervals = counters.map(({ interval }) => fromIntervalKey(interval));
  const { settled } = await readScopeSums(sql, tenantId, scope, intervals);
  return counters.flatMap((counter, index) => {
    const booked = settled[index] ?? { nanoUsd: 0n, tokens: 0n };
    const drift = {
      ...{ tenantId, scope, interval: counter.interval },
      settledNanoUsd: counter.settledNanoUsd - booked.nanoUsd,
      settledTokens: counter.settledTokens - booked.tokens,
      heldNanoUsd: counter.heldNanoUsd - counter.recordedNanoUsd,
      heldTokens: counter.heldTokens - counter.recordedTokens,
    };
    const { settledNanoUsd, settledTokens, heldNanoUsd, heldTokens } = drift;
    const isEqual = [settledNanoUsd, settledTokens, heldNanoUsd, heldTokens].every((off) => off === 0n);
    return isEqual ? [] : [drift];
  });
}

/** Values per interval in the script's answer. */
const FIELDS = 7;

function toCounter(values: readonly string[], at: number) {
  const amount = (offset: number) => BigInt(values[at + offset] ?? 0);
  return {
    interval: values[at] ?? '',
    settledNanoUsd: amount(1),
    settledTokens: amount(2),
    heldNanoUsd: amount(3),
    heldTokens: amount(4),
    recordedNanoUsd: amount(5),
    recordedTokens: amount(6),
  };
}

const PLACE = /^\{t:([^}]+)\}:scope:(tenant|user|session|task|share):(.+)$/;

function toPlace(prefix: string, key: string): { tenantId: string; scope: Scope } | undefined {
  const [, tenantId, kind, id] = PLACE.exec(key.slice(prefix.length + 1)) ?? [];
  if (tenantId === undefined || kind === undefined || id === undefined) return undefined;
  return { tenantId, scope: { kind: kind as Scope['kind'], id } }; // the pattern names the kinds
}

/** A prefix may hold what means something to a glob pattern. */
function escaped(prefix: string): string {
  return prefix.replaceAll(/[*?[\]\\]/g, (character) => `\\${character}`);
}
