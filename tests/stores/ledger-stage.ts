// Attempts and what the ledger says of them, as tests of the ledger need both.

import { expect } from 'vitest';
import type { Attempt, Charge } from '../../src/stores/ledger.ts';
import { NO_USAGE, type Usage } from '../../src/task/usage.ts';
import { attemptOf, estimateOf } from '../support/holds.ts';
import type { TestStores } from '../support/stores.ts';

export const USAGE: Usage = {
  ...NO_USAGE,
  inputTokens: 30,
  cacheReadTokens: 5,
  outputTokens: 7,
  reasoningTokens: 2,
};
export const CHARGE: Charge = { usage: USAGE, nanoUsd: 1_000n, source: 'measured' };
export const NOTHING: Charge = { usage: NO_USAGE, nanoUsd: 0n, source: 'none' };
export const ESTIMATE: Charge = {
  usage: { ...NO_USAGE, inputTokens: 40, outputTokens: 50 },
  nanoUsd: 700n,
  source: 'estimated',
};
export const ANSWER = { status: 'completed', text: 'an answer', finishReason: 'stop' } as const;
const TASK = { taskId: 'task', runId: 'run', tenantId: 'acme' };

/** Helpers on the stores of one test file, which are open by the time one of them is called. */
export function ledgerStage(test: () => TestStores) {
  let calls = 0;

  /** An attempt of a call of its own, unless it is told which; each with a moment of its own. */
  function newAttempt(
    change: Partial<Attempt> & { readonly call?: string; readonly n?: string } = {},
  ): Attempt {
    calls += 1;
    const { call = `task:run:answer:${calls}`, n = '0.1.1.0', ...rest } = change;
    const payer = { tenantId: 'acme', userId: 'ada', sessionId: 'talk', taskId: 'task' };
    const held = { attemptKey: `${call}#${n}`, payer, estimate: estimateOf(2_000n), limits: [] };
    return { ...attemptOf(held, Date.now() + calls), ...rest };
  }

  async function started(change: Parameters<typeof newAttempt>[0] = {}): Promise<Attempt> {
    const attempt = newAttempt(change);
    expect(await test().stores.ledger.intent(attempt, undefined)).toBe(true);
    return attempt;
  }

  /** Further attempts of a started one's call, as they were before anybody looked: `intent` would refuse them now. */
  async function besides(
    first: Attempt,
    numbers: readonly string[],
    heldAt = first.heldAt,
  ): Promise<Attempt[]> {
    const attempts = numbers.map((n) => ({ ...first, attemptKey: `${first.callKey}#${n}`, heldAt }));
    for (const attempt of attempts)
      await test().postgres.query(
        `insert into attempts
       select (jsonb_populate_record(a, jsonb_build_object('attempt_key', $2::text, 'held_at', $3::timestamptz))).*
       from attempts as a where attempt_key = $1`,
        [first.attemptKey, attempt.attemptKey, heldAt],
      );
    return attempts;
  }

  /** All that the ledger holds for an attempt, adjustments included. */
  async function bookedFor(attempt: Attempt): Promise<bigint> {
    const { rows } = await test().postgres.query<{ nano: bigint }>(
      'select sum(cost_nano_usd) as nano from ledger where attempt_key = $1',
      [attempt.attemptKey],
    );
    return rows[0]?.nano ?? 0n;
  }

  async function rowsOf(attempt: Attempt) {
    const { rows } = await test().postgres.query(
      `select kind, adjust_key as "adjustKey", billable, usage_source as source, cost_nano_usd as nano, input_tokens as input,
       cache_read_tokens as cached, output_tokens as output
     from ledger where attempt_key = $1 order by created_at, kind`,
      [attempt.attemptKey],
    );
    return rows;
  }

  function eventsOf(id: string) {
    return test()
      .postgres.query('select id from events where task_id = $1 and id = $2', ['task', id])
      .then(({ rows }) => rows.length);
  }

  const caused = (id: string) => ({ task: TASK, events: [{ id, type: 'call_started' } as const] });

  return { newAttempt, started, besides, bookedFor, rowsOf, eventsOf, caused };
}
