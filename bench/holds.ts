// Claim: a hold on every limit of three scopes runs at 0.22 of the rate of INCR, or faster. Then the curve: what each further limit costs.

import { heading, say, table } from '../dev/demo/terminal.ts';
import { openBenchStores, withServers } from './harness.ts';
import { COLUMNS, type Job, ratio, rowOf, type Shape, startLoad } from './load.ts';

const LOAD = { processes: 2, inFlight: 32 };
const FULL: Shape = { tenant: 'full', payers: 100, scopes: 3, limits: 2 };
const LIMITS = [1, 2, 4, 8] as const;

await withServers(async (servers) => {
  await using bench = await openBenchStores(servers);
  await using load = await startLoad(bench, LOAD);
  const [incr, hold] = await load.measure([{ kind: 'incr' }, { kind: 'hold', shape: FULL }], {
    count: 21,
    ms: 300,
  });
  heading(`hold against INCR: ${ratio(incr, hold).toFixed(3)}x`);
  say('3 scopes, each with a limit in USD and one in tokens, of one window');
  table(COLUMNS, [rowOf('INCR', incr, incr), rowOf('hold', incr, hold)]);

  const jobs = LIMITS.map(
    (limits): Job => ({ kind: 'hold', shape: { tenant: `curve-${limits}`, payers: 100, scopes: 4, limits } }),
  );
  const [base, ...curve] = await load.measure([{ kind: 'incr' }, ...jobs], { count: 11, ms: 300 });
  heading('hold against INCR: 4 scopes, by limits of each scope');
  table(COLUMNS, [
    rowOf('INCR', base, base),
    ...LIMITS.map((limits, index) => rowOf(`4 x ${limits} limits`, base, curve[index])),
  ]);
});
