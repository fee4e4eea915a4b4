// Claim: what a hold costs depends neither on how much a tenant has spent before nor on how many scopes there are: at most 1.1 times as
// much with a thousand times as many charges in the ledger, or a thousand times as many scopes in Redis.

import { heading, table } from '../dev/demo/terminal.ts';
import { fillLedger, median, openBenchStores, withServers } from './harness.ts';
import { COLUMNS, type Figures, ratio, rowOf, type Shape, startLoad } from './load.ts';

const ROUNDS = { count: 25, ms: 300 };
const CHARGES = [1_000, 1_000_000] as const;
/** Eleven scopes for ten payers: their tasks, and one user for all of them. */
const PAYERS = [90, 90_900] as const;

await withServers(async (servers) => {
  await using bench = await openBenchStores(servers);
  await using load = await startLoad(bench, { processes: 2, inFlight: 32 });
  const charged = CHARGES.map(
    (rows): Shape => ({ tenant: `charged-${rows}`, payers: 90, scopes: 3, limits: 2, hasCharges: true }),
  );
  for (const rows of CHARGES) await fillLedger(bench, { tenant: `charged-${rows}`, rows });
  await bench.postgres.query('vacuum (analyze) ledger');
  const [few, many] = await load.measure(
    charged.map((shape) => ({ kind: 'hold', shape })),
    ROUNDS,
  );
  report('a hold with 10^6 charges against 10^3', ['10^3 charges', '10^6 charges'], [few, many]);

  const wide = PAYERS.map((payers): Shape => ({ tenant: `wide-${payers}`, payers, scopes: 3, limits: 2 }));
  const [narrow, broad] = await load.measure(
    wide.map((shape) => ({ kind: 'hold', shape })),
    ROUNDS,
  );
  report('a hold with 10^5 scopes against 10^2', ['10^2 scopes', '10^5 scopes'], [narrow, broad]);
});

function report(
  title: string,
  [lessName, moreName]: readonly [string, string],
  [less, more]: readonly [Figures | undefined, Figures | undefined],
): void {
  const cost = 1 / ratio(less, more);
  const redis = median(more?.redisMicros ?? []) / median(less?.redisMicros ?? []);
  heading(`${title}: ${cost.toFixed(3)}x the time, ${redis.toFixed(3)}x of Redis' own`);
  table(COLUMNS, [rowOf(lessName, less, less), rowOf(moreName, less, more)]);
}
