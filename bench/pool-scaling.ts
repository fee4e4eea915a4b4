// Claim: under a steady backlog 2, then 4, then 1 worker take tasks as fast as their slots or the provider's quota let them; none is lost
// and none is billed twice when workers come and go. `--kill` ends workers by SIGKILL instead of SIGTERM.

import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { compareCharges } from '../dev/oracle/compare.ts';
import { loadConfig } from '../src/config.ts';
import { type BenchFleet, type BenchWorker, eachOf, pause, ROOMY, taskOf, withFleet } from './fleet.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '30' },
    'latency-ms': { type: 'string', default: '1000' },
    rpm: { type: 'string', default: '1200' },
    slots: { type: 'string', default: '8' },
    backlog: { type: 'string', default: '100' },
    kill: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
const PHASE_MS = Number(values.seconds) * 1_000;
const PHASES = [2, 4, 1] as const;
/** Of each phase, until the slots of new workers are full. */
const SETTLING_MS = Math.min(5_000, PHASE_MS / 3);

type Phase = { readonly workers: number; readonly from: number; readonly to: number };

await withFleet(
  {
    providerArgs: ['--latency-ms', values['latency-ms']],
    env: { WORKER_ACT_NORMAL: values.slots, WEIR_SHUTDOWN_GRACE: '10s' },
    limits: ROOMY.replace('rpm: unlimited', `rpm: ${values.rpm}`),
  },
  async (fleet) => {
    const stopping = new AbortController();
    const submitted: string[] = [];
    const feeding = feed(fleet, submitted, stopping.signal);
    const phases = await runPhases(fleet);
    stopping.abort();
    await feeding;
    const failed = await outcomes(fleet, submitted);
    await report(fleet, { phases, submitted, failed });
  },
);

async function runPhases(fleet: BenchFleet): Promise<readonly Phase[]> {
  const pool: BenchWorker[] = [];
  const phases: Phase[] = [];
  for (const workers of PHASES) {
    while (pool.length < workers) pool.push(await fleet.startWorker());
    // Those that leave do so while the next phase is measured.
    const leaving = pool.splice(workers).map((worker) => (values.kill ? worker.kill() : worker.stop()));
    const from = Date.now() + SETTLING_MS;
    await pause(PHASE_MS);
    phases.push({ workers, from, to: Date.now() });
    await Promise.all(leaving);
  }
  // More hands for what is left.
  while (pool.length < 2) pool.push(await fleet.startWorker());
  return phases;
}

/** Keeps so many tasks in the queue. */
async function feed(fleet: BenchFleet, submitted: string[], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const taken = new Set((await fleet.requests()).map(taskOf)).size;
    const missing = Number(values.backlog) - (submitted.length - taken);
    const ids = Array.from({ length: Math.max(0, missing) }, (_, n) => `task-${submitted.length + n}`);
    submitted.push(...ids);
    await eachOf(ids, 16, async (taskId) => {
      await fleet.tasks.start(
        { userId: 'bench', query: 'why is the sky blue', model: 'simulated/small' },
        taskId,
      );
    });
    await pause(250);
  }
}

/** Waits for every task; answers those that did not complete. */
async function outcomes(fleet: BenchFleet, submitted: readonly string[]): Promise<readonly string[]> {
  const failed: string[] = [];
  await eachOf(submitted, 50, async (taskId) => {
    const result = await fleet.tasks.result(taskId).catch(() => undefined);
    if (result?.status !== 'completed') failed.push(taskId);
  });
  return failed;
}

async function report(
  fleet: BenchFleet,
  run: {
    readonly phases: readonly Phase[];
    readonly submitted: readonly string[];
    readonly failed: readonly string[];
  },
): Promise<void> {
  const { phases, submitted, failed } = run;
  const requests = await fleet.requests();
  const { models } = loadConfig({ env: fleet.env });
  const { faults, ...figures } = compareCharges({
    requests,
    rows: await fleet.accounts.rows({ taskIds: submitted }),
    pricesOf: (model) => models[model]?.prices ?? [],
    // A killed worker leaves estimates; a stopped one none.
    mayBeEstimated: () => values.kill,
    answeredTasks: submitted.filter((taskId) => !failed.includes(taskId)),
  });
  const perSecond = ({ from, to }: Phase) =>
    requests.filter(({ at }) => Date.parse(at) >= from && Date.parse(at) < to).length / ((to - from) / 1_000);
  const quota = Number(values.rpm) / 60;
  const slots = (workers: number) => (workers * Number(values.slots) * 1_000) / Number(values['latency-ms']);
  heading(
    `${submitted.length} tasks, ${failed.length} lost, ${figures.billable} billed, ${faults.length} faults in the ledger`,
  );
  say(
    `provider ${values['latency-ms']} ms and ${values.rpm} rpm, workers leave by ${values.kill ? 'SIGKILL' : 'SIGTERM'}, ` +
      `${figures.estimates} estimates, load ${loadavg()[0]?.toFixed(1)}`,
  );
  for (const fault of faults.slice(0, 10)) say(fault);
  table(
    ['workers', 'tasks a second', 'what slots and quota allow', 'of it'],
    phases.map((phase) => {
      const allowed = Math.min(quota, slots(phase.workers));
      return [
        String(phase.workers),
        perSecond(phase).toFixed(1),
        allowed.toFixed(1),
        `${((100 * perSecond(phase)) / allowed).toFixed(0)} %`,
      ];
    }),
  );
}
