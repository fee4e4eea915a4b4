// Questions about attempts and their charges. Nothing is written here; the steps that write are in ledger.ts.

import type { Usage } from '../task/usage.ts';
import type { Adjustment, Attempt, AttemptState, CallResult, Charge, GateMode } from './ledger.ts';
import type { Sql } from './postgres.ts';

/** Undefined when there is no such attempt. */
export async function attemptState(
  sql: Sql,
  attempt: Pick<Attempt, 'attemptKey' | 'heldAt'>,
): Promise<AttemptState | undefined> {
  const { rows } = await sql.query<{ state: AttemptState }>(
    'select state from attempts where held_at = $1 and attempt_key = $2',
    [attempt.heldAt, attempt.attemptKey],
  );
  return rows[0]?.state;
}

/** What the ledger holds for an attempt, its rows together; `which` is a condition on the rows, never from outside. */
export async function chargedFor(
  sql: Sql,
  attempt: Pick<Attempt, 'attemptKey' | 'heldAt'>,
  which: string,
): Promise<Charge> {
  const { rows } = await sql.query<Record<keyof Usage | 'nano', bigint>>(
    `select coalesce(sum(input_tokens), 0) as "inputTokens", coalesce(sum(cache_read_tokens), 0) as "cacheReadTokens",
       coalesce(sum(cache_write_5m_tokens), 0) as "cacheWrite5mTokens", coalesce(sum(cache_write_1h_tokens), 0) as "cacheWrite1hTokens",
       coalesce(sum(output_tokens), 0) as "outputTokens", coalesce(sum(reasoning_tokens), 0) as "reasoningTokens",
       coalesce(sum(cost_nano_usd), 0) as nano
     from ledger where held_at = $1 and attempt_key = $2 and ${which}`,
    [attempt.heldAt, attempt.attemptKey],
  );
  const row = rows[0];
  if (row === undefined) throw new Error('an aggregate came back without a row');
  const { nano, ...usage } = row;
  return { nanoUsd: nano, source: 'none', usage: numbers(usage) };
}

/** What a call was answered with, whoever made the attempt. */
export async function callResult(sql: Sql, callKey: string): Promise<CallResult | undefined> {
  const { rows } = await sql.query<{
    attempt_key: string;
    status: CallResult['status'];
    model: string;
    text: string;
    finish_reason: string;
    usage: Usage;
    cost_nano_usd: bigint;
    max_output_tokens: number | null;
  }>(
    `select attempt_key, status, model, text, finish_reason, usage, cost_nano_usd,
       (select max_output_tokens from attempts a where a.call_key = r.call_key and a.attempt_key = r.attempt_key)
     from call_results r where call_key = $1`,
    [callKey],
  );
  const row = rows[0];
  if (row === undefined) return undefined;
  return {
    callKey,
    attemptKey: row.attempt_key,
    status: row.status,
    model: row.model,
    text: row.text,
    finishReason: row.finish_reason,
    usage: row.usage,
    nanoUsd: row.cost_nano_usd,
    // An answer outlives its attempt when months are dropped.
    maxOutputTokens: row.max_output_tokens ?? Number.POSITIVE_INFINITY,
  };
}

/** How a call's attempts ended so far, per candidate; what the caps on attempts count. */
export async function attemptFailures(
  sql: Sql,
  callKey: string,
): Promise<readonly { candidate: number; failed: number; throttled: number }[]> {
  const { rows } = await sql.query<{ candidate: number; failed: number; throttled: number }>(
    `select candidate, count(*) filter (where outcome = 'failed')::int as failed,
       count(*) filter (where outcome = 'throttled')::int as throttled
     from attempts where call_key = $1 group by candidate`,
    [callKey],
  );
  return rows;
}

/** Median output of a model's last 200 answers; undefined before the first. */
export async function medianOutputTokens(sql: Sql, model: string): Promise<number | undefined> {
  const { rows } = await sql.query<{ median: number | null }>(
    `select percentile_disc(0.5) within group (order by tokens)::float8 as median from (
       select (usage->>'outputTokens')::bigint as tokens from call_results
       where model = $1 and status = 'completed' order by created_at desc limit 200
     ) as recent`,
    [model],
  );
  return rows[0]?.median ?? undefined;
}

