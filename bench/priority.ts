// Claim: the 95th percentile of the start of 100 high tasks is at most twice as late behind 1,000 queued low ones as without them, and the
// low ones keep at least 5 % of the throughput meanwhile. A start is the arrival of a task's request at the provider.
// `--queues off` puts all of them into one queue, where the priority key alone decides; `--rpm` makes the provider's quota the bottleneck.

import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { heading, say, table } from '../dev/demo/terminal.ts';
import { type BenchFleet, eachOf, pause, percentile, ROOMY, taskOf, withFleet } from './fleet.ts';

const { values } = parseArgs({
  options: {
    low: { type: 'string', default: '1000' },
    high: { type: 'string', default: '100' },
    'latency-ms': { type: 'string', default: '1000' },
    rpm: { type: 'string', default: 'unlimited' },
    queues: { type: 'string', default: 'on' },
  },
  allowPositionals: true,
});
const LOW = Number(values.low);
const HIGH = Number(values.high);

type Start = { readonly taskId: string; readonly submittedMs: number };

await withFleet(
  {
    providerArgs: ['--latency-ms', values['latency-ms']],
    env: { PRIORITY_QUEUES: values.queues },
    limits: ROOMY.replace('rpm: unlimited', `rpm: ${values.rpm}`),
  },
  async (fleet) => {
    await fleet.startWorker();
    await warmUp(fleet);
    const alone = await delaysOf(fleet, await submit(fleet, 'high', { count: HIGH, name: 'alone' }));

    const low = await submit(fleet, 'low', { count: LOW, name: 'low' });
    const lowIds = new Set(low.map(({ taskId }) => taskId));
    await untilSome(fleet, lowIds);
    const since = Date.now();
    const behind = await delaysOf(fleet, await submit(fleet, 'high', { count: HIGH, name: 'behind' }));
    const until = Date.now();
    const meanwhile = (await fleet.requests()).filter(({ at }) => {
      const ms = Date.parse(at);
      return ms >= since && ms <= until;
    });
    const lows = meanwhile.filter((request) => lowIds.has(taskOf(request))).length;

    const [before, after] = [percentile(alone, 0.95), percentile(behind, 0.95)];
    heading(
      `start of ${HIGH} high tasks behind ${LOW} low ones: ${(after / before).toFixed(2)}x (at most 2x)`,
    );
    say(`the low ones had ${((100 * lows) / meanwhile.length).toFixed(1)} % of the requests (at least 5 %)`);
    say(
      `queues ${values.queues}, provider ${values['latency-ms']} ms and ${values.rpm} rpm, load ${loadavg()[0]?.toFixed(1)}`,
    );
    table(
      ['high tasks', 'p50, s', 'p95, s', 'last, s'],
      [
        ['alone', ...figures(alone)],
        ['behind low ones', ...figures(behind)],
      ],
    );
    // What is left of the low ones is removed with the servers.
  },
);

function figures(delays: readonly number[]): string[] {
  return [0.5, 0.95, 1].map((share) => (percentile(delays, share) / 1_000).toFixed(2));
}

async function warmUp(fleet: BenchFleet): Promise<void> {
  await delaysOf(fleet, await submit(fleet, 'high', { count: 10, name: 'warm' }));
}

async function submit(
  { tasks }: BenchFleet,
  priority: 'high' | 'low',
  { count, name }: { readonly count: number; readonly name: string },
): Promise<readonly Start[]> {
  const starts: Start[] = [];
  const ids = Array.from({ length: count }, (_, n) => `${name}-${n}`);
  await eachOf(ids, 16, async (taskId) => {
    starts.push({ taskId, submittedMs: Date.now() });
    await tasks.start(
      { userId: 'bench', query: 'why is the sky blue', model: 'simulated/small', priority },
      taskId,
    );
  });
  return starts;
}

async function untilSome(fleet: BenchFleet, taskIds: ReadonlySet<string>): Promise<void> {
  while (!(await fleet.requests()).some((request) => taskIds.has(taskOf(request)))) await pause(100);
}

/** Milliseconds from submission to the arrival at the provider, when all have arrived. */
async function delaysOf(fleet: BenchFleet, starts: readonly Start[]): Promise<readonly number[]> {
  for (;;) {
    const arrived = new Map(
      (await fleet.requests()).map((request) => [taskOf(request), Date.parse(request.at)]),
    );
    const delays = starts.flatMap(({ taskId, submittedMs }) => {
      const at = arrived.get(taskId);
      return at === undefined ? [] : [at - submittedMs];
    });
    if (delays.length === starts.length) return delays;
    await pause(200);
  }
}
