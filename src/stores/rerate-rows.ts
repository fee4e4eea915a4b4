// The rows of a re-rating: what attempts of a period were booked at, and the adjustments that bring them to another price list. Which
// price is right is not decided here (calls/rerate.ts).

import type { Payer } from '../task/budget.ts';
import type { Usage } from '../task/usage.ts';
import { type CounterMove, moveCounters } from './counters.ts';
import { enterGate } from './gates.ts';
import type { Postgres, Sql } from './postgres.ts';

/** All that the ledger holds for one attempt that reached a provider, or may have. */
export type BookedAttempt = {
  readonly attemptKey: string;
  readonly heldAt: Date;
  readonly payer: Payer;
  readonly model: string;
  /** Late adjustments included. */
  readonly usage: Usage;
  /** Adjustments and earlier re-ratings included. */
  readonly nanoUsd: bigint;
  /** Of the row that was booked when the attempt ended, not of adjustments. */
  readonly priceHash: string;
  /** It was estimated at all that it had held: the bound of the hold, not the price of its usage. */
  readonly isHold: boolean;
  /** It was re-rated before, with whichever list. */
  readonly isRerated: boolean;
  /** It was re-rated with the list in question. */
  readonly isApplied: boolean;
};

export type RerateFilter = { readonly from: Date; readonly to: Date; readonly model?: string | undefined };

/** A place in the order of `find`: the last attempt that was seen. */
export type ReratePlace = Pick<BookedAttempt, 'heldAt' | 'attemptKey'>;

export type Rerated = BookedAttempt & { readonly difference: bigint };

export type RerateRows = ReturnType<typeof createRerateRows>;

export function createRerateRows(postgres: Postgres) {
  return {
    /** Attempts of a period by the moment of their hold, in order, at most `limit` after a place. */
    find: (
      filter: RerateFilter,
      priceHash: string,
      { after, limit }: { readonly after: ReratePlace | undefined; readonly limit: number },
    ): Promise<readonly BookedAttempt[]> =>
      read(
        postgres,
        `l.held_at >= $2 and l.held_at < $3 and ($4::text is null or l.model = $4)
           and ($5::timestamptz is null or (l.held_at, l.attempt_key) > ($5, $6))`,
        [
          ...[priceHash, filter.from, filter.to, filter.model ?? null],
          ...[after?.heldAt ?? null, after?.attemptKey ?? null, limit],
        ],
      ),

    /**
     * Books what attempts cost more or less than they were booked at, as one row each that is billable as the attempt is. Looks at them
     * again under their locks: what was adjusted meanwhile counts. Counters in Postgres move with them. Answers what was booked.
     * @param costOf what an attempt should cost; undefined leaves it as it is
     */
    book: (
      attempts: readonly BookedAttempt[],
      priceHash: string,
      costOf: (attempt: BookedAttempt) => bigint | undefined,
    ): Promise<readonly Rerated[]> =>
      postgres.transaction(async (sql) => {
        const inPostgres = await enterGates(sql, attempts);
        const keys = [attempts.map(({ heldAt }) => heldAt), attempts.map(({ attemptKey }) => attemptKey)];
        // In one order, as every lock on attempts; a late adjustment of one of them comes before or after, never between.
        await sql.query(
          `select from attempts where (held_at, attempt_key) in (select * from unnest($1::timestamptz[], $2::text[]))
           order by held_at, attempt_key for update`,
          keys,
        );
        const booked = await read(
          sql,
          `(l.held_at, l.attempt_key) in (select * from unnest($2::timestamptz[], $3::text[]))`,
          [priceHash, ...keys, attempts.length],
        );
        const rerated = booked.flatMap((attempt) => {
          const cost = attempt.isApplied ? undefined : costOf(attempt);
          const difference = cost === undefined ? 0n : cost - attempt.nanoUsd;
          return difference === 0n ? [] : [{ ...attempt, difference }];
        });
        await insert(sql, priceHash, rerated);
        for (const tenantId of inPostgres)
          await moveCounters(
            sql,
            tenantId,
            rerated.filter(({ payer }) => payer.tenantId === tenantId).map(toMove),
          );
        return rerated;
      }),
  };
}

/** Tenants whose counters are in Postgres and move in this transaction; all their gates stay where they are until it ends. */
async function enterGates(sql: Sql, attempts: readonly BookedAttempt[]): Promise<readonly string[]> {
  const inPostgres: string[] = [];
  for (const tenantId of [...new Set(attempts.map(({ payer }) => payer.tenantId))].toSorted())
    if ((await enterGate(sql, tenantId)) === 'postgres') inPostgres.push(tenantId);
  return inPostgres;
}

