// Claim: governed simple tasks run at 0.85 times the rate of a bare workflow with one empty activity, on the same server, with 1, 4, 16 and
// 64 of them in flight. The provider answers at once, so that what is seen is Weir's own part. `--profile DIR` has the worker write a
// processor profile there, and prints where its time went.

import { mkdir, readdir, readFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { BARE_QUEUE } from './bare-worker.ts';
import { type BenchFleet, pause, withFleet } from './fleet.ts';
import { median, spread } from './harness.ts';
import { cpuMs } from './process-time.ts';
import { foldProfile } from './profile.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '5' },
    'in-flight': { type: 'string', default: '1,4,16,64' },
    slots: { type: 'string', default: '64' },
    profile: { type: 'string' },
  },
  allowPositionals: true,
});
const MS = Number(values.seconds) * 1_000;
const SLOTS = { WORKER_ACT_NORMAL: values.slots, WORKER_WF_NORMAL: values.slots };

type Once = (fleet: BenchFleet, id: string) => Promise<unknown>;
/** Of one task, without what the worker uses when it has none. */
type Measured = { readonly rate: number; readonly workerMs: number; readonly transactions: number };

const IDLE_MS = 5_000;

const bare: Once = (fleet, id) =>
  fleet.temporal.workflow.execute('bareTask', {
    workflowId: `bare-${id}`,
    taskQueue: BARE_QUEUE,
    args: [{ userId: 'bench', query: 'why is the sky blue' }],
  });

const governed: Once = async (fleet, id) => {
  await fleet.tasks.start(
    { userId: 'bench', query: 'why is the sky blue', model: 'simulated/small', maxOutputTokens: 16 },
    `governed-${id}`,
  );
  return fleet.tasks.result(`governed-${id}`);
};

await withFleet({ env: SLOTS }, async (fleet) => {
  const folder = values.profile === undefined ? undefined : resolve(values.profile);
  if (folder !== undefined) await mkdir(folder, { recursive: true });
  const worker = await fleet.startWorker({
    nodeArgs: folder === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', folder],
  });
  const other = await fleet.startWorker({ script: new URL('./bare-worker.ts', import.meta.url) });
  const idle = [await idleOf(fleet, other.pid), await idleOf(fleet, worker.pid)] as const;
  const levels = values['in-flight'].split(',').map(Number);
  const rows: string[][] = [];
  for (const inFlight of levels) {
    const [bares, governeds] = await byTurns(fleet, inFlight, { pids: [other.pid, worker.pid], idle });
    const ratios = governeds.map(({ rate }, round) => rate / (bares[round]?.rate ?? Number.NaN));
    rows.push([
      String(inFlight),
      `${median(ratios).toFixed(2)}x`,
      spread(bares.map(({ rate }) => rate)),
      spread(governeds.map(({ rate }) => rate)),
      median(bares.map(({ workerMs }) => workerMs)).toFixed(1),
      median(governeds.map(({ workerMs }) => workerMs)).toFixed(1),
      median(governeds.map(({ transactions }) => transactions)).toFixed(1),
    ]);
  }
  heading('governed simple tasks against a bare workflow with one empty activity (aim: at least 0.85x)');
  say(
    `rounds of ${values.seconds} s, ${values.slots} slots, load ${loadavg()[0]?.toFixed(1)}; without tasks Weir's worker uses ` +
      `${(100 * idle[1].cpuShare).toFixed(1)} % of a core and ${idle[1].transactions.toFixed(1)} transactions a second`,
  );
  table(
    [
      ...['in flight', 'ratio', 'bare, a second', 'governed, a second'],
      ...['bare worker, ms each', 'worker, ms each', 'transactions each'],
    ],
    rows,
  );
  // The profile is written when the process ends.
  await worker.stop();
  if (folder !== undefined) await printProfile(folder);
});

/** Rounds of both, one after the other, so that whatever else the machine does meets both. */
async function byTurns(
  fleet: BenchFleet,
  inFlight: number,
  { pids, idle }: { readonly pids: readonly [number, number]; readonly idle: readonly [Idle, Idle] },
): Promise<readonly [readonly Measured[], readonly Measured[]]> {
  const found: [Measured[], Measured[]] = [[], []];
  // The first of each only warms up.
  for (let round = 0; round <= Number(values.rounds); round += 1)
    for (const [index, once] of [bare, governed].entries()) {
      const background = idle[index] ?? idle[0];
      const measured = await measure(fleet, once, { inFlight, pid: pids[index] ?? 0, round, background });
      if (round > 0) found[index]?.push(measured);
    }
  return found;
}

async function measure(
  fleet: BenchFleet,
  once: Once,
  {
    inFlight,
    pid,
    round,
    background,
  }: {
    readonly inFlight: number;
    readonly pid: number;
    readonly round: number;
    readonly background: Idle;
  },
): Promise<Measured> {
  const cpuBefore = await cpuMs(pid);
  const transactionsBefore = await transactionsOf(fleet);
  const from = performance.now();
  let done = 0;
  const lane = async (number: number) => {
    for (let n = 0; performance.now() - from < MS; n += 1) {
      await once(fleet, `${inFlight}-${round}-${number}-${n}`);
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, number) => lane(number)));
  const seconds = (performance.now() - from) / 1_000;
  const cpu = (await cpuMs(pid)) - cpuBefore - background.cpuShare * seconds * 1_000;
  const transactions = (await transactionsOf(fleet)) - transactionsBefore - background.transactions * seconds;
  return { rate: done / seconds, workerMs: cpu / done, transactions: transactions / done };
}

type Idle = { readonly cpuShare: number; readonly transactions: number };

/** What a worker without tasks uses, of a core and of transactions a second. */
async function idleOf(fleet: BenchFleet, pid: number): Promise<Idle> {
  const [cpuBefore, before] = [await cpuMs(pid), await transactionsOf(fleet)];
  await pause(IDLE_MS);
  return {
    cpuShare: ((await cpuMs(pid)) - cpuBefore) / IDLE_MS,
    transactions: ((await transactionsOf(fleet)) - before) / (IDLE_MS / 1_000),
  };
}

/** Of Postgres so far; each statement outside a transaction is one. Counted by the server within a second. */
async function transactionsOf({ postgres }: BenchFleet): Promise<number> {
  await postgres.query('select pg_stat_force_next_flush()');
  const { rows } = await postgres.query<{ count: bigint }>(
    'select xact_commit as count from pg_stat_database where datname = current_database()',
  );
  return Number(rows[0]?.count ?? 0);
}

async function printProfile(folder: string): Promise<void> {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.cpuprofile'));
  const profiles = await Promise.all(
    files.map(async (name) => ({ name, ...foldProfile(await readFile(join(folder, name), 'utf8')) })),
  );
  const most = Math.max(...profiles.map(({ busySeconds }) => busySeconds));
  // One for each thread; those of queues that nobody used only started.
  for (const { name, busySeconds, parts } of profiles) {
    if (busySeconds < most / 10) continue;
    heading(`${name}: busy for ${busySeconds.toFixed(1)} s`);
    table(
      ['part', 'share of that'],
      parts.slice(0, 20).map(({ part, share }) => [part, `${(100 * share).toFixed(1)} %`]),
    );
  }
}
