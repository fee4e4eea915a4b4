// Claim: of 1,000 holds of $0.10 that four processes ask for at once, a limit of $5.00 admits exactly 50, every time. In Redis, or with
// `--store postgres` in Postgres.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { openBenchStores, withServers } from './harness.ts';
import type { Counts, Round } from './limits-process.ts';

const PROCESSES = 4;
const HOLDS = 1_000;
const ADMITTED = 50;
const ROUNDS = 5;

const { values } = parseArgs({
  options: { store: { type: 'string', default: 'redis' } },
  allowPositionals: true,
});
if (values.store !== 'redis' && values.store !== 'postgres')
  throw new Error(`--store is redis or postgres, not ${values.store}`);

await withServers(async (servers) => {
  await using bench = await openBenchStores(servers);
  const children = Array.from({ length: PROCESSES }, () =>
    fork(new URL('./limits-process.ts', import.meta.url), [
      ...[servers.postgres, servers.redis],
      ...[bench.name, values.store],
    ]),
  );
  await Promise.all(children.map((child) => once(child, 'message')));
  const rounds: { counts: readonly Counts[]; ms: number }[] = [];
  for (let number = 1; number <= ROUNDS; number += 1) {
    const from = performance.now();
    const answers = children.map(async (child, process) => {
      child.send({ number, process, holds: HOLDS / PROCESSES } satisfies Round);
      const [counts] = await once(child, 'message');
      return counts as Counts;
    });
    rounds.push({ counts: await Promise.all(answers), ms: performance.now() - from });
  }
  for (const child of children) child.disconnect();
  await Promise.all(children.map((child) => once(child, 'exit')));

  const total = (counts: readonly Counts[], name: keyof Counts) =>
    counts.reduce((sum, one) => sum + one[name], 0);
  const exact = rounds.filter(({ counts }) => total(counts, 'ok') === ADMITTED).length;
  heading(`exactly ${ADMITTED} of ${HOLDS} admitted: ${exact}/${ROUNDS}`);
  say(`${PROCESSES} processes, $0.10 on $5.00, in ${values.store}`);
  table(
    ['round', 'admitted', 'refused', 'asked again', 'ms'],
    rounds.map(({ counts, ms }, index) => [
      String(index + 1),
      String(total(counts, 'ok')),
      String(total(counts, 'refused')),
      String(total(counts, 'askedAgain')),
      ms.toFixed(0),
    ]),
  );
});