function toMove({ payer, heldAt, difference }: Rerated): CounterMove {
  const nothing = { nanoUsd: 0n, tokens: 0n };
  return { payer, heldAt, held: nothing, settled: { ...nothing, nanoUsd: difference } };
}

type BookedRow = Record<keyof Usage | 'nano', bigint> & {
  attempt_key: string;
  held_at: Date;
  tenant_id: string;
  user_id: string;
  session_id: string | null;
  task_id: string | null;
  share_id: string | null;
  model: string;
  price_hash: string;
  is_hold: boolean;
  is_rerated: boolean;
  is_applied: boolean;
};

/** `$1` is the price hash, the last value the limit; `condition` is SQL on rows `l`, never from outside. */
async function read(
  sql: Sql,
  condition: string,
  values: readonly unknown[],
): Promise<readonly BookedAttempt[]> {
  // A voided attempt counts once a late adjustment says that it was not void after all.
  const { rows } = await sql.query<BookedRow>(
    `select l.attempt_key, l.held_at, l.tenant_id, l.user_id, l.session_id, l.task_id, l.share_id, l.model,
       sum(input_tokens) as "inputTokens", sum(cache_read_tokens) as "cacheReadTokens",
       sum(cache_write_5m_tokens) as "cacheWrite5mTokens", sum(cache_write_1h_tokens) as "cacheWrite1hTokens",
       sum(output_tokens) as "outputTokens", sum(reasoning_tokens) as "reasoningTokens", sum(cost_nano_usd) as nano,
       coalesce(max(l.price_hash) filter (where kind <> 'adjust'), '') as price_hash,
       coalesce(bool_or(kind = 'estimate' and cost_nano_usd = estimate_nano_usd and input_tokens = estimate_input_tokens
         and output_tokens = max_output_tokens) and not bool_or(adjust_key = 'late'), false) as is_hold,
       bool_or(adjust_key like 'rerate:%') as is_rerated, bool_or(adjust_key = 'rerate:' || $1) as is_applied
     from ledger l left join attempts a on a.held_at = l.held_at and a.attempt_key = l.attempt_key
     where ${condition}
     group by l.held_at, l.attempt_key, l.tenant_id, l.user_id, l.session_id, l.task_id, l.share_id, l.model
     having bool_or(kind in ('charge', 'estimate') or adjust_key = 'late')
     order by l.held_at, l.attempt_key limit $${values.length}`,
    values,
  );
  return rows.map(toBooked);
}

function toBooked(row: BookedRow): BookedAttempt {
  return {
    attemptKey: row.attempt_key,
    heldAt: row.held_at,
    payer: {
      tenantId: row.tenant_id,
      userId: row.user_id,
      sessionId: row.session_id ?? undefined,
      taskId: row.task_id ?? undefined,
      shareId: row.share_id ?? undefined,
    },
    model: row.model,
    usage: {
      inputTokens: Number(row.inputTokens),
      cacheReadTokens: Number(row.cacheReadTokens),
      cacheWrite5mTokens: Number(row.cacheWrite5mTokens),
      cacheWrite1hTokens: Number(row.cacheWrite1hTokens),
      outputTokens: Number(row.outputTokens),
      reasoningTokens: Number(row.reasoningTokens),
    },
    nanoUsd: row.nano,
    priceHash: row.price_hash,
    isHold: row.is_hold,
    isRerated: row.is_rerated,
    isApplied: row.is_applied,
  };
}

/** Who pays, for which call and whether it is billed is copied from the row that ended the attempt. */
async function insert(sql: Sql, priceHash: string, rerated: readonly Rerated[]): Promise<void> {
  if (rerated.length === 0) return;
  await sql.query(
    `insert into ledger (held_at, attempt_key, kind, adjust_key, call_key, tenant_id, user_id, session_id, task_id, share_id, provider,
       model, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
       cost_nano_usd, billable, usage_source, price_hash)
     select l.held_at, l.attempt_key, 'adjust', 'rerate:' || $1, call_key, tenant_id, user_id, session_id, task_id, share_id, provider,
       model, 0, 0, 0, 0, 0, 0, d.nano, billable, 'none', $1
     from ledger l join unnest($2::timestamptz[], $3::text[], $4::bigint[]) as d (held_at, attempt_key, nano)
       on l.held_at = d.held_at and l.attempt_key = d.attempt_key
     where l.kind <> 'adjust'`,
    [
      priceHash,
      rerated.map(({ heldAt }) => heldAt),
      rerated.map(({ attemptKey }) => attemptKey),
      rerated.map(({ difference }) => difference),
    ],
  );
}
