-- Up Migration

-- What was down when a task began, and what it was given for it.
alter table tasks add column degradation jsonb;
