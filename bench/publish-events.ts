// Claim: batches of ten events are published at twice the rate of events, or faster, at which the same bytes go into streams by one XADD
// each: with numbers, de-duplication, ring, call text and both feeds against none of them.

import { heading, say, table } from '../dev/demo/terminal.ts';
import type { Batch } from './event-load.ts';
import { median, openBenchStores, spread, withServers } from './harness.ts';
import { type Figures, type Job, startLoad } from './load.ts';

const LOAD = { processes: 2, inFlight: 32 };
const EVENTS = 10;
const MIXES: readonly { readonly name: string; readonly batch: Batch }[] = [
  { name: '9 deltas, 1 milestone', batch: { deltas: 9, milestones: 1 } },
  { name: '10 milestones', batch: { deltas: 0, milestones: 10 } },
];

await withServers(async (servers) => {
  for (const { name, batch } of MIXES) {
    await using bench = await openBenchStores(servers);
    await using load = await startLoad(bench, LOAD);
    const jobs: readonly Job[] = [
      { kind: 'xadd', batch },
      { kind: 'publish', batch },
    ];
    const [xadd, publish] = await load.measure(jobs, { count: 15, ms: 300 });
    if (xadd === undefined || publish === undefined) throw new Error('a load without figures');
    const raw = eventsOf(xadd, 1);
    const batched = eventsOf(publish, EVENTS);
    const ratios = batched.rates.map((rate, round) => rate / (raw.rates[round] ?? Number.NaN));
    heading(`published events against XADD, ${name}: ${median(ratios).toFixed(2)}x`);
    say(`${LOAD.processes} clients with one connection each, ${LOAD.inFlight} commands in flight on it`);
    table(
      [
        'operation',
        'against the first',
        'events a second (least to most)',
        'Redis, us each',
        'clients, us each',
      ],
      [
        ['one XADD for each', '1.00x', ...cells(raw)],
        ['batches of 10', `${spread(ratios, 2)}x`, ...cells(batched)],
      ],
    );
  }
});

/** Figures of single events, of an operation that brings so many. */
function eventsOf(figures: Figures, each: number): Figures {
  return {
    rates: figures.rates.map((rate) => rate * each),
    redisMicros: figures.redisMicros.map((micros) => micros / each),
    clientMicros: figures.clientMicros.map((micros) => micros / each),
  };
}

function cells({ rates, redisMicros, clientMicros }: Figures): string[] {
  return [spread(rates), spread(redisMicros, 2), spread(clientMicros, 2)];
}
