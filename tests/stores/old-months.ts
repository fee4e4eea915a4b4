// Months of the ledger that are long gone, made by hand, with many kinds of rows in them.

import type { TestStores } from '../support/stores.ts';

/** Partitions of one month, such as 2025-01, for ledger and attempts. */
export async function makeMonth(test: TestStores, month: string): Promise<void> {
  const next = new Date(`${month}-01T00:00:00Z`);
  next.setUTCMonth(next.getUTCMonth() + 1);
  for (const parent of ['attempts', 'ledger'])
    await test.postgres.query(
      `create table ${parent}_${month.replace('-', '_')} partition of ${parent}
       for values from ('${month}-01 00:00:00+00') to ('${next.toISOString().slice(0, 10)} 00:00:00+00')`,
    );
}

export type OldRow = {
  readonly at: string;
  readonly attemptKey: string;
  readonly callKey?: string;
  readonly kind?: 'charge' | 'estimate' | 'adjust' | 'void';
  readonly adjustKey?: string;
  readonly tenantId?: string;
  readonly userId?: string;
  readonly sessionId?: string | null;
  readonly taskId?: string | null;
  readonly model?: string;
  /** Input, cache read, cache write for five minutes and an hour, output, reasoning. */
  readonly tokens?: readonly [number, number, number, number, number, number];
  readonly nano?: bigint;
  readonly billable?: boolean;
  readonly priceHash?: string;
};

export async function addRows(test: TestStores, rows: readonly OldRow[]): Promise<void> {
  for (const row of rows) {
    const { model = 'p/a', tokens = [10, 3, 2, 1, 5, 4], nano = 1n, adjustKey = '' } = row;
    await test.postgres.query(
      `insert into ledger (held_at, attempt_key, kind, adjust_key, call_key, tenant_id, user_id, session_id, task_id, provider, model,
         input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd,
         billable, usage_source, price_hash)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 'measured', $20)`,
      [
        ...[
          row.at,
          row.attemptKey,
          row.kind ?? 'charge',
          adjustKey,
          row.callKey ?? row.attemptKey.split('#')[0],
        ],
        ...[row.tenantId ?? 'acme', row.userId ?? 'ada', row.sessionId ?? null, row.taskId ?? null],
        ...[model.split('/')[0], model, ...tokens, nano, row.billable ?? true, row.priceHash ?? 'old'],
      ],
    );
  }
}

/** Attempts of rows, in a state. */
export async function addAttempt(
  test: TestStores,
  row: Pick<OldRow, 'at' | 'attemptKey' | 'model' | 'priceHash'>,
  state: 'started' | 'settled' | 'estimated',
  estimate: { readonly nano: bigint; readonly inputTokens: number; readonly maxOutputTokens: number } = {
    nano: 1n,
    inputTokens: 1,
    maxOutputTokens: 1,
  },
): Promise<void> {
  const model = row.model ?? 'p/a';
  await test.postgres.query(
    `insert into attempts (held_at, attempt_key, call_key, tenant_id, user_id, step_id, provider, model, candidate, state, generation,
       owner, estimate_nano_usd, estimate_tokens, estimate_input_tokens, max_output_tokens, price_hash)
     values ($1, $2, $3, 'acme', 'ada', 's', $4, $5, 0, $6, 1, 'process test', $7, $8, $9, $10, $11)`,
    [
      ...[row.at, row.attemptKey, row.attemptKey.split('#')[0], model.split('/')[0], model, state],
      ...[estimate.nano, estimate.inputTokens + estimate.maxOutputTokens],
      ...[estimate.inputTokens, estimate.maxOutputTokens, row.priceHash ?? 'old'],
    ],
  );
}

/** Names of the partitions that exist, of months before 2026. */
export async function oldPartitions(test: TestStores): Promise<readonly string[]> {
  const { rows } = await test.postgres.query<{ name: string }>(
    `select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent in ('ledger'::regclass, 'attempts'::regclass) and c.relname ~ '_202[0-5]_' order by 1`,
  );
  return rows.map((row) => row.name);
}
