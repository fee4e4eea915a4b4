// Claim: governed simple tasks run at 0.85 times the rate of a bare workflow with one empty activity, on the same server, with 1, 4, 16 and
// 64 of them in flight. The provider answers at once, so that what is seen is Weir's own part. Where the time goes is told by the processor
// time of each process for one task, and with `--profile DIR` by a profile of the worker.

import { mkdir, readdir, readFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { heading, say, shorten, table } from '../dev/demo/terminal.ts';
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
const IDLE_MS = 5_000;
const WARM_UP = 30;
const SLOTS = { WORKER_ACT_NORMAL: values.slots, WORKER_WF_NORMAL: values.slots };

type Kind = 'bare' | 'governed';
/** Milliseconds of processor time by process, and transactions of Postgres. */
type Used = Readonly<Record<string, number>>;
type Measured = {
  readonly rate: number /** Of one task, without what is used when there is none. */;
  readonly each: Used;
};

const once: Readonly<Record<Kind, (fleet: BenchFleet, id: string) => Promise<unknown>>> = {
  bare: (fleet, id) =>
    fleet.temporal.workflow.execute('bareTask', {
      workflowId: `bare-${id}`,
      taskQueue: BARE_QUEUE,
      args: [{ userId: 'bench', query: 'why is the sky blue' }],
    }),
  governed: async ({ tasks }, id) => {
    const input = { userId: 'bench', query: 'why is the sky blue', model: 'simulated/small' };
    await tasks.start({ ...input, maxOutputTokens: 16 }, `governed-${id}`);
    return tasks.result(`governed-${id}`);
  },
};

await withFleet({ env: SLOTS }, async (fleet) => {
  const folder = values.profile === undefined ? undefined : resolve(values.profile);
  if (folder !== undefined) await mkdir(folder, { recursive: true });
  const worker = await fleet.startWorker({
    nodeArgs: folder === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', folder],
  });
  const bareWorker = await fleet.startWorker({ script: new URL('./bare-worker.ts', import.meta.url) });
  const { temporal, postgres, redis, provider } = fleet.pids;
  const servers = { temporal, postgres, redis, provider };
  const pids = { ...servers, worker: worker.pid, 'bare worker': bareWorker.pid };
  for (let n = 0; n < WARM_UP; n += 1)
    await Promise.all([once.bare(fleet, `warm-${n}`), once.governed(fleet, `warm-${n}`)]);
  const before = await used(fleet, pids);
  await pause(IDLE_MS);
  const idle = difference(await used(fleet, pids), before, (value) => value / IDLE_MS);

  const rows: string[][] = [];
  const costs: { readonly inFlight: number; readonly kind: Kind; readonly each: Used }[] = [];
  for (const inFlight of values['in-flight'].split(',').map(Number)) {
    const { bare, governed } = await byTurns(fleet, inFlight, { pids, idle });
    const ratios = governed.map(({ rate }, round) => rate / (bare[round]?.rate ?? Number.NaN));
    rows.push([
      String(inFlight),
      `${median(ratios).toFixed(2)}x`,
      spread(bare.map(({ rate }) => rate)),
      spread(governed.map(({ rate }) => rate)),
    ]);
    for (const [kind, rounds] of [
      ['bare', bare],
      ['governed', governed],
    ] as const)
      costs.push({ inFlight, kind, each: medians(rounds.map(({ each }) => each)) });
  }
  heading('governed simple tasks against a bare workflow with one empty activity (aim: at least 0.85x)');
  say(`rounds of ${values.seconds} s, ${values.slots} slots, load ${loadavg()[0]?.toFixed(1)}`);
  table(['in flight', 'ratio', 'bare, a second', 'governed, a second'], rows);
  say();
  say(
    'processor time of one task, ms, without what each process uses when there is none; transactions of Postgres',
  );
  const names = Object.keys(idle);
  table(
    ['in flight', 'kind', ...names],
    costs.map(({ inFlight, kind, each }) => [
      String(inFlight),
      kind,
      ...names.map((name) => (each[name] ?? Number.NaN).toFixed(1)),
    ]),
  );
  const share = (name: string) => `${name} ${((idle[name] ?? Number.NaN) * 100).toFixed(1)} %`;
  say(
    `without tasks, of a core: ${names
      .filter((name) => name !== 'transactions')
      .map(share)
      .join(', ')}`,
  );
  // The profile is written when the process ends.
  await worker.stop();
  if (folder !== undefined) await printProfile(folder);
});

/** Rounds of both, one after the other, so that whatever else the machine does meets both. */
async function byTurns(
  fleet: BenchFleet,
  inFlight: number,
  about: { readonly pids: Pids; readonly idle: Used },
): Promise<Readonly<Record<Kind, readonly Measured[]>>> {
  const found: Record<Kind, Measured[]> = { bare: [], governed: [] };
  for (let round = 1; round <= Number(values.rounds); round += 1)
    for (const kind of ['bare', 'governed'] as const)
      found[kind].push(await measure(fleet, kind, { inFlight, round, ...about }));
  return found;
}

type Pids = Readonly<Record<string, number | undefined>>;

async function measure(
  fleet: BenchFleet,
  kind: Kind,
  about: { readonly inFlight: number; readonly round: number; readonly pids: Pids; readonly idle: Used },
): Promise<Measured> {
  const { inFlight, round, pids, idle } = about;
  const before = await used(fleet, pids);
  const from = performance.now();
  let done = 0;
  const lane = async (number: number) => {
    for (let n = 0; performance.now() - from < MS; n += 1) {
      await once[kind](fleet, `${inFlight}-${round}-${number}-${n}`);
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, number) => lane(number)));
  const ms = performance.now() - from;
  const each = difference(
    await used(fleet, pids),
    before,
    (value, name) => (value - (idle[name] ?? 0) * ms) / done,
  );
  return { rate: (done * 1_000) / ms, each };
}

