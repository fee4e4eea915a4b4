// Claim: four processes that are asked for half as much again as a provider allows use at least 95 % of its quota with less than 1 % of
// the requests refused; when it cuts the quota to a tenth, at most 5 more are refused; when it raises it again, 90 % of it are used
// within ten minutes. The provider enforces its limits itself and says them in its headers. `--recovery 10` measures the last part too;
// with `--protocol google` it says nothing in headers, and only refusals teach.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { startSimulatedProvider } from '../dev/simulated-provider/server.ts';
import { openBenchStores, withServers } from './harness.ts';
import type { Order } from './quota-process.ts';

const PROCESSES = 4;
const QUOTA = 600;
const CUT_TO = 60;
const OFFERED = 1.5 * QUOTA;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '120' },
    cut: { type: 'string', default: '60' },
    recovery: { type: 'string', default: '0' },
    protocol: { type: 'string', default: 'openai' },
  },
  allowPositionals: true,
});
const [fullSeconds, cutSeconds, recoveryMinutes] = [values.seconds, values.cut, values.recovery].map(Number);

type Phase = { readonly name: string; readonly quota: number; readonly seconds: number };

const phases: readonly Phase[] = [
  { name: `quota of ${QUOTA} a minute`, quota: QUOTA, seconds: fullSeconds ?? 0 },
  { name: `cut to ${CUT_TO}`, quota: CUT_TO, seconds: cutSeconds ?? 0 },
  ...Array.from({ length: recoveryMinutes ?? 0 }, (_, minute) => ({
    name: `raised again, minute ${minute + 1}`,
    quota: QUOTA,
    seconds: 60,
  })),
];

await withServers(async (servers) => {
  await using bench = await openBenchStores(servers);
  await using provider = await startSimulatedProvider({
    limits: { rpm: QUOTA, tpm: 1_000_000_000 },
    latency: 150,
    firstTokenMs: 100,
    chunkDelayMs: 10,
  });
  const children = Array.from({ length: PROCESSES }, () =>
    fork(new URL('./quota-process.ts', import.meta.url), [
      ...[servers.postgres, servers.redis, bench.name],
      ...[provider.url, values.protocol, String(QUOTA)],
    ]),
  );
  const tell = (order: Order) => {
    for (const child of children) child.send(order);
  };
  await Promise.all(children.map((child) => once(child, 'message')));
  tell({ kind: 'start', callsPerMinute: OFFERED / PROCESSES });
  const rows: string[][] = [];
  let quota = QUOTA;
  for (const phase of phases) {
    if (phase.quota !== quota) await setQuota(provider.url, phase.quota);
    quota = phase.quota;
    const from = provider.requests().length;
    await sleep(phase.seconds * 1_000);
    rows.push(rowOf(phase, provider.requests().slice(from)));
  }
  tell({ kind: 'stop' });
  for (const child of children) child.disconnect();
  await Promise.all(children.map((child) => (child.exitCode === null ? once(child, 'exit') : undefined)));
  heading(`${PROCESSES} processes, ${OFFERED} calls a minute offered`);
  const says = values.protocol === 'google' ? 'and says only when to come again' : 'and says it in headers';
  say(`configured ${QUOTA} a minute; the provider enforces its own quota ${says}`);
  table(['phase', 'seconds', 'requests', 'answered 429', 'of the quota used'], rows);
});

async function setQuota(url: string, rpm: number): Promise<void> {
  const response = await fetch(`${url}/control/settings`, { method: 'PUT', body: JSON.stringify({ rpm }) });
  if (!response.ok) throw new Error(`the provider did not take its new quota: ${response.status}`);
}

function rowOf(phase: Phase, requests: readonly { readonly status: number | null }[]): string[] {
  const refused = requests.filter(({ status }) => status === 429).length;
  const share = (requests.length - refused) / ((phase.quota * phase.seconds) / 60);
  const percent = (100 * refused) / Math.max(1, requests.length);
  return [
    phase.name,
    String(phase.seconds),
    String(requests.length),
    `${refused} (${percent.toFixed(2)} %)`,
    `${(100 * share).toFixed(1)} %`,
  ];
}
