// Claim: a hold on every limit of three scopes costs Redis and its client little more than four INCR. Then the curve: what each further
// limit costs.

import { heading, say, table } from '../dev/demo/terminal.ts';
import { openBenchStores, spread, withServers } from './harness.ts';
import { type Figures, type Job, ratio, type Shape, startLoad } from './load.ts';

const LOAD = { processes: 2, inFlight: 32 };
const ROUNDS = { count: 7, ms: 1_000 };
const CURVE_ROUNDS = { count: 5, ms: 700 };

const COLUMNS = [
  'operation',
  'against INCR',
  'a second (least to most)',
  'Redis, us each',
  'clients, us each',
];

await withServers(async (servers) => {
  await using bench = await openBenchStores(servers);
  await using load = await startLoad(bench, LOAD);
  const full: Shape = { tenant: 'full', payers: 100, scopes: 3, limits: 2 };
  const [incr, hold] = await load.measure([{ kind: 'incr' }, { kind: 'hold', shape: full }], ROUNDS);
  heading(`hold against INCR: ${ratio(incr, hold).toFixed(3)}x`);
  say('3 scopes, each with a limit in USD and one in tokens, of one window');
  table(COLUMNS, [row('INCR', incr, incr), row('hold', incr, hold)]);

  const jobs = ([1, 2, 4, 8] as const).map(
    (limits): Job => ({ kind: 'hold', shape: { tenant: `curve-${limits}`, payers: 100, scopes: 4, limits } }),
  );
  const [base, ...curve] = await load.measure([{ kind: 'incr' }, ...jobs], CURVE_ROUNDS);
  heading('4 scopes, by limits of each scope');
  table(COLUMNS, [
    row('INCR', base, base),
    ...curve.map((figures, index) => row(`${2 ** index} limits`, base, figures)),
  ]);
});

function row(name: string, base: Figures | undefined, figures: Figures | undefined): string[] {
  return [
    name,
    `${ratio(base, figures).toFixed(3)}x`,
    spread(figures?.rates ?? []),
    spread(figures?.redisMicros ?? [], 1),
    spread(figures?.clientMicros ?? [], 1),
  ];
}
