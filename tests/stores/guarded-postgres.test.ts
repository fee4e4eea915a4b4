// Postgres behind a real breaker, on the run's server: what counts against it.

import { describe, expect, inject, it } from 'vitest';
import { BreakerOpen, createBreaker } from '../../src/calls/breaker.ts';
import { guardPostgres } from '../../src/stores/guarded-postgres.ts';
import { createPostgres, isPostgresOutage, type Postgres } from '../../src/stores/postgres.ts';
import { QUIET } from '../support/stores.ts';

const SETTINGS = {
  enabled: true,
  intervalMs: 60_000,
  timeoutMs: 60_000,
  failureThreshold: 3,
  successThreshold: 1,
  maxRequests: 1,
};

/** `url`: another one than that of the run's server. */
function open(url = inject('servers').postgres) {
  const bare = createPostgres({ url, schema: 'public', poolSize: 2, statementTimeoutMs: 5_000 }, QUIET);
  const breaker = createBreaker('postgres', () => SETTINGS, {
    isFailure: isPostgresOutage,
    onChange: () => undefined,
    hangMs: 60_000,
  });
  return {
    breaker,
    postgres: guardPostgres(bare, breaker),
    [Symbol.asyncDispose]: () => bare.close(),
  };
}

class OurFault extends Error {}

/** Does it as often as opens a breaker, and answers what was thrown last. */
async function often(work: () => Promise<unknown>): Promise<unknown> {
  let thrown: unknown;
  for (let n = 0; n < SETTINGS.failureThreshold; n += 1)
    await work().catch((error: unknown) => {
      thrown = error;
    });
  return thrown;
}

describe('a breaker before Postgres', () => {
  it('takes no error of our own code in a transaction for one of the server', async () => {
    await using stage = open();
    const { postgres, breaker } = stage;
    const thrown = await often(() =>
      postgres.transaction(async (sql) => {
        await sql.query('select 1');
        throw new OurFault('a rule of ours');
      }),
    );
    expect(thrown).toBeInstanceOf(OurFault);
    await often(() => postgres.transaction(async () => Promise.reject(new TypeError('a mistake of ours'))));
    expect(breaker.state).toBe('closed');
    expect(breaker.counts).toEqual({ calls: 6, failures: 0 });
  });

  it('does not count statements that were wrong', async () => {
    await using stage = open();
    const { postgres, breaker } = stage;
    await often(() => postgres.query('select nonsense'));
    await often(() => postgres.transaction((sql) => sql.query('select 1 / 0')));
    expect(breaker.counts).toEqual({ calls: 6, failures: 0 });
  });

  it('answers what transactions answer', async () => {
    await using stage = open();
    const answer = await stage.postgres.transaction(async (sql) => {
      const { rows } = await sql.query<{ n: number }>('select $1::int as n', [7]);
      return rows[0]?.n;
    });
    expect(answer).toBe(7);
    expect((await stage.postgres.query<{ n: number }>('select 8 as n')).rows).toEqual([{ n: 8 }]);
  });

  it.each<[string, (postgres: Postgres) => Promise<unknown>]>([
    ['a query', (postgres) => postgres.query('select 1')],
    ['a transaction', (postgres) => postgres.transaction((sql) => sql.query('select 1'))],
  ])('opens when the server is not there for %s', async (_, work) => {
    await using stage = open('postgres://nobody@127.0.0.1:1/none');
    await often(() => work(stage.postgres));
    expect(stage.breaker.state).toBe('open');
    await expect(work(stage.postgres)).rejects.toBeInstanceOf(BreakerOpen);
  });

  it('opens when connections break in the middle of transactions, also where our code wraps the error', async () => {
    await using stage = open();
    await often(() =>
      stage.postgres.transaction(async (sql) => {
        const ended = sql.query('select pg_terminate_backend(pg_backend_pid())');
        await ended.catch((cause: unknown) => {
          throw new OurFault('could not write it down', { cause });
        });
      }),
    );
    expect(stage.breaker.state).toBe('open');
  });
});
