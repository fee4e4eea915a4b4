// Claim: four processes that ask without a rest for a minute are admitted exactly as often as the tight limit says, whichever of provider
// and tier, requests and tokens it is; they are told waits that are right to 10 ms; a permit costs at most 1.2 admissions of the
// provider's slot; and in no 60 seconds more is admitted than the limit and a burst.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { openBenchStores, withServers } from './harness.ts';
import {
  type Ask,
  LIMIT,
  type Order,
  type Permit,
  type Report,
  SCENARIOS,
  type Scenario,
  TOKENS,
} from './rate-scenarios.ts';

const PROCESSES = 4;
/** Of each process. Nothing is booked with a tenant: there all who wait come at once, and few are enough. */
const LANES = { 'provider rpm': 20, 'provider tpm': 20, 'tier rpm': 4, 'tier tpm': 4 };

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '60' } },
  allowPositionals: true,
});
const RUN_MS = Number(values.seconds) * 1_000;
/** What is booked before the end of the minute is still waited for. */
const GRACE_MS = 2_000;

await withServers(async (servers) => {
  await using bench = await openBenchStores(servers);
  const children = Array.from({ length: PROCESSES }, () =>
    fork(new URL('./rate-accuracy-process.ts', import.meta.url), [
      servers.postgres,
      servers.redis,
      bench.name,
    ]),
  );
  await Promise.all(children.map((child) => once(child, 'message')));
  const untilMs = performance.timeOrigin + performance.now() + RUN_MS + GRACE_MS;
  const reports = await Promise.all(
    children.map(async (child) => {
      child.send({ lanes: LANES, untilMs } satisfies Order);
      const [report] = await once(child, 'message');
      return report as Report;
    }),
  );
  for (const child of children) child.disconnect();
  await Promise.all(children.map((child) => once(child, 'exit')));

  const figures = SCENARIOS.map((scenario) => figuresOf(scenario, reports));
  const isRight = figures.every(({ admitted, theory }) => Math.abs(admitted - theory) <= 1);
  heading(`admitted as the limits say, to one: ${isRight ? 'in all buckets' : 'not everywhere'}`);
  say(
    `${PROCESSES} processes, ${values.seconds} s, 600 requests or 60,000 tokens a minute, 100 tokens a request`,
  );
  table(
    [
      ...['tight limit', 'admitted', 'theory', 'waits off by, ms (median, p99)', 'late, ms (p99)'],
      ...['most in 60 s', 'limit and burst', 'admissions', 'redeemed'],
    ],
    figures.map((one) => [
      ...[one.scenario, String(one.admitted), String(one.theory)],
      `${one.offMs.median.toFixed(1)}, ${one.offMs.p99.toFixed(1)}`,
      ...[one.lateMs.p99.toFixed(1), String(one.most), String(one.mostAllowed)],
      ...[`${one.admissions.toFixed(2)} a permit`, `${one.redemptions.toFixed(2)} a permit`],
    ]),
  );
});

function figuresOf(scenario: Scenario, reports: readonly Report[]) {
  const permits = reports.flatMap((report) =>
    report.permits.filter((permit) => permit.scenario === scenario),
  );
  const slots = permits.map((permit) => permit.slotMs).sort((left, right) => left - right);
  const [first = 0] = slots;
  const { burst, everyMs } = shapeOf(scenario);
  const admitted = slots.filter((slot) => slot <= first + RUN_MS).length;
  const isDone = (permit: Permit) => permit.slotMs <= first + RUN_MS;
  const all = (kind: 'admit' | 'redeem') =>
    reports.reduce((sum, report) => sum + report.calls[scenario][kind], 0);
  return {
    scenario,
    admitted,
    theory: Math.floor(burst + RUN_MS / everyMs),
    offMs: spreadOf(
      offOf(
        reports.flatMap(({ asks }) => asks[scenario]),
        scenario,
      ),
    ),
    lateMs: spreadOf(permits.filter(isDone).map(({ grantedMs, slotMs }) => grantedMs - slotMs)),
    most: mostIn(
      permits.map((permit) => permit.grantedMs),
      60_000,
    ),
    mostAllowed: burst + Math.floor(60_000 / everyMs),
    admissions: all('admit') / permits.length,
    redemptions: all('redeem') / permits.length,
  };
}

/** Requests that a full bucket holds, and how far apart they follow then. */
function shapeOf(scenario: Scenario): { readonly burst: number; readonly everyMs: number } {
  return scenario.endsWith('rpm')
    ? { burst: (LIMIT.rpm * 5) / 60, everyMs: 60_000 / LIMIT.rpm }
    : { burst: LIMIT.tpm / TOKENS, everyMs: (60_000 * TOKENS) / LIMIT.tpm };
}

/** How far each wait is from what a bucket without rounding would have told at that moment. */
function offOf(asks: readonly Ask[], scenario: Scenario): readonly number[] {
  const { burst, everyMs } = shapeOf(scenario);
  let emptyMs = 0;
  return asks
    .toSorted((left, right) => left.atMs - right.atMs)
    .map(({ atMs, ms, isTaken }) => {
      const nextMs = Math.max(emptyMs, atMs) + everyMs;
      if (isTaken) emptyMs = nextMs;
      return Math.abs(ms - Math.max(0, nextMs - burst * everyMs - atMs));
    });
}

function mostIn(times: readonly number[], windowMs: number): number {
  const sorted = [...times].sort((left, right) => left - right);
  let [from, most] = [0, 0];
  for (const [to, time] of sorted.entries()) {
    while (time - (sorted[from] ?? time) >= windowMs) from += 1;
    most = Math.max(most, to - from + 1);
  }
  return most;
}

function spreadOf(values: readonly number[]): { readonly median: number; readonly p99: number } {
  const sorted = [...values].sort((left, right) => left - right);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { median: at(0.5), p99: at(0.99) };
}