async function used({ postgres }: BenchFleet, pids: Pids): Promise<Used> {
  const times = await Promise.all(
    Object.entries(pids).map(async ([name, pid]) => [
      name,
      pid === undefined ? Number.NaN : await cpuMs(pid),
    ]),
  );
  // Counted by the server within a second; each statement outside a transaction is one.
  await postgres.query('select pg_stat_force_next_flush()');
  const { rows } = await postgres.query<{ count: bigint }>(
    'select xact_commit as count from pg_stat_database where datname = current_database()',
  );
  return { ...Object.fromEntries(times), transactions: Number(rows[0]?.count ?? 0) };
}

function difference(after: Used, before: Used, toFigure: (value: number, name: string) => number): Used {
  return Object.fromEntries(
    Object.entries(after).map(([name, value]) => [name, toFigure(value - (before[name] ?? 0), name)]),
  );
}

function medians(rounds: readonly Used[]): Used {
  const names = Object.keys(rounds[0] ?? {});
  return Object.fromEntries(
    names.map((name) => [name, median(rounds.map((round) => round[name] ?? Number.NaN))]),
  );
}

async function printProfile(folder: string): Promise<void> {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.cpuprofile'));
  const profiles = await Promise.all(
    files.map(async (name) => ({ name, ...foldProfile(await readFile(join(folder, name), 'utf8')) })),
  );
  const most = Math.max(...profiles.map(({ busySeconds }) => busySeconds));
  // One for each thread; those of queues that nobody used only started.
  for (const { name, busySeconds, parts } of profiles) {
    if (busySeconds < most / 4) continue;
    heading(`${name}: busy for ${busySeconds.toFixed(1)} s`);
    table(
      ['part', 'share of that'],
      parts.slice(0, 20).map(({ part, share }) => [shorten(part, 40), `${(100 * share).toFixed(1)} %`]),
    );
  }
}
