// Claim: governed simple tasks run at 0.85 times the rate of a bare workflow with one empty activity, on the same server, with 1, 4, 16 and
// 64 of them in flight. The provider answers at once, so that what is seen is Weir's own part. `--profile DIR` has the worker write a
// processor profile there, and prints where its time went.

import { mkdir, readdir, readFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { BARE_QUEUE } from './bare-worker.ts';
import { type BenchFleet, withFleet } from './fleet.ts';
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
type Measured = { readonly rate: number; readonly workerMs: number };

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
  const levels = values['in-flight'].split(',').map(Number);
  const rows: string[][] = [];
  for (const inFlight of levels) {
    const [bares, governeds] = await byTurns(fleet, inFlight, [other.pid, worker.pid]);
    const ratios = governeds.map(({ rate }, round) => rate / (bares[round]?.rate ?? Number.NaN));
    rows.push([
      String(inFlight),
      `${median(ratios).toFixed(2)}x`,
      spread(bares.map(({ rate }) => rate)),
      spread(governeds.map(({ rate }) => rate)),
      median(bares.map(({ workerMs }) => workerMs)).toFixed(1),
      median(governeds.map(({ workerMs }) => workerMs)).toFixed(1),
    ]);
  }
  heading('governed simple tasks against a bare workflow with one empty activity (aim: at least 0.85x)');
  say(`rounds of ${values.seconds} s, ${values.slots} slots, load ${loadavg()[0]?.toFixed(1)}`);
  table(
    ['in flight', 'ratio', 'bare, a second', 'governed, a second', 'bare worker, ms each', 'worker, ms each'],
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
  pids: readonly [number, number],
): Promise<readonly [readonly Measured[], readonly Measured[]]> {
  const found: [Measured[], Measured[]] = [[], []];
  // The first of each only warms up.
  for (let round = 0; round <= Number(values.rounds); round += 1)
    for (const [index, once] of [bare, governed].entries()) {
      const measured = await measure(fleet, once, { inFlight, pid: pids[index] ?? 0, round });
      if (round > 0) found[index]?.push(measured);
    }
  return found;
}

async function measure(
  fleet: BenchFleet,
  once: Once,
  { inFlight, pid, round }: { readonly inFlight: number; readonly pid: number; readonly round: number },
): Promise<Measured> {
  const from = performance.now();
  const cpuBefore = await cpuMs(pid);
  let done = 0;
  const lane = async (number: number) => {
    for (let n = 0; performance.now() - from < MS; n += 1) {
      await once(fleet, `${inFlight}-${round}-${number}-${n}`);
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, number) => lane(number)));
  const seconds = (performance.now() - from) / 1_000;
  return { rate: done / seconds, workerMs: ((await cpuMs(pid)) - cpuBefore) / done };
}

async function printProfile(folder: string): Promise<void> {
  const files = (await readdir(folder)).filter((name) => name.endsWith('.cpuprofile')).sort();
  for (const name of files) {
    const rows = foldProfile(await readFile(join(folder, name), 'utf8'));
    heading(`where ${name} spent its time`);
    table(
      ['part', 'share of the busy time'],
      rows.slice(0, 25).map(({ part, share }) => [part, `${(100 * share).toFixed(1)} %`]),
    );
  }
}
