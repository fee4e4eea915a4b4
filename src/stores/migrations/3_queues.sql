-- Up Migration

-- What a tenant has under way, which its cap counts, and what waits for a limit.
create index tasks_open_by_tenant on tasks (tenant_id) where ended_at is null;
create index tasks_waiting on tasks (priority) where ended_at is null and status = 'waiting';

-- The last count of all queues, made by one process at a time and shown by all.
create table queue_counts (
  id boolean primary key default true check (id),
  at timestamptz not null default now(),
  counts jsonb not null
);
