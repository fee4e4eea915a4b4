// Claim: pairs of a hold and its settling run at 0.15 of the rate of INCR, or faster. What Postgres does between the two is not in it.

import { heading, say, table } from '../dev/demo/terminal.ts';
import { openBenchStores, withServers } from './harness.ts';
import { COLUMNS, ratio, rowOf, type Shape, startLoad } from './load.ts';

const SHAPE: Shape = { tenant: 'full', payers: 100, scopes: 3, limits: 2 };

await withServers(async (servers) => {
  await using bench = await openBenchStores(servers);
  await using load = await startLoad(bench, { processes: 2, inFlight: 32 });
  const [incr, pair] = await load.measure([{ kind: 'incr' }, { kind: 'holdAndRelease', shape: SHAPE }], {
    count: 21,
    ms: 300,
  });
  heading(`hold and settle against INCR: ${ratio(incr, pair).toFixed(3)}x`);
  say('3 scopes, each with a limit in USD and one in tokens, of one window');
  table(COLUMNS, [rowOf('INCR', incr, incr), rowOf('hold, settle', incr, pair)]);
});
