// `npm run bench -- <name> [options]`: one bench, or all of them one after the other. Benches on one machine at one time measure each other.

import { heading, say } from '../dev/demo/terminal.ts';

const BENCHES = [
  ...['holds', 'hold-and-settle', 'hold-scaling', 'hydration', 'limits', 'quota', 'rates', 'rate-accuracy'],
  'publish-events',
  ...['event-log', 'fan-out'],
  ...['priority', 'fairness', 'pool-scaling', 'temporal-overhead'],
];

const [name] = process.argv.slice(2);
if (name !== 'all' && !BENCHES.includes(name ?? '')) {
  say(`npm run bench -- <name>, of: ${BENCHES.join(', ')}, all`);
  process.exit(2);
}
for (const bench of name === 'all' ? BENCHES : [name]) {
  heading(`== ${bench}`);
  await import(`./${bench}.ts`);
}
