// Postgres behind a breaker. Only what the server did, or the way to it, counts: an error that our own code throws inside a transaction
// says nothing of Postgres.

import { isPostgresOutage, type Postgres, type Sql } from './postgres.ts';

/** A breaker, as far as it is needed here. */
export type Guard = {
  run<Result>(work: () => Promise<Result>, isFailure: (error: unknown) => boolean): Promise<Result>;
};

/** The same connection; locks and pings go past the breaker, since housekeeping and probes ask the server itself. */
export function guardPostgres(postgres: Postgres, guard: Guard): Postgres {
  return {
    ...postgres,
    query: (text, values) => guard.run(() => postgres.query(text, values), isPostgresOutage),
    transaction: <Result>(
      work: (sql: Sql) => Promise<Result>,
      options?: Parameters<Postgres['transaction']>[1],
    ) => {
      const blame = createBlame();
      return guard.run(
        () => postgres.transaction((sql) => blame.watch(sql, work), options),
        (error) => !blame.isOurs(error) && isPostgresOutage(error),
      );
    },
  };
}

/** Tells errors of statements from those of the code between them. One that wraps a statement's error is a statement's. */
function createBlame() {
  const ofStatements = new Set<unknown>();
  const ours = new Set<unknown>();
  return {
    isOurs: (error: unknown) => ours.has(error),
    async watch<Result>(sql: Sql, work: (sql: Sql) => Promise<Result>): Promise<Result> {
      const query: Sql['query'] = async (text, values) => {
        try {
          return await sql.query(text, values);
        } catch (error) {
          ofStatements.add(error);
          throw error;
        }
      };
      try {
        return await work({ query });
      } catch (error) {
        if (!causesOf(error).some((cause) => ofStatements.has(cause))) ours.add(error);
        throw error;
      }
    },
  };
}

function causesOf(error: unknown): unknown[] {
  const causes: unknown[] = [];
  let cause = error;
  while (cause !== undefined && !causes.includes(cause)) {
    causes.push(cause);
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return causes;
}
