// Whether the counters in Redis say what the ledger and the records of holds say. One that differs for longer than calls take is wrong,
// is told, and is rebuilt.

import type { Scope } from '../task/budget.ts';
import { toCallKeyOfAttempt } from '../task/keys.ts';
import { fromIntervalKey, type Interval } from '../task/window.ts';
import { SCOPE_COLUMNS, type Spent } from './accounts.ts';
import { holdFunctions } from './hold-functions.ts';
import { budgetKeys, scopeOfKey } from './keys.ts';
import type { Ledger } from './ledger.ts';
import type { Postgres, Sql } from './postgres.ts';
import type { Redis } from './redis.ts';
import { readScopeSums } from './scope-sums.ts';

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
  postgres: Pick<Postgres, 'transaction'>,
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
        const found = await lookRepeatedly(redis, postgres, options, key);
        if (found.length === 0) continue;
        if (!suspects.has(key)) differing.add(key);
        else {
          drifts.push(...found);
          await redis.command((client) => client.del(key));
        }
      }
      suspects = differing;
      return { checked: keys.length, drifts };
    },
  };
}

async function lookRepeatedly(
  redis: Redis,
  postgres: Pick<Postgres, 'transaction'>,
  options: Parameters<typeof createDriftCheck>[2],
  key: string,
): Promise<readonly Drift[]> {
  for (let looks = 1; ; looks += 1) {
    const found = await look(redis, postgres, options.gate, key);
    if (found.length === 0 || looks === LOOKS) return found;
    await options.pause(options.lookEveryMs);
  }
}

/** One comparison. A scope that is not hydrated for the present server and generation is trusted by nobody and cannot drift. */
async function look(
  redis: Redis,
  postgres: Pick<Postgres, 'transaction'>,
  gate: Ledger['gate'],
  key: string,
): Promise<readonly Drift[]> {
  const place = toPlace(redis.prefix, key);
  if (place === undefined) return [];
  const { tenantId, scope } = place;
  const { mode, generation } = await gate(tenantId);
  if (mode !== 'redis') return [];
  const [readAtMs, ...values] = (await redis.run(
    holdFunctions.inspect,
    [budgetKeys(redis.prefix, tenantId).holds, key],
    [`${generation}:${await redis.runId()}`],
  )) as string[];
  if (readAtMs === undefined) return [];
  const counters = Array.from({ length: values.length / FIELDS }, (_, n) => toCounter(values, n * FIELDS));
  const booked = await postgres.transaction((sql) =>
    readBooked(sql, place, { counters, readAt: new Date(Number(readAtMs)) }),
  );
  return counters.flatMap((counter, index) => {
    const settled = booked[index] ?? NOTHING;
    const drift = {
      ...{ tenantId, scope, interval: counter.interval },
      settledNanoUsd: counter.settledNanoUsd - settled.nanoUsd,
      settledTokens: counter.settledTokens - settled.tokens,
      heldNanoUsd: counter.heldNanoUsd - counter.recordedNanoUsd,
      heldTokens: counter.heldTokens - counter.recordedTokens,
    };
    const { settledNanoUsd, settledTokens, heldNanoUsd, heldTokens } = drift;
    const isEqual = [settledNanoUsd, settledTokens, heldNanoUsd, heldTokens].every((off) => off === 0n);
    return isEqual ? [] : [drift];
  });
}

const NOTHING: Spent = { nanoUsd: 0n, tokens: 0n };

type Place = { readonly tenantId: string; readonly scope: Scope };

/**
 * What the ledger says that the counters had to have at the moment of their reading: all but what was held after it, and but attempts
 * that were counted as held then. A tenant that is never still would seem to drift else.
 */
async function readBooked(
  sql: Sql,
  { tenantId, scope }: Place,
  { counters, readAt }: { readonly counters: readonly Counter[]; readonly readAt: Date },
): Promise<readonly Spent[]> {
  // Two statements of one snapshot.
  await sql.query('set transaction isolation level repeatable read, read only');
  const intervals = counters.map(({ interval }) => fromIntervalKey(interval));
  const { settled } = await readScopeSums(sql, tenantId, scope, intervals);
  const held = [...new Set(counters.flatMap(({ attemptKeys }) => [...attemptKeys]))];
  const { rows } = await sql.query<NotYet>(
    `select attempt_key as "attemptKey", held_at as "heldAt", cost_nano_usd as "nanoUsd", tokens from ledger
     where tenant_id = $1 and call_key = any($2) and attempt_key = any($3) and held_at < $4
     union all
     select attempt_key, held_at, cost_nano_usd, tokens from ledger
     where tenant_id = $1 and ${SCOPE_COLUMNS[scope.kind]} = $5 and held_at >= $4`,
    [tenantId, held.map(toCallKeyOfAttempt), held, readAt, scope.id],
  );
  return counters.map(({ attemptKeys }, index) => {
    const interval = intervals[index];
    const notYet = rows.filter(
      (row) =>
        (row.heldAt >= readAt || attemptKeys.has(row.attemptKey)) &&
        interval !== undefined &&
        isIn(interval, row),
    );
    const { nanoUsd, tokens } = settled[index] ?? NOTHING;
    return notYet.reduce(
      (left, row) => ({ nanoUsd: left.nanoUsd - row.nanoUsd, tokens: left.tokens - row.tokens }),
      { nanoUsd, tokens },
    );
  });
}

/** A row of the ledger that the counters need not have yet. */
type NotYet = Spent & { readonly attemptKey: string; readonly heldAt: Date };

function isIn({ startMs, endMs }: Interval, { heldAt }: NotYet): boolean {
  return heldAt.getTime() >= startMs && heldAt.getTime() < endMs;
}

/** Values per interval in the script's answer. */
const FIELDS = 8;

type Counter = ReturnType<typeof toCounter>;

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
    /** Attempts that are counted as held. */
    attemptKeys: new Set((values[at + 7] ?? '').split(' ').filter((key) => key !== '')),
  };
}

function toPlace(prefix: string, key: string): Place | undefined {
  const [, tenantId] = /^\{t:([^}]+)\}:scope:/.exec(key.slice(prefix.length + 1)) ?? [];
  const scope = scopeOfKey(key);
  return tenantId === undefined || scope === undefined ? undefined : { tenantId, scope };
}

/** A prefix may hold what means something to a glob pattern. */
function escaped(prefix: string): string {
  return prefix.replaceAll(/[*?[\]\\]/g, (character) => `\\${character}`);
}
