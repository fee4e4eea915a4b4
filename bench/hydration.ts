// Claim: counters of a tenant with 400,000 charges are back in 200 ms or less after Redis lost them, whatever their windows.

import { heading, say, table } from '../dev/demo/terminal.ts';
import { bounds, settledSums } from '../src/stores/accounts.ts';
import { createCalendars } from '../src/stores/calendars.ts';
import { budgetKeys } from '../src/stores/keys.ts';
import { ALWAYS, type Interval } from '../src/task/window.ts';
import { type BenchStores, fillLedger, median, openBenchStores, spread, withServers } from './harness.ts';

const TENANT = 'large';
const ROWS = 400_000;
const BOUND_MS = 200;
const ROUNDS = 9;
const MONTH = createCalendars({ zone: 'UTC', weekStart: 'monday' }).intervalOf(
  { window: 'month' },
  Date.now(),
);

const CASES: readonly (readonly [string, readonly Interval[]])[] = [
  ['all time', [ALWAYS]],
  ['month', [MONTH]],
  ['both at once', [ALWAYS, MONTH]],
];

await withServers(async (servers) => {
  await using bench = await openBenchStores(servers);
  await bench.stores.ledger.gate(TENANT);
  await fillLedger(bench, { tenant: 'another', rows: ROWS / 4 });
  await fillLedger(bench, { tenant: TENANT, rows: ROWS });
  await bench.postgres.query('analyze ledger');
  await report(bench, 'rows just written, not vacuumed');
  await bench.postgres.query('vacuum (analyze) ledger');
  await report(bench, 'vacuumed, as autovacuum leaves them');
  heading('how Postgres reads the sums over all time');
  for (const line of await explain(bench)) say(line);
});

async function report(bench: BenchStores, state: string): Promise<void> {
  const times = CASES.map(() => [] as number[]);
  for (let round = 0; round < ROUNDS; round += 1)
    for (const [index, [, intervals]] of CASES.entries()) times[index]?.push(await rebuild(bench, intervals));
  const slowest = Math.max(...times.map(median));
  heading(`hydration against ${BOUND_MS} ms: ${(slowest / BOUND_MS).toFixed(3)}x`);
  say(`${ROWS} charges of one tenant, ${state}`);
  table(
    ['windows', 'against 200 ms', 'ms (least to most)'],
    CASES.map(([name], index) => {
      const ms = times[index] ?? [];
      return [name, `${(median(ms) / BOUND_MS).toFixed(3)}x`, spread(ms)];
    }),
  );
}

/** One rebuild of a counter that Redis does not have, in milliseconds. */
async function rebuild({ stores, redis }: BenchStores, intervals: readonly Interval[]): Promise<number> {
  const scope = { kind: 'tenant', id: TENANT } as const;
  await redis.command((client) => client.del(budgetKeys(redis.prefix, TENANT).scope(scope.kind, scope.id)));
  const from = performance.now();
  await stores.hydrate({ tenantId: TENANT, scope, intervals, generation: 1n });
  return performance.now() - from;
}

async function explain({ postgres }: BenchStores): Promise<readonly string[]> {
  const { rows } = await postgres.query<{ 'QUERY PLAN': string }>(
    `explain (analyze, buffers, costs off) ${settledSums('tenant', ALWAYS, ['$3', '$4'])}`,
    [TENANT, TENANT, ...bounds(ALWAYS)],
  );
  return rows.map((row) => row['QUERY PLAN']);
}
