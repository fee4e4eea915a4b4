-- Up Migration

-- What was not published, or was and has no number yet: read by task in its order, and by the sweeper as a whole. What was refused is in
-- neither.
drop index events_unpublished;
create index events_open on events (task_id, ordinal) where seq is null and epoch is null;