type AttemptRow = {
  held_at: Date;
  attempt_key: string;
  call_key: string;
  tenant_id: string;
  user_id: string;
  session_id: string | null;
  task_id: string | null;
  share_id: string | null;
  step_id: string;
  provider: string;
  model: string;
  candidate: number;
  mode: GateMode;
  generation: bigint;
  owner: string;
  estimate_nano_usd: bigint;
  estimate_tokens: bigint;
  estimate_input_tokens: number;
  max_output_tokens: number;
  price_hash: string;
};

/** Attempts under way, oldest first; `condition` is SQL, never from outside. */
export async function startedAttempts(
  sql: Sql,
  condition: string,
  values: readonly unknown[],
): Promise<readonly Attempt[]> {
  const { rows } = await sql.query<AttemptRow>(
    `select * from attempts where state = 'started' and ${condition} order by held_at limit 1000`,
    values,
  );
  return rows.map(toAttempt);
}

/** One attempt by its keys, in whatever state. */
export async function findAttempt(
  sql: Sql,
  attemptKey: string,
  callKey: string,
): Promise<(Attempt & { readonly state: AttemptState }) | undefined> {
  const { rows } = await sql.query<AttemptRow & { state: AttemptState }>(
    'select * from attempts where call_key = $1 and attempt_key = $2',
    [callKey, attemptKey],
  );
  const row = rows[0];
  return row === undefined ? undefined : { ...toAttempt(row), state: row.state };
}

function toAttempt(row: AttemptRow): Attempt {
  return {
    attemptKey: row.attempt_key,
    callKey: row.call_key,
    heldAt: row.held_at,
    payer: {
      tenantId: row.tenant_id,
      userId: row.user_id,
      ...(row.session_id === null ? {} : { sessionId: row.session_id }),
      ...(row.task_id === null ? {} : { taskId: row.task_id }),
      ...(row.share_id === null ? {} : { shareId: row.share_id }),
    },
    stepId: row.step_id,
    provider: row.provider,
    model: row.model,
    candidate: row.candidate,
    mode: row.mode,
    generation: row.generation,
    owner: row.owner,
    estimate: {
      nanoUsd: row.estimate_nano_usd,
      tokens: Number(row.estimate_tokens),
      inputTokens: row.estimate_input_tokens,
      maxOutputTokens: row.max_output_tokens,
    },
    priceHash: row.price_hash,
  };
}

function numbers(usage: Record<keyof Usage, bigint>): Usage {
  return {
    inputTokens: Number(usage.inputTokens),
    cacheReadTokens: Number(usage.cacheReadTokens),
    cacheWrite5mTokens: Number(usage.cacheWrite5mTokens),
    cacheWrite1hTokens: Number(usage.cacheWrite1hTokens),
    outputTokens: Number(usage.outputTokens),
    reasoningTokens: Number(usage.reasoningTokens),
  };
}

/** Adjustments of an age between two bounds, for those whose counters were not told. Milliseconds. */
export async function recentAdjustments(
  sql: Sql,
  minAgeMs: number,
  maxAgeMs: number,
): Promise<readonly Adjustment[]> {
  const { rows } = await sql.query<{
    attemptKey: string;
    adjustKey: string;
    heldAt: Date;
    tenantId: string;
    userId: string;
    sessionId: string | null;
    taskId: string | null;
    shareId: string | null;
  }>(
    `select attempt_key as "attemptKey", adjust_key as "adjustKey", held_at as "heldAt", tenant_id as "tenantId",
       user_id as "userId", session_id as "sessionId", task_id as "taskId", share_id as "shareId"
     from ledger where kind = 'adjust' and created_at < now() - make_interval(secs => $1 / 1000.0)
       and created_at > now() - make_interval(secs => $2 / 1000.0) limit 1000`,
    [minAgeMs, maxAgeMs],
  );
  return rows.map(({ attemptKey, adjustKey, heldAt, tenantId, userId, sessionId, taskId, shareId }) => ({
    attemptKey,
    adjustKey,
    heldAt,
    payer: {
      tenantId,
      userId,
      sessionId: sessionId ?? undefined,
      taskId: taskId ?? undefined,
      shareId: shareId ?? undefined,
    },
  }));
}
