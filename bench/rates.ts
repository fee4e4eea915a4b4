// Claim: a permit of a provider, limited in requests and in tokens, is given at half the rate of INCR, or faster; of a provider and its
// model at 0.35 of it.

import { heading, say, table } from '../dev/demo/terminal.ts';
import { openBenchStores, withServers } from './harness.ts';
import { COLUMNS, ratio, rowOf, startLoad } from './load.ts';

const LOAD = { processes: 2, inFlight: 32 };

await withServers(async (servers) => {
  await using bench = await openBenchStores(servers);
  await using load = await startLoad(bench, LOAD);
  const [incr, two, four] = await load.measure(
    [{ kind: 'incr' }, { kind: 'permit', buckets: 2 }, { kind: 'permit', buckets: 4 }],
    { count: 21, ms: 300 },
  );
  heading(
    `permit against INCR: 2 buckets ${ratio(incr, two).toFixed(3)}x, 4 buckets ${ratio(incr, four).toFixed(3)}x`,
  );
  say('a bucket for requests and one for tokens, of the provider, and of its model');
  table(COLUMNS, [rowOf('INCR', incr, incr), rowOf('2 buckets', incr, two), rowOf('4 buckets', incr, four)]);
});
