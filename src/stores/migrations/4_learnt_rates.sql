-- Up Migration

-- What providers were heard to limit, written when it changes and read when Redis has lost it: one row for each bucket and dimension. An
-- empty model is the whole provider. Times are the clock of Redis, in ms. Of the dimension `blocked` only the moment counts at which the
-- block ends.
create table learnt_rates (
  provider text not null,
  model text not null,
  dimension text not null check (dimension in ('rpm', 'tpm', 'inputTpm', 'outputTpm', 'blocked')),
  value double precision not null,
  ceiling double precision,
  at_ms bigint not null,
  changed_at timestamptz not null default now(),
  primary key (provider, model, dimension)
);
