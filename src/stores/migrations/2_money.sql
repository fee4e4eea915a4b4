-- Up Migration

alter table gates add column changed_at timestamptz not null default now();

-- `share`: a part of a task's budget that was given to one of its parallel steps.
alter table budgets drop constraint budgets_scope_check;
alter table budgets add constraint budgets_scope_check check (scope in ('tenant', 'user', 'session', 'task', 'share'));

-- mode: which gate made the hold. sent and lease_until are the mark and the lease of a hold that Postgres made, or whose Redis is away.
alter table attempts
  add column share_id text,
  add column mode text not null default 'redis' check (mode in ('redis', 'postgres')),
  add column sent boolean not null default false,
  add column lease_until timestamptz,
  add column seen_tokens integer not null default 0;

alter table ledger
  add column share_id text,
  add column tokens bigint generated always as
    (input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens + output_tokens) stored;

-- The sums that rebuild a counter are read from these alone, without touching a row.
drop index ledger_by_user;
drop index ledger_by_task;
create index ledger_by_tenant on ledger (tenant_id, held_at) include (cost_nano_usd, tokens);
create index ledger_by_user on ledger (tenant_id, user_id, held_at) include (cost_nano_usd, tokens);
create index ledger_by_session on ledger (tenant_id, session_id, held_at) include (cost_nano_usd, tokens) where session_id is not null;
create index ledger_by_task on ledger (task_id, tenant_id, held_at) include (cost_nano_usd, tokens);
create index ledger_by_share on ledger (tenant_id, share_id) include (cost_nano_usd, tokens) where share_id is not null;

-- Sums of months whose rows were dropped, written in the transaction of the drop; hydration and reports read them too.
create table ledger_rollups (
  tenant_id text not null,
  user_id text not null,
  session_id text not null default '',
  task_id text not null default '',
  provider text not null,
  model text not null,
  day date not null,
  calls bigint not null,
  attempts bigint not null,
  input_tokens bigint not null,
  cache_read_tokens bigint not null,
  cache_write_5m_tokens bigint not null,
  cache_write_1h_tokens bigint not null,
  output_tokens bigint not null,
  reasoning_tokens bigint not null,
  cost_nano_usd bigint not null,
  billable_nano_usd bigint not null,
  tokens bigint generated always as
    (input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens + output_tokens) stored,
  primary key (tenant_id, user_id, session_id, task_id, provider, model, day)
);
create index ledger_rollups_by_user on ledger_rollups (tenant_id, user_id) include (cost_nano_usd, tokens);
create index ledger_rollups_by_session on ledger_rollups (tenant_id, session_id) include (cost_nano_usd, tokens) where session_id <> '';
create index ledger_rollups_by_task on ledger_rollups (tenant_id, task_id) include (cost_nano_usd, tokens) where task_id <> '';

-- Counters of the gate in Postgres, in its mode only: exact because they move in the transactions of attempts and ledger. Rows of
-- another generation do not count and are removed.
create table budget_counters (
  tenant_id text not null,
  scope text not null,
  scope_id text not null,
  interval_key text not null,
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  generation bigint not null,
  settled_nano_usd bigint not null,
  settled_tokens bigint not null,
  held_nano_usd bigint not null,
  held_tokens bigint not null,
  primary key (tenant_id, scope, scope_id, interval_key)
);

-- What an approval added to a limit, for one task alone.
create table budget_grants (
  tenant_id text not null,
  task_id text not null,
  scope text not null,
  scope_id text not null,
  unit text not null check (unit in ('usd', 'tokens')),
  limit_window text not null,
  approval_id text not null,
  amount bigint not null,
  created_at timestamptz not null default now(),
  primary key (approval_id)
);
create index budget_grants_by_task on budget_grants (tenant_id, task_id);

-- Who changed which limit, and how: kept after the limit is gone.
create table budget_changes (
  id bigint generated always as identity primary key,
  tenant_id text not null,
  scope text not null,
  scope_id text not null,
  change text not null check (change in ('set', 'removed', 'raised', 'granted')),
  details jsonb not null,
  changed_by text not null,
  change_key text unique,
  at timestamptz not null default now()
);
create index budget_changes_by_scope on budget_changes (tenant_id, scope, scope_id, at);

-- A warning was published: once per limit and window.
create table budget_thresholds (
  tenant_id text not null,
  scope text not null,
  scope_id text not null,
  unit text not null,
  limit_window text not null,
  interval_key text not null,
  warn_amount bigint not null,
  task_id text,
  at timestamptz not null default now(),
  primary key (tenant_id, scope, scope_id, unit, limit_window, interval_key, warn_amount)
);

create table approvals (
  approval_id text primary key,
  task_id text not null,
  run_id text not null,
  tenant_id text not null,
  user_id text not null,
  reason text not null check (reason in ('budget', 'start', 'tools')),
  details jsonb not null,
  status text not null default 'pending' check (status in ('pending', 'approved', 'rejected', 'timed_out', 'withdrawn')),
  on_timeout text not null check (on_timeout in ('reject', 'approve')),
  raise_amount bigint,
  comment text,
  decided_by text,
  requested_at timestamptz not null default now(),
  expires_at timestamptz not null,
  decided_at timestamptz
);
create index approvals_pending on approvals (tenant_id, requested_at) where status = 'pending';
create index approvals_by_task on approvals (task_id);

-- Living processes and the direct calls they have under way: evidence of life for holds that no activity owns, and the number of
-- callers that share a limit while Redis is away.
create table processes (
  process_id text primary key,
  kind text not null check (kind in ('worker', 'gateway')),
  calls jsonb not null default '[]',
  started_at timestamptz not null default now(),
  renewed_at timestamptz not null default now()
);

-- Whose texts are still to be removed, when their time is over or somebody asks for it.
create index tasks_with_texts on tasks (ended_at) where ended_at is not null and not input ? 'erasedAt';
create index call_results_with_text on call_results (tenant_id, task_id) where text <> '';
create index events_by_time on events (at) where type <> 'stream_end';
