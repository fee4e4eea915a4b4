-- Up Migration

create table tenants (
  tenant_id text primary key,
  created_at timestamptz not null default now()
);

-- Which gate admits a tenant's calls. A hold carries the generation it was made under; the intent insert checks it.
create table gates (
  tenant_id text primary key references tenants,
  mode text not null default 'redis' check (mode in ('redis', 'postgres')),
  generation bigint not null default 1
);

-- Limits of one scope, replaced as a whole. No row: the configured defaults hold. An empty list: nothing binds.
create table budgets (
  tenant_id text not null,
  scope text not null check (scope in ('tenant', 'user', 'session', 'task')),
  scope_id text not null,
  limits jsonb not null,
  updated_at timestamptz not null default now(),
  primary key (tenant_id, scope, scope_id)
);

-- The last refusal of each scope, for `explain`.
create table budget_refusals (
  tenant_id text not null,
  scope text not null,
  scope_id text not null,
  details jsonb not null,
  at timestamptz not null default now(),
  primary key (tenant_id, scope, scope_id)
);

create table tasks (
  task_id text primary key,
  run_id text,
  tenant_id text not null,
  user_id text not null,
  session_id text,
  status text not null,
  phase text not null,
  strategy text not null,
  priority text not null,
  tier text,
  model text,
  input jsonb not null,
  waiting jsonb,
  steps jsonb not null default '[]',
  result_text text,
  error jsonb,
  epoch integer not null default 0,
  -- Milliseconds, as the cursor of a listing carries them: two tasks of one millisecond are told apart by their ids.
  created_at timestamptz(3) not null default now(),
  started_at timestamptz,
  ended_at timestamptz
);
create index tasks_by_tenant on tasks (tenant_id, created_at desc, task_id);
create index tasks_open on tasks (created_at) where ended_at is null;

-- One row per request that was or may be sent. held_at is Redis' clock at the hold and decides the partition, the window and the
-- month of everything that follows from the attempt.
create table attempts (
  held_at timestamptz not null,
  attempt_key text not null,
  call_key text not null,
  tenant_id text not null,
  user_id text not null,
  session_id text,
  task_id text,
  step_id text not null,
  provider text not null,
  model text not null,
  candidate integer not null,
  state text not null check (state in ('started', 'settled', 'voided', 'estimated')),
  outcome text check (outcome in ('ok', 'failed', 'throttled', 'cancelled', 'lost')),
  generation bigint not null,
  owner text not null,
  estimate_nano_usd bigint not null,
  estimate_tokens bigint not null,
  estimate_input_tokens integer not null,
  max_output_tokens integer not null,
  price_hash text not null,
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  primary key (held_at, attempt_key)
) partition by range (held_at);
create index attempts_by_call on attempts (call_key);
create index attempts_started on attempts (tenant_id, held_at) where state = 'started';

-- Append-only. cost_nano_usd is what the provider took; billable is what the user pays for.
create table ledger (
  held_at timestamptz not null,
  attempt_key text not null,
  kind text not null check (kind in ('charge', 'estimate', 'adjust', 'void')),
  adjust_key text not null default '',
  call_key text not null,
  tenant_id text not null,
  user_id text not null,
  session_id text,
  task_id text,
  provider text not null,
  model text not null,
  input_tokens bigint not null,
  cache_read_tokens bigint not null,
  cache_write_5m_tokens bigint not null,
  cache_write_1h_tokens bigint not null,
  output_tokens bigint not null,
  reasoning_tokens bigint not null,
  cost_nano_usd bigint not null,
  billable boolean not null,
  usage_source text not null check (usage_source in ('measured', 'recounted', 'estimated', 'none')),
  price_hash text not null,
  created_at timestamptz not null default now(),
  primary key (held_at, attempt_key, kind, adjust_key)
) partition by range (held_at);
create index ledger_by_user on ledger (tenant_id, user_id);
create index ledger_by_task on ledger (task_id);
create index ledger_by_call on ledger (call_key);
create index ledger_adjustments on ledger (created_at) where kind = 'adjust';

-- The answer of a call, written in the transaction that settles its winning attempt: what a repetition returns.
create table call_results (
  call_key text primary key,
  tenant_id text not null,
  task_id text,
  attempt_key text not null,
  status text not null check (status in ('completed', 'cancelled')),
  model text not null,
  text text not null,
  finish_reason text not null,
  usage jsonb not null,
  cost_nano_usd bigint not null,
  created_at timestamptz not null default now()
);

create index call_results_by_model on call_results (model, created_at desc) where status = 'completed';

-- Milestones, written in the transaction of their cause; seq and epoch are filled in once the event was published.
create table events (
  task_id text not null,
  id text not null,
  run_id text not null,
  tenant_id text not null,
  seq bigint,
  epoch integer,
  type text not null,
  at timestamptz not null default now(),
  body jsonb not null,
  ordinal bigint generated always as identity,
  primary key (task_id, id)
);
create unique index events_by_seq on events (task_id, seq) where seq is not null;
create index events_unpublished on events (at) where seq is null;

-- Makes the monthly partitions (UTC) from this month to `months` months ahead. Runs at migration and by housekeeping; the lock
-- keeps two callers from creating the same partition.
create function ensure_partitions(months integer) returns void language plpgsql as $$
declare
  parent text;
  first_day date;
begin
  perform pg_advisory_xact_lock(hashtext(current_schema() || '.ensure_partitions'));
  foreach parent in array array['attempts', 'ledger'] loop
    for ahead in -1 .. months loop
      first_day := (date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead))::date;
      execute format(
        'create table if not exists %I partition of %I for values from (%L) to (%L)',
        parent || to_char(first_day, '_YYYY_MM'), parent,
        first_day::text || ' 00:00:00+00', (first_day + interval '1 month')::date::text || ' 00:00:00+00');
    end loop;
  end loop;
end $$;
select ensure_partitions(3);
