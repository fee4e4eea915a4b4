// Claim: of two tenants that wait in one queue and whose plans have the weights 3 and 1, the first gets three quarters of it, give or take
// 10 %, as long as both wait.

import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { eachOf, pause, ROOMY, taskOf, withFleet } from './fleet.ts';

const { values } = parseArgs({
  options: {
    tasks: { type: 'string', default: '400' },
    'latency-ms': { type: 'string', default: '500' },
    weight: { type: 'string', default: '3' },
  },
  allowPositionals: true,
});
const TASKS = Number(values.tasks);
const TENANTS = ['heavy', 'light'] as const;

const LIMITS = ROOMY.replace(
  'rates:',
  `rates:\n  plans: {heavy: {fairnessWeight: ${values.weight}}}\n  tenants: {heavy: heavy}`,
);

await withFleet({ providerArgs: ['--latency-ms', values['latency-ms']], limits: LIMITS }, async (fleet) => {
  // All are queued before anybody takes one.
  const ids = Array.from({ length: TASKS }, (_, n) => TENANTS.map((tenant) => ({ tenant, n }))).flat();
  await eachOf(ids, 16, async ({ tenant, n }) => {
    await fleet.tasks.start(
      { userId: 'bench', tenantId: tenant, query: 'why is the sky blue', model: 'simulated/small' },
      `${tenant}-${n}`,
    );
  });
  await fleet.startWorker();
  const counts = async () => {
    const tenants = (await fleet.requests()).map((request) => taskOf(request).split('-')[0]);
    return { tenants, heavy: tenants.filter((tenant) => tenant === 'heavy').length };
  };
  // The last slots' worth is not looked at: there the heavy tenant has less waiting than slots.
  while ((await counts()).heavy < TASKS * 0.9) await pause(200);
  const { tenants } = await counts();
  const rows = [0.25, 0.5, 0.75, 0.9].map((share) => {
    const end = positionOf(tenants, 'heavy', Math.floor(TASKS * share));
    const heavy = tenants.slice(0, end).filter((tenant) => tenant === 'heavy').length;
    return { share, heavy, light: end - heavy };
  });
  const last = rows.at(-1);
  const ratio = (last?.heavy ?? Number.NaN) / (last?.light ?? Number.NaN);
  const wanted = Number(values.weight);
  heading(
    `weights ${values.weight} to 1: ${ratio.toFixed(2)} to 1 (${(wanted * 0.9).toFixed(1)} to ${(wanted * 1.1).toFixed(1)})`,
  );
  say(`${TASKS} tasks of each tenant, provider ${values['latency-ms']} ms, load ${loadavg()[0]?.toFixed(1)}`);
  table(
    ['of the heavy tenant', 'heavy', 'light', 'ratio'],
    rows.map(({ share, heavy, light }) => [
      `${share * 100} %`,
      String(heavy),
      String(light),
      (heavy / light).toFixed(2),
    ]),
  );
});

/** How many requests there were when the nth of a tenant arrived. */
function positionOf(tenants: readonly (string | undefined)[], tenant: string, nth: number): number {
  let seen = 0;
  const at = tenants.findIndex((one) => {
    if (one === tenant) seen += 1;
    return seen === nth;
  });
  return at + 1;
}
